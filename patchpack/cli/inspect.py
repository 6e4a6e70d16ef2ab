"""``patchpack inspect``: what is in a source of images, what is wrong with it, and a recipe that suits it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

import patchpack as pp
from patchpack.cli.opening import open_typed
from patchpack.cli.terminal import count_of, say, say_losses, source_arguments
from patchpack.paint.decode import open_image, to_rgb
from patchpack.stream.names import IMAGE
from patchpack.stream.source import Source
from patchpack.types import Header

OFF_SQUARE = 1.2  # NaViT counts images whose aspect ratio deviates by more than 20 %
_ROWS = (512, 1024, 2048, 4096)
_BARS = " ▏▎▍▌▋▊▉█"
_PERCENTILES = {"min": 0, "5 %": 5, "median": 50, "95 %": 95, "max": 100}


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


def run(path: str, *, image: str, target: str | None, limit: int, out: str | None = None) -> int:
    """Survey a source, print what was found and, if wanted, draw it; returns the exit status."""
    if limit < 1:
        raise pp.ConfigError(f"--limit must be at least 1, got {limit}")
    if out is not None:  # before the pass over the data, which may take long
        from patchpack.cli import plots

        plots.check(Path(out))
    console = Console()
    source, label = open_typed(path, image=image, target=target)
    found = _read(console, source, limit)
    if not len(found.sizes):
        _print_losses(console, found)
        raise pp.SourceError(f"{path}: {count_of(len(found.rejected), 'sample')}, no image that can be read")
    chosen = suggest(found, labelled=label is not None)
    _print_survey(console, path, found)
    _print_suggestion(console, path, found, chosen, image, label)
    if out is not None:
        say(console, f"wrote {plots.draw(found, chosen, path, Path(out))}")
    say(console, f"next: patchpack preview {source_arguments(path, image, target)}")
    return 0


def _read(console: Console, source: Source, limit: int) -> Survey:
    columns = (SpinnerColumn(), TextColumn("reading  {task.completed:,.0f} samples"))
    events = source.scan()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        found = survey(source, progress.track(islice(events, limit)))
    return found._replace(complete=next(events, None) is None)


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
                except (pp.SampleError, pp.SourceError, OSError) as error:
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


def _print_survey(console: Console, path: str, found: Survey) -> None:
    more = "" if found.complete else " (the first of more)"
    say(console, f"{count_of(len(found.sizes), 'image')} in {path}{more}")
    tokens = found.native_tokens
    if (found.sizes == found.sizes[0]).all():
        height, width = found.sizes[0]
        every = "" if len(found.sizes) == 1 else "every one "
        say(console, f"{every}{height} x {width} pixels (height x width), {count_of(tokens[0], 'patch', 'es')} of 16 x 16")
    else:
        print_percentiles(console, found)
        _print_shapes(console, found)
    off = found.off_square
    say(console, f"{off.sum():,} of {len(off):,} ({percent(off.mean())}) are more than 20 % from square")
    for name, counts in (("formats", found.formats), ("modes", found.modes)):
        say(console, f"{name}: " + ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common()))
    _print_losses(console, found)


def print_percentiles(console: Console, found: Survey) -> None:
    """A table of heights, widths, shapes, pixels and patches."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column()
    for name in _PERCENTILES:
        table.add_column(name, justify="right")
    heights, widths = found.sizes.T
    for name, values, form in (
        ("height", heights, "{:,.0f}"),
        ("width", widths, "{:,.0f}"),
        ("width / height", found.aspects, "{:,.2f}"),
        ("megapixels", heights * widths / 1e6, "{:.3f}"),
        ("patches of 16 x 16", found.native_tokens, "{:,.0f}"),
    ):
        table.add_row(name, *(form.format(v) for v in np.percentile(values, [*_PERCENTILES.values()])))
    console.print(table)


def _print_shapes(console: Console, found: Survey) -> None:
    """A histogram of width / height; the bin in the middle is what counts as square."""
    half = OFF_SQUARE * np.sqrt(2) ** np.arange(6)  # 1.2 to 6.8
    edges = np.concatenate([[0], 1 / half[::-1], half, [np.inf]])
    counts, _ = np.histogram(np.where(found.off_square, found.aspects, 1.0), edges)
    seen = np.flatnonzero(counts)
    blank, full = (" ", "#") if console.options.ascii_only else (_BARS, "█")
    console.print("width / height")
    for i in range(seen[0], seen[-1] + 1):
        low, high, count = edges[i], edges[i + 1], counts[i]
        name = f"under {high:.2f}" if i == 0 else f"over {low:.2f}" if high == np.inf else f"{low:.2f} to {high:.2f}"
        steps = len(blank) - 1 or 1
        whole, rest = divmod(max(int(count > 0), round(40 * steps * count / counts.max())), steps)
        say(console, f"  {name:>12}  {full * whole}{blank[rest].strip()} {f'{count:,}' if count else ''}".rstrip())


def _print_losses(console: Console, found: Survey) -> None:
    rejected = found.rejected
    say(console, f"{count_of(len(rejected), 'sample')} cannot be used" + (":" if rejected else ""))
    say_losses(console, rejected, found.faults)
    if found.ignored:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.ignored.items())
        say(console, f"{count_of(sum(found.ignored.values()), 'file')} passed over, of other kinds: {kinds}")


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
    planner = pp.EpochPlanner(recipe)
    headers = [Header(key, "", "", pp.Size(int(h), int(w)), None) for key, (h, w) in zip(found.keys, found.sizes, strict=True)]
    plans = [*planner.feed(headers), *planner.finish()]
    rows = np.concatenate([np.add.reduceat(plan.table.num_tokens, plan.offsets[:-1]) for plan in plans])
    full = rows[:-1] if len(rows) > 1 else rows
    return Packed(seq_len, np.concatenate([plan.table.num_tokens for plan in plans]), float(full.mean()) / seq_len, len(rows))


def _print_suggestion(console: Console, path: str, found: Survey, chosen: Suggestion, image: str, label: str | None) -> None:
    packed = chosen.packed
    where = f"in {count_of(packed.num_rows, 'row')} of {packed.seq_len}"
    if packed.num_rows <= 1:
        where = f"in the one row of {packed.seq_len} that these images need: too few to say more"
    say(console, "")
    say(console, f"suggested: {chosen.call}, fill {packed.fill:.3f} {where}")
    say(console, f"because: {chosen.reason}")
    options = "" if image == IMAGE else f", image={image!r}"
    options += f", target={label!r}" if label != "cls" else ""
    options += ', on_error="skip"' if found.rejected or found.faults else ""
    code = (
        f"import patchpack as pp\n\nrecipe = {chosen.call}\n"
        f"loader = pp.load({path!r}, recipe{options}, shuffle=True, num_workers=4)\n"
        # a worker that is spawned imports the program that started it
        f'if __name__ == "__main__":\n    for batch in loader:\n        inputs = pp.to_device(batch, "cpu")  # or "cuda"'
    )
    for line in ("", *code.splitlines(), ""):
        say(console, line)
