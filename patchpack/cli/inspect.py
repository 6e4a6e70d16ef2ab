"""``patchpack inspect``: what is in a source of images, what is wrong with it, and a recipe that suits it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

import patchpack as pp
from patchpack.cli.opening import open_typed
from patchpack.paint.decode import open_image, to_rgb
from patchpack.stream.source import Source
from patchpack.types import Header

OFF_SQUARE = 1.2  # NaViT counts images whose aspect ratio deviates by more than 20 %
_ROWS = (512, 1024, 2048, 4096)
_BARS = " ▏▎▍▌▋▊▉█"


class Survey(NamedTuple):
    """What a pass over a source found.

    Attributes:
        sizes: int64 ``[n, 2]`` height and width of every readable image.
        keys: their keys.
        formats, modes: counts, as the files say.
        rejected: samples that cannot be used.
        faults: shards that could not be read to their end.
        complete: False if the pass stopped at its limit.
    """

    sizes: npt.NDArray[np.int64]
    keys: list[str]
    formats: Counter[str]
    modes: Counter[str]
    rejected: list[pp.Rejection]
    faults: list[pp.ShardFault]
    complete: bool


def run(path: str, *, image: str, target: str | None, limit: int) -> int:
    """Survey a source and print what was found; returns the exit status."""
    console = Console()
    source, label = open_typed(path, image=image, target=target)
    events = source.scan()
    shown = track(islice(events, limit), description="reading", total=None, console=console, transient=True)
    found = survey(source, shown)._replace(complete=next(events, None) is None)
    if not len(found.sizes):
        for rejection in found.rejected[:10]:
            console.print(f"rejected {rejection}", markup=False)
        raise pp.SourceError(f"{path}: {len(found.rejected)} samples, none of them readable")
    _print_survey(console, path, found)
    _print_suggestion(console, path, found, image, label)
    return 0


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
            try:
                format_name, mode = _look(source, event)
            except (pp.SampleError, pp.SourceError, OSError) as error:
                rejected.append(pp.Rejection(event.shard, event.key, event.member, "decode", str(error)))
                continue
            sizes.append(event.size)
            keys.append(event.key)
            formats[format_name] += 1
            modes[mode] += 1
    table = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    return Survey(table, keys, formats, modes, rejected, faults, complete=True)


def _look(source: Source, header: Header) -> tuple[str, str]:
    data, _ = source.reader(header.location)
    picture = open_image(data)
    kind = picture.format or "?", picture.mode
    to_rgb(picture)  # a header can look fine above pixels that are not
    return kind


def _print_survey(console: Console, path: str, found: Survey) -> None:
    heights, widths = found.sizes.T
    aspect = widths / heights
    off_square = np.maximum(aspect, 1 / aspect) > OFF_SQUARE
    more = "" if found.complete else " (the first of more)"
    console.print(f"{len(found.sizes)} images in {path}{more}", markup=False, highlight=False, soft_wrap=True)
    table = Table("", *(f"{q} %" for q in (0, 5, 50, 95, 100)))
    for name, values, form in (
        ("height", heights, "{:.0f}"),
        ("width", widths, "{:.0f}"),
        ("width / height", aspect, "{:.2f}"),
        ("megapixels", heights * widths / 1e6, "{:.2f}"),
        ("patches of 16 x 16", _native_tokens(found.sizes), "{:.0f}"),
    ):
        table.add_row(name, *(form.format(v) for v in np.percentile(values, (0, 5, 50, 95, 100))))
    console.print(table)
    _print_histogram(console, "width / height", aspect, np.geomspace(1 / 8, 8, 13))
    console.print(f"{off_square.mean():.0%} are more than 20 % from square")
    for name, counts in (("formats", found.formats), ("modes", found.modes)):
        console.print(f"{name}: " + ", ".join(f"{kind} {count}" for kind, count in counts.most_common()))
    console.print(f"{len(found.rejected)} samples cannot be used" + (":" if found.rejected else ""))
    for rejection in found.rejected[:10]:
        console.print(f"  {rejection}", markup=False, highlight=False)
    if len(found.rejected) > 10:
        stages = Counter(rejection.stage for rejection in found.rejected)
        console.print("  … by stage: " + ", ".join(f"{stage} {count}" for stage, count in stages.most_common()))
    for fault in found.faults:
        console.print(f"shard {fault.shard}: {fault.reason}", markup=False)


def _print_histogram(console: Console, name: str, values: Any, edges: Any) -> None:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        eighths = round(40 * 8 * count / counts.max())
        bar = "█" * (eighths // 8) + _BARS[eighths % 8].strip()
        console.print(f"{name} {low:5.2f} … {high:5.2f} {bar} {count or ''}", highlight=False)


def _native_tokens(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    tokens: npt.NDArray[np.int64] = np.prod(-(-sizes // 16), axis=1)
    return tokens


class Suggestion(NamedTuple):
    """A recipe in words and as code, the fill it reaches on these sizes, and why it."""

    call: str
    recipe: pp.Recipe
    fill: float
    reason: str


def suggest(sizes: npt.NDArray[np.int64], keys: list[str], *, labelled: bool) -> Suggestion:
    """A preset for these images: the shortest rows that are near full."""
    dense = bool(np.median(_native_tokens(sizes)) > 2048)
    if dense:
        name, budget, reason = "siglip2_naflex", 1024, "large pages or screenshots: a budget of 1024 patches keeps them legible"
    elif labelled:
        name, budget, reason = "navit", None, "labelled images: resolution and token drop drawn per image train fastest"
    else:
        name, budget, reason = "siglip2_naflex", 256, "unlabelled images: one budget of 256 patches, nothing dropped"
    options: dict[str, Any] = {} if budget is None else {"max_patches": budget}
    best = None
    for seq_len in (n for n in _ROWS if n >= (budget or 256)):
        recipe = pp.recipes.get(name, seq_len=seq_len, **options)
        fill = planned_fill(recipe, sizes, keys)
        arguments = ", ".join(f"{k}={v}" for k, v in {"seq_len": seq_len, **options}.items())
        if best is None or fill > best.fill + 0.005:
            best = Suggestion(f"pp.recipes.{name}({arguments})", recipe, fill, reason)
    assert best is not None
    return best


def planned_fill(recipe: pp.Recipe, sizes: npt.NDArray[np.int64], keys: list[str]) -> float:
    """Fill rate of all rows but the last, planned from sizes alone."""
    planner = pp.EpochPlanner(recipe)
    headers = [Header(key, "", "", pp.Size(int(h), int(w)), None) for key, (h, w) in zip(keys, sizes, strict=True)]
    fills: list[float] = []
    for plan in [*planner.feed(headers), *planner.finish()]:
        tokens = np.add.reduceat(plan.table.num_tokens, plan.offsets[:-1]) if plan.num_rows else np.zeros(0)
        fills += (tokens / plan.seq_len).tolist()
    return float(np.mean(fills[:-1] or fills or [0.0]))


def _print_suggestion(console: Console, path: str, found: Survey, image: str, label: str | None) -> None:
    chosen = suggest(found.sizes, found.keys, labelled=label is not None)
    console.print(f"\nsuggested: [bold]{chosen.call}[/], fill {chosen.fill:.3f} on these images")
    console.print(f"because: {chosen.reason}")
    options = f", target={label!r}" if label != "cls" else ""
    options += ', on_error="skip"' if found.rejected or found.faults else ""
    code = (
        f"import patchpack as pp\n\nrecipe = {chosen.call}\n"
        f"loader = pp.load({path!r}, recipe, image={image!r}{options}, num_workers=4)\n"
        f'for batch in loader:\n    inputs = pp.to_device(batch, "cuda")'
    )
    console.print(f"\n{code}\n", markup=False, highlight=False, soft_wrap=True)
    console.print(f"next: patchpack preview {path}", markup=False, highlight=False, soft_wrap=True)
