"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import Any

from patchpack.stream.sample.names import IMAGE


def add_workers(command: argparse.ArgumentParser, what: str) -> None:
    """Add the number of processes and the engine; `what` says what the processes do."""
    command.add_argument(
        "--num-workers", type=int, default=0, metavar="N",
        help=f"processes that {what} (default: 0, this one; with --engine ray all CPUs of the cluster)",
    )  # fmt: skip
    command.add_argument(
        "--engine", default="local", choices=("local", "ray"), help="where they run: on this machine, or on a Ray cluster"
    )


def add_members(command: argparse.ArgumentParser, otherwise: str) -> None:
    """Add the fields of a sample. Their defaults None and ``auto`` mean that the command finds out."""
    command.add_argument("--image", metavar="EXT", help=f"image extensions, ; between (default: {otherwise}, or {IMAGE})")
    labels = command.add_mutually_exclusive_group()
    labels.add_argument(
        "--target", default="auto", type=parse_labels, metavar="EXT", help="extension of the labels, several with commas "
        f"between (default: {otherwise}, or cls if there)",
    )  # fmt: skip
    add_no_target(labels)


def add_no_target(labels: Any) -> None:
    """Add ``--no-target`` to a group of arguments."""
    labels.add_argument("--no-target", dest="target", action="store_const", const=None, help="the images have no labels")


def parse_labels(text: str) -> str | tuple[str, ...]:
    """Return one label, or several with commas between as a tuple."""
    several = tuple(part.strip() for part in text.split(",") if part.strip())
    return several if len(several) > 1 else text


def parse_numbers(text: str) -> list[int]:
    """Return whole numbers that have commas between. Raise `argparse.ArgumentTypeError` for anything else."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers with commas between, got {text!r}") from None


def add_source(
    command: argparse.ArgumentParser, name: str = "SOURCE", what: str = "webdataset shards, a folder, a glob or one file"
) -> None:
    """Add the source and the fields of its samples.

    Args:
        command: the parser of the command.
        name: name of the source in the usage. Default "SOURCE".
        what: help for the source.
    """
    command.add_argument("source", metavar=name, help=what)
    command.add_argument("--image", default=IMAGE, metavar="EXT", help="image extensions, ; between")
    labels = command.add_mutually_exclusive_group()
    labels.add_argument("--target", default="auto", metavar="EXT", help="extension of the labels (default: cls if there)")
    add_no_target(labels)
