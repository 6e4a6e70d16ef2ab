"""A pass over a source: sizes and kinds of its images, and the recipe that suits them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import patchpack as pp
from patchpack.image.decode import open_image, to_rgb
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.stream.sample.source import Source
from patchpack.types import Header, Size

OFF_SQUARE = 1.2  # NaViT counts images whose aspect ratio deviates by more than 20 %
_ROWS = (512, 1024, 2048, 4096)


class Survey(NamedTuple):
    """What a pass over a source found.

    Attributes:
        sizes: integers ``[n, 2]``, height and width of every readable image.
        keys: their keys.
        formats, modes: counts, as the files say.
        rejected: samples that cannot be used.
        faults: shards that could not be read to their end.
        complete: False if the pass stopped at its limit.
        ignored: files of a folder that are no images, by extension.
    """

    sizes: npt.NDArray[np.int32] | npt.NDArray[np.int64]
    keys: list[str]
    formats: Counter[str]
    modes: Counter[str]
    rejected: list[pp.Rejection]
    faults: list[pp.ShardFault]
    complete: bool
    ignored: Mapping[str, int] = MappingProxyType({})

    @property
    def aspects(self) -> npt.NDArray[np.float64]:
        """Width / height of every image."""
        heights, widths = self.sizes.T
        aspects: npt.NDArray[np.float64] = widths / heights
        return aspects

    @property
    def off_square(self) -> npt.NDArray[np.bool_]:
        """Which images have one side more than 20 % longer than the other."""
        # in integers: 1.2 has no exact float
        off: npt.NDArray[np.bool_] = 10 * self.sizes.max(axis=1) > round(10 * OFF_SQUARE) * self.sizes.min(axis=1)
        return off

    @property
    def native_tokens(self) -> npt.NDArray[np.int64]:
        """Patches of 16 x 16 that cover every image."""
        tokens: npt.NDArray[np.int64] = np.prod(-(-self.sizes // 16), axis=1)
        return tokens


def survey(source: Source, events: Iterable[Any]) -> Survey:
    """Decode every image once; sizes and kinds of the readable ones, reasons of the others."""
    sizes, keys, rejected, faults = [], [], [], []
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    for event in events:
        if isinstance(event, pp.Rejection):
            rejected.append(event)
        elif isinstance(event, pp.ShardFault):
            faults.append(event)
        else:
            for header in event.images:
                try:
                    format_name, mode = _look(source, header)
                except (pp.errors.SampleError, pp.errors.SourceError, OSError) as error:
                    rejected.append(pp.Rejection(header.shard, header.key, header.member, "decode", str(error)))
                    continue
                sizes.append(header.size)
                keys.append(header.draw_key)
                formats[format_name] += 1
                modes[mode] += 1
    table = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    return Survey(table, keys, formats, modes, rejected, faults, complete=True, ignored=getattr(source, "ignored", {}))


def _look(source: Source, header: Header) -> tuple[str, str]:
    data, _ = source.reader(header.location)
    picture = open_image(data)
    kind = picture.format or "?", picture.mode
    to_rgb(picture)  # a header can look fine above pixels that are not
    return kind


def percent(share: float) -> str:
    """Whole percents; 0 and 100 only for what is exactly that."""
    return "under 1 %" if 0 < share < 0.005 else "over 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


class Packed(NamedTuple):
    """A recipe on the sizes of a survey.

    Attributes:
        seq_len: tokens per row.
        tokens: of every image.
        fill: rate of all rows but the last, which is seldom full; of the only row, if there is one.
        num_rows: rows in all.
    """

    seq_len: int
    tokens: npt.NDArray[np.int64]
    fill: float
    num_rows: int


class Suggestion(NamedTuple):
    """A recipe as code, why it, what it makes of these sizes, and what it would at other row lengths."""

    call: str
    reason: str
    packed: Packed
    tried: list[Packed]


def suggest(found: Survey, *, labelled: bool) -> Suggestion:
    """A preset for these images: the shortest rows that are near full."""
    dense = bool(np.median(found.native_tokens) > 2048)
    if dense:
        name, budget, reason = "siglip2_naflex", 1024, "large pages or screenshots: a budget of 1024 patches keeps them legible"
    elif labelled:
        name, budget, reason = "navit", None, "labelled images: resolution and token drop drawn per image train fastest"
    else:
        name, budget, reason = "siglip2_naflex", 256, "unlabelled images: one budget of 256 patches, nothing dropped"
    options: dict[str, Any] = {} if budget is None else {"max_patches": budget}
    lengths = [n for n in _ROWS if n >= (budget or 256)]
    tried = [pack(pp.recipes.get(name, seq_len=n, **options), n, found) for n in lengths]
    best = tried[0]
    for packed in tried[1:]:
        if packed.fill > best.fill + 0.005:
            best = packed
    arguments = ", ".join(f"{k}={v}" for k, v in {"seq_len": best.seq_len, **options}.items())
    return Suggestion(f"pp.recipes.{name}({arguments})", reason, best, tried)


def pack(recipe: pp.Recipe, seq_len: int, found: Survey) -> Packed:
    """Plan an epoch from sizes alone."""
    planner = OnlinePlanner(recipe)
    headers = [Header(key, "", "", Size(int(h), int(w)), None) for key, (h, w) in zip(found.keys, found.sizes, strict=True)]
    plans = [*planner.feed(headers), *planner.finish()]
    rows = np.concatenate([np.add.reduceat(plan.table.num_tokens, plan.offsets[:-1]) for plan in plans])
    full = rows[:-1] if len(rows) > 1 else rows
    return Packed(seq_len, np.concatenate([plan.table.num_tokens for plan in plans]), float(full.mean()) / seq_len, len(rows))
