"""``patchpack replay``: one image as training saw it, described in numbers and drawn as a picture."""

from __future__ import annotations

import argparse

from rich.console import Console

import patchpack as pp
from patchpack.cli.arguments import add_epoch, add_recipe, add_seed, add_seq_len, add_source, describe, recipe_of
from patchpack.cli.opening import open_typed
from patchpack.cli.pictures.files import png_path
from patchpack.cli.pictures.rows import drawable, picture_of
from patchpack.cli.pictures.sheet import save
from patchpack.cli.terminal import say
from patchpack.stream.replay import replay

# options that `replay` takes besides --epoch and --num-tokens → help
_DRAWS = {
    "step": "take the patch size of batch N, for recipes with several patch sizes (default: 0)",
    "repeat": "draw as in pass N over the source within the epoch (default: 0)",
    "ordinal": "drop as for sample N of the run, for drop schedules (default: 0)",
    "part": "paint image N of a sample with several images (default: 0)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        "Plans and paints one image alone, from its key and the numbers that seed its draws. The patches are those of\n"
        "any batch of that run, to the bit, for any number of workers and ranks.",
        "patchpack replay 'train-*.tar' --key train-0003.tar/n0144 --seed 7 --epoch 3 -o n0144.png",
    )
    add_source(parser)
    parser.add_argument("--key", required=True, help="paint the image with this key, as reports and batches show it")
    add_recipe(parser)
    add_seq_len(parser)
    add_seed(parser)
    add_epoch(parser)
    for name, about in _DRAWS.items():
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help=about)
    parser.add_argument(
        "--num-tokens", type=int, metavar="N", help="keep N tokens, where max_cut left fewer in the batch (default: all)"
    )
    parser.add_argument("-o", "--out", metavar="FILE", help="draw the image as .png")


def run(arguments: argparse.Namespace) -> int:
    """Print how one image was planned and painted, and draw the image. Return the exit status."""
    recipe, key = recipe_of(arguments), arguments.key
    path = None if arguments.out is None else png_path(arguments.out)
    opened, _ = open_typed(arguments.source, image=arguments.image, target=arguments.target)
    draws = {name: getattr(arguments, name) for name in ("epoch", "num_tokens", *_DRAWS)}
    found = replay(opened, recipe, key, **draws)
    patch_size = recipe.patch_size_at(arguments.epoch, arguments.step)
    (height, width), (rows, cols) = found.source_size, found.grid
    console = Console()
    say(console, f"{key}: {height} x {width} pixels, {rows} x {cols} patches of {patch_size} pixels, {len(found.patches)} kept")
    say(console, f"target {found.target}, digest {pp.digest(found)}")
    if path is not None:
        save(picture_of(replay(opened, drawable(recipe), key, **draws), patch_size), path)
        say(console, f"wrote {path}")
    return 0
