"""``patchpack inspect``: the images of a source, its faults, and a recipe that suits it."""

from __future__ import annotations

import argparse
from itertools import islice

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import SpinnerColumn, TextColumn
from rich.table import Table

from patchpack.cli.arguments import add_limit, add_source, describe, limit_of
from patchpack.cli.opening import open_typed, source_arguments
from patchpack.cli.survey.images import OFF_SQUARE, SizeTable, Survey, aspects_of, native_tokens_of, survey
from patchpack.cli.survey.suggestion import Suggestion, suggest
from patchpack.cli.terminal import count_of, percent, progress, say, say_losses
from patchpack.errors import SourceError
from patchpack.stream.sample.names import IMAGE
from patchpack.stream.sample.source import Source

_BARS = " ▏▎▍▌▋▊▉█"
_PERCENTILES = {"min": 0, "5 %": 5, "median": 50, "95 %": 95, "max": 100}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        "Reads every image once and reports sizes, aspect ratios, formats and unreadable files. Then suggests a\n"
        "recipe, with the fill it reaches on these sizes and code to paste.",
        "patchpack inspect photos/ -o survey.png",
        "patchpack inspect 'train-{0000..0003}.tar' --limit 1000",
    )
    add_source(parser)
    add_limit(parser, 10_000, "read at most N samples")
    parser.add_argument("-o", "--out", metavar="FILE", help="draw the survey as .png, .pdf or .svg; needs matplotlib")


def run(arguments: argparse.Namespace) -> int:
    """Decode every image of a source, print what was found, and draw a figure of it. Return the exit status."""
    path, image, target, limit = arguments.source, arguments.image, arguments.target, limit_of(arguments)
    out = None
    if arguments.out is not None:  # before the pass over the data, which may take long
        from patchpack.cli.pictures.files import figure_path

        out = figure_path(arguments.out)
    console = Console()
    source, label = open_typed(path, image=image, target=target)
    found = _read(console, source, limit)
    if not len(found.sizes):
        _print_losses(console, found)
        raise SourceError(f"{path}: {count_of(len(found.rejected), 'sample')}, no image that can be read")
    chosen = suggest(found, labelled=label is not None)
    _print_survey(console, path, found)
    _print_suggestion(console, path, found, chosen, image, label)
    if out is not None:
        from patchpack.cli.pictures.survey import draw_survey

        say(console, f"wrote {draw_survey(found, chosen, path, out)}")
    say(console, f"next: patchpack preview {source_arguments(path, image, target)}")
    return 0


def _read(console: Console, source: Source, limit: int) -> Survey:
    events = source.scan()
    with progress(console, SpinnerColumn(), TextColumn("reading  {task.completed:,.0f} samples")) as bar:
        found = survey(source, bar.track(islice(events, limit)))
    return found._replace(complete=next(events, None) is None)


def _print_survey(console: Console, path: str, found: Survey) -> None:
    more = "" if found.complete else " (the first of more)"
    say(console, f"{count_of(len(found.sizes), 'image')} in {path}{more}")
    if (found.sizes == found.sizes[0]).all():
        height, width = found.sizes[0]
        every = "" if len(found.sizes) == 1 else "every one "
        patches = count_of(found.native_tokens[0], "patch", "es")
        say(console, f"{every}{height} x {width} pixels (height x width), {patches} of 16 x 16")
    else:
        print_percentiles(console, found.sizes)
        _print_shapes(console, found)
    off = found.off_square
    say(console, f"{off.sum():,} of {len(off):,} ({percent(off.mean())}) are more than 20 % from square")
    for name, counts in (("formats", found.formats), ("modes", found.modes)):
        say(console, f"{name}: " + ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common()))
    _print_losses(console, found)


def print_percentiles(console: Console, sizes: SizeTable) -> None:
    """Print a table of heights, widths, aspect ratios, pixels and patches."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column()
    for name in _PERCENTILES:
        table.add_column(name, justify="right")
    heights, widths = sizes.T
    for name, values, form in (
        ("height", heights, "{:,.0f}"),
        ("width", widths, "{:,.0f}"),
        ("width / height", aspects_of(sizes), "{:,.2f}"),
        ("megapixels", heights * widths / 1e6, "{:.3f}"),
        ("patches of 16 x 16", native_tokens_of(sizes), "{:,.0f}"),
    ):
        table.add_row(name, *(form.format(v) for v in np.percentile(values, [*_PERCENTILES.values()])))
    console.print(table)


def _print_shapes(console: Console, found: Survey) -> None:
    """Print a histogram of width / height. The bin in the middle holds the images that count as square."""
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
        # a spawned worker imports the program
        f'if __name__ == "__main__":\n    for batch in loader:\n        inputs = pp.standardize(batch.to("cpu"))  # or "cuda"'
    )
    for line in ("", *code.splitlines(), ""):
        say(console, line)
