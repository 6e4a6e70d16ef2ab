"""The command line. Parsing by argparse, progress and tables by rich; a command's own module is imported when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from patchpack import __version__
from patchpack.errors import PatchpackError

_DEMO = """\
Streams the sample shards that patchpack ships, packs them, trains a small NaViT on
the packed rows and measures it on held-out images. Needs no data and no network.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``patchpack ARGS``; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except PatchpackError as error:
        print(f"patchpack: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="patchpack",
        description="Native-resolution images in, packed batches out: the input side of NaViT-style vision transformers.",
        epilog="example: patchpack demo",
    )
    parser.add_argument("--version", action="version", version=f"patchpack {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="watch images become packed rows that train a small NaViT (about a minute)",
        description=_DEMO,
        epilog="examples:\n  patchpack demo\n  patchpack demo --write train.py && python train.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("--out", default=".", metavar="DIR", help="where the pictures go (default: the current directory)")
    demo.add_argument("--epochs", type=int, default=None, metavar="N", help="passes over the training shards (default: 30)")
    demo.add_argument("--write", metavar="FILE", help="write the program the demo runs (60 lines, public API) and stop")
    demo.set_defaults(run=_demo)
    return parser


def _demo(args: argparse.Namespace) -> int:
    from patchpack.cli.demo import run, write_program

    if args.write:
        return write_program(args.write)
    return run(args.out, args.epochs)
