"""``patchpack plan``: a comparison of a recipe at several row lengths and numbers of slots, with a recommendation."""

from __future__ import annotations

import argparse

from rich import box
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.table import Table

from patchpack.cli.arguments import add_epoch, add_limit, add_recipe, add_source, describe, limit_of, parse_numbers
from patchpack.cli.survey.choice import Choice, combinations, recommend, row_lens_of
from patchpack.cli.survey.sizes import Sizes, read_sizes
from patchpack.cli.terminal import count_of, progress, say, say_losses
from patchpack.errors import SourceError
from patchpack.plan.study import Study, study

_SIZES = "a .npz or .csv of sizes, webdataset shards, a folder, a glob or one file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        "Packs images of given sizes as training would, at several row lengths and numbers of slots, and recommends\n"
        "one combination. Sizes come from a table (.npz with hw or wh, .csv with height and width) or from the headers\n"
        "of a source. No image is decoded.",
        "patchpack plan sizes.npz --recipe navit --seq-len 512,1024,2048 -o plan.png",
        "patchpack plan 'train-{0000..0003}.tar' --seq-len 1024 --max-images 16,32,64",
    )
    add_source(parser, "SIZES_OR_SOURCE", _SIZES)
    add_recipe(parser)
    parser.add_argument(
        "--seq-len", type=parse_numbers, default=None, metavar="N,N",
        help="compare rows of these numbers of tokens (default: up to four lengths from 512 to 4096)",
    )  # fmt: skip
    parser.add_argument(
        "--max-images", type=parse_numbers, default=None, metavar="N,N",
        help="compare rows with these numbers of slots (default: the preset's)",
    )  # fmt: skip
    parser.add_argument(
        "--order", choices=("hw", "wh"), help="read the columns of a .npz in this order, if its array is not named hw or wh"
    )
    add_limit(parser, 100_000, "plan at most N images")
    add_epoch(parser)
    parser.add_argument("-o", "--out", metavar="FILE", help="draw the comparison as .png, .pdf or .svg; needs matplotlib")


def run(arguments: argparse.Namespace) -> int:
    """Measure every combination, print a table and a recommendation, and draw a figure of both. Return the exit status."""
    path, limit, out = arguments.source, limit_of(arguments), None
    if arguments.out is not None:  # before anything slow
        from patchpack.cli.pictures.files import figure_path

        out = figure_path(arguments.out)
    recipes = combinations(arguments.recipe, arguments.seq_len, arguments.max_images)
    console = Console()
    reading = progress(console, SpinnerColumn(), TextColumn("reading  {task.completed:,.0f} headers"))
    fields = {"image": arguments.image, "target": arguments.target}
    found = read_sizes(path, reading, order=arguments.order, limit=limit, **fields)
    if not len(found.table):
        say_losses(console, found.rejected, found.faults)
        raise SourceError(f"{path}: no image with a height and a width of at least 1 pixel")
    _say_found(console, path, found)
    columns = (SpinnerColumn(), TextColumn("planning"), BarColumn(), TextColumn("{task.completed} of {task.total}"))
    with progress(console, *columns) as bar:
        studies = [study(found.table, each, epoch=arguments.epoch, keys=found.keys) for each in bar.track(recipes)]
    choice = recommend(studies)
    _print_table(console, studies, choice)
    _print_choice(console, arguments.recipe, choice)
    if out is not None:
        from patchpack.cli.pictures.axes import source_name
        from patchpack.cli.pictures.studies import draw_studies

        title = f"{arguments.recipe} on {count_of(len(found.table), 'image')} of {source_name(path)}"
        draw_studies(studies, choice, title, out)
        say(console, f"wrote {arguments.out}")
    return 0


def _say_found(console: Console, path: str, found: Sizes) -> None:
    more = "" if found.complete else " (the first of more)"
    say(console, f"{count_of(len(found.table), 'image')} in {path}{more}")
    if found.without_size:
        say(console, f"{count_of(found.without_size, 'line')} with a side below 1 pixel left out")
    if found.rejected or found.faults:
        say(console, f"{count_of(len(found.rejected), 'sample')} cannot be used:")
        say_losses(console, found.rejected, found.faults)


def _print_table(console: Console, studies: list[Study], choice: Choice) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    lost = any(s.refused or s.over_long for s in studies)
    heads = (
        "seq_len", "slots", "rows", "fill %", "steady\nfill %", "images\nper row", "min-\nmax", "% out of\nslots",
        "longest\nwait",
    )  # fmt: skip
    for name in (*heads, *(["not\ntaken"] if lost else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for s in studies:
        images, chosen = s.images_per_row, s is choice.study
        cells = [
            ("> " if chosen else "") + row_lens_of(s),
            f"{s.recipe.max_images}",
            f"{s.num_rows:,}",
            f"{100 * s.fill_rate:.2f}",
            f"{100 * s.steady_fill_rate:.2f}",
            f"{images.mean:.1f}",
            f"{images.min:.0f}-{images.max:.0f}",
            f"{100 * s.out_of_slots:.1f}",
            f"{s.longest_wait:,}",
        ]
        table.add_row(*cells, *([f"{s.refused + s.over_long:,}"] if lost else []), style="bold" if chosen else "")
    say(console, "")
    console.print(table)


def _print_choice(console: Console, name: str, choice: Choice) -> None:
    recipe = choice.study.recipe
    arguments = "" if recipe.seq_len is None else f"seq_len={recipe.seq_len}, max_images={recipe.max_images}"
    lines = [
        "",
        f"recommended: pp.recipes.{name}({arguments})",
        f"because: {choice.reason}",
        "",
        *choice.study.table().split("\n"),
    ]
    for line in lines:
        say(console, line)
