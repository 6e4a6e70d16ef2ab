"""Options that several commands share, each declared once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from patchpack.stream.sample.names import IMAGE

if TYPE_CHECKING:
    from patchpack.plan.recipe import Recipe

AUTO = "auto"  # default of --target: the command looks for labels in the samples
SOURCE = "webdataset shards, a folder, a table of paths (.csv, .jsonl, .parquet), a glob or one file"
SHARDS = "tar files: paths, URLs, brace patterns or globs"


def describe(parser: argparse.ArgumentParser, text: str, *examples: str) -> None:
    """Set the text above the options of a command, and the examples below them.

    Args:
        parser: the parser of the command.
        text: the description. It is printed with its line breaks, and not wrapped.
        examples: whole command lines.
    """
    parser.description = text
    parser.epilog = "\n  ".join(["examples:", *examples])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def add_source(parser: argparse.ArgumentParser, metavar: str = "SOURCE", about: str = SOURCE) -> None:
    """Add the argument of a source, and the options that name the fields of its samples.

    Args:
        parser: the parser of the command.
        metavar: name of the source in the usage. Default "SOURCE".
        about: help for the source. Default: shards, a folder, a glob or one file.
    """
    parser.add_argument("source", metavar=metavar, help=about)
    add_image(parser)
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--target", default=AUTO, metavar="EXT",
        help="read the label from the file with this extension (default: cls if the first sample has one)",
    )  # fmt: skip
    _add_no_target(labels.add_argument)


def add_image(parser: argparse.ArgumentParser) -> None:
    """Add the option for the extensions of the images."""
    parser.add_argument(
        "--image", default=IMAGE, metavar="EXT",
        help=f"read images from files with one of these extensions, separated by ; (default: {IMAGE})",
    )  # fmt: skip


def add_indexed_fields(parser: argparse.ArgumentParser, index: str) -> None:
    """Add the options that name the fields of a sample. Their defaults may come from an index.

    Args:
        parser: the parser of the command.
        index: words for the help text: the name of the index from which the defaults are read.
    """
    parser.add_argument(
        "--image", metavar="EXT",
        help=f"read images from files with one of these extensions, separated by ; (default: {index}'s, or {IMAGE})",
    )  # fmt: skip
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--target", default=AUTO, type=parse_labels, metavar="EXT",
        help="read labels from the files with these extensions, or from fields such as json:label, separated by commas "
        f"(default: {index}'s, or cls if the first sample has one)",
    )  # fmt: skip
    _add_no_target(labels.add_argument)


def _add_no_target(add_argument: Callable[..., object]) -> None:
    add_argument("--no-target", dest="target", action="store_const", const=None, help="read images without labels")


def add_recipe(parser: argparse.ArgumentParser, default: str = "navit") -> None:
    """Add the option ``--recipe``, the name of a preset. `recipe_of` returns the recipe."""
    parser.add_argument("--recipe", default=default, help=f"use this preset of patchpack.recipes (default: {default})")


def add_seq_len(parser: argparse.ArgumentParser) -> None:
    """Add the option for the number of tokens per row."""
    parser.add_argument("--seq-len", type=int, default=None, metavar="N", help="fill rows of N tokens (default: the preset's)")


def add_rows(parser: argparse.ArgumentParser) -> None:
    """Add the option for the number of rows per batch."""
    parser.add_argument(
        "--rows-per-batch", type=int, default=None, metavar="N", help="put N rows into a batch (default: the preset's)"
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the option for the seed of the recipe."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="draw sizes, crops and dropped patches with this seed (default: 0)"
    )


def add_epoch(parser: argparse.ArgumentParser, about: str = "plan this epoch, counted from 0 (default: 0)") -> None:
    """Add the option for the number of the epoch."""
    parser.add_argument("--epoch", type=int, default=0, metavar="N", help=about)


def add_limit(parser: argparse.ArgumentParser, default: int, task: str) -> None:
    """Add the option ``--limit``, the largest number of samples or images. `limit_of` checks the value.

    Args:
        parser: the parser of the command.
        default: the number if the option is not given.
        task: a verb and its object that say what the number limits.
    """
    parser.add_argument("--limit", type=int, default=default, metavar="N", help=f"{task} (default: {default})")


def add_model(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the options for the name of a model and the file of its weights.

    Args:
        parser: the parser of the command.
        default: the default name for the help text. The command itself must use this name if the option is not given. None: the
            option is required.
    """
    about = "use this preset of patchpack.model.presets" + ("" if default is None else f" (default: {default})")
    parser.add_argument("--model", required=default is None, metavar="NAME", help=about)
    parser.add_argument(
        "--weights", metavar="FILE",
        help="load its weights: a .npz of big_vision, or a state dict of timm or patchpack (default: random weights)",
    )  # fmt: skip


def add_workers(parser: argparse.ArgumentParser, task: str) -> None:
    """Add the options for the number of processes and for the engine that starts them.

    Args:
        parser: the parser of the command.
        task: a verb and its object that say what the processes do.
    """
    parser.add_argument(
        "--num-workers", type=int, default=0, metavar="N",
        help=f"{task} in N processes (default: 0, in this process; with --engine ray on all CPUs of the cluster)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", default="local", choices=("local", "ray"),
        help="start the processes on this machine or on a Ray cluster (default: local)",
    )  # fmt: skip


def add_target_kind(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--target-kind``, the kind of all labels of an index."""
    parser.add_argument(
        "--target-kind", default=None, choices=("int", "float", "object"),
        help="take all labels as integers, as floats, or as any values such as lists of several lengths and null "
        "(default: the older index's, or the kind of the first readable label)",
    )  # fmt: skip


def parse_labels(text: str) -> str | tuple[str, ...]:
    """Return one label unchanged. Return several labels, separated by commas, as a tuple."""
    several = tuple(part.strip() for part in text.split(",") if part.strip())
    return several if len(several) > 1 else text


def parse_numbers(text: str) -> list[int]:
    """Return the whole numbers in a text, which are separated by commas. Any other text raises `argparse.ArgumentTypeError`."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, got {text!r}") from None


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """Return the preset that ``--recipe`` names, with the row length, number of rows and seed of the command line."""
    from patchpack.plan import recipes

    given = {name: getattr(arguments, name, None) for name in ("seq_len", "rows_per_batch", "seed")}
    return recipes.get(arguments.recipe, **{name: value for name, value in given.items() if value is not None})


def limit_of(arguments: argparse.Namespace) -> int:
    """Return the value of ``--limit``. Raise `ConfigError` unless the value is at least 1."""
    from patchpack.errors import ConfigError

    if arguments.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {arguments.limit}")
    limit: int = arguments.limit
    return limit
