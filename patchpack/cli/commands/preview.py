"""``patchpack preview``: a picture of packed rows of a source, and of their images before and after resizing."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

import patchpack as pp
from patchpack.cli.arguments import add_epoch, add_model, add_recipe, add_seed, add_seq_len, add_source, describe, recipe_of
from patchpack.cli.opening import open_typed, source_arguments
from patchpack.cli.pictures import pairs, sheet
from patchpack.cli.pictures.files import png_path
from patchpack.cli.pictures.preview import Preview, contents, draw_preview
from patchpack.cli.pictures.rows import drawable
from patchpack.cli.terminal import count_of, say, say_losses
from patchpack.image.formats import reading_of
from patchpack.image.picture import rgb_picture
from patchpack.stream.sample.source import Source
from patchpack.types import Header

_MODEL = "flexivit_s"
_PAIRS = 12  # images that are drawn before and after resizing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        "Draws the first batch of a source: patches in their places, a colour per image, dropped patches and padding\n"
        "hatched, unreadable images crossed. Below are images before and after resizing.",
        "patchpack preview photos/ --recipe siglip2_naflex",
        "patchpack preview 'train-{0000..0003}.tar' --recipe navit --seq-len 1024 --rows 3 -o rows.png",
        "patchpack preview photos/ --features --model siglip2_b16 --weights siglip2_b16_naflex.npz",
    )
    add_source(parser)
    add_recipe(parser)
    add_seq_len(parser)
    parser.add_argument("--rows", dest="rows_per_batch", type=int, default=2, metavar="N", help="draw N rows (default: 2)")
    add_epoch(parser)
    add_seed(parser)
    parser.add_argument("--ids", action="store_true", help="write slot numbers")
    parser.add_argument("--features", action="store_true", help="draw a model's features of each patch as colours")
    add_model(parser, _MODEL)
    parser.add_argument("-o", "--out", default="preview.png", metavar="FILE", help="write this .png (default: preview.png)")


def run(arguments: argparse.Namespace) -> int:
    """Draw the first batch of a source. If a model is named, draw its features of the images too. Return the exit status."""
    recipe = recipe_of(arguments)
    path = png_path(arguments.out)  # before the data, which may be slow
    model = None
    if arguments.features or arguments.model or arguments.weights:
        from patchpack.cli.models import load_model

        model = load_model(arguments.model or _MODEL, arguments.weights)
    opened, _ = open_typed(arguments.source, image=arguments.image, target=arguments.target)
    preview = first_rows(opened, drawable(recipe), arguments.epoch)
    if model is not None:
        from patchpack.cli.pictures.features import draw_features

        colours = draw_features(preview.batch, preview.images, model)
        weights = "random weights" if arguments.weights is None else Path(arguments.weights).name
        preview = preview._replace(features=colours, model=f"{arguments.model or _MODEL}, {weights}")
    drawn = draw_preview(preview, arguments.recipe, epoch=arguments.epoch, seed=recipe.seed, ids=arguments.ids)
    sheet.save(drawn, path)
    console = Console()
    _say(console, preview.batch)
    say(console, f"wrote {path}")
    say(console, f"next: patchpack inspect {source_arguments(arguments.source, arguments.image, arguments.target)}")
    return 0


def _say(console: Console, batch: pp.PackedBatch[np.ndarray]) -> None:
    tokens, total = int(pp.token_mask(batch).sum()), batch.segment_ids.size
    say(console, f"{contents(batch)}: {tokens:,} of {total:,} tokens, fill {pp.fill_rate(batch):.3f}")
    # unreadable images, whose places stay empty, come first
    rejected = sorted(batch.info.rejections, key=lambda r: r.stage in ("header", "plan"))
    if rejected:
        say(console, f"{count_of(len(rejected), 'sample')} on the way cannot be used:")
    say_losses(console, rejected, batch.info.shard_errors)


def first_rows(source: Source, recipe: pp.Recipe, epoch: int) -> Preview:
    """Plan and paint the first batch.

    Args:
        source: the source.
        recipe: a recipe for pictures, as `drawable` returns it.
        epoch: number of the epoch.

    Raises:
        SourceError: no image can be packed.
    """
    planner = pp.Planner(source, recipe, epoch=epoch)
    plan = next(iter(planner))
    batch = pp.Painter(planner, on_error="skip")[plan]
    first = sorted(pp.unpack(batch), key=lambda image: (image.slot, image.row))[:_PAIRS]  # some of every row
    images = sorted(first, key=lambda image: (image.row, image.slot))
    wanted = {(image.key, image.part) for image in images}
    originals = {(h.key, h.part): _original(planner, h) for h in plan.headers if (h.key, h.part) in wanted}
    return Preview(plan, batch, images, originals)


def _original(planner: pp.Planner, header: Header) -> Image.Image:
    image, _ = planner.source.reader(header.location)
    picture = rgb_picture(
        image, max_pixels=planner.recipe.max_pixels, background=planner.recipe.background, reading=reading_of(planner.recipe)
    )
    shrink = max(picture.height // pairs.CELL.height, picture.width // pairs.CELL.width) // 2
    # twelve large photographs at once would need gigabytes
    return picture.reduce((min(shrink, picture.width), min(shrink, picture.height))) if shrink > 1 else picture
