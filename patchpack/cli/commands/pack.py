"""``patchpack pack``: whole epochs, painted once (decoded and cut into patches) and written into a folder of packed shards."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn

import patchpack as pp
from patchpack.cli.arguments import (
    AUTO,
    SHARDS,
    add_epoch,
    add_indexed_fields,
    add_recipe,
    add_rows,
    add_seed,
    add_seq_len,
    add_workers,
    describe,
    recipe_of,
)
from patchpack.cli.commands.index import build
from patchpack.cli.terminal import count_of, progress, say, say_losses
from patchpack.errors import ConfigError
from patchpack.stream.index import Index
from patchpack.stream.index.columns import MAGIC
from patchpack.stream.jobs.engine import require_engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        "Plans epochs of uncompressed tar shards, paints all of their batches and writes them to a folder, from which\n"
        "patchpack.PackedShards reads them. If it was killed, run it again: it goes on where it stopped.",
        "patchpack pack train.index packed/ --recipe siglip2_naflex --shuffle 100000 --num-workers 8",
        "patchpack pack 'train-*.tar' packed/ --seq-len 4096 --epochs 4 --engine ray",
    )
    parser.add_argument("source", nargs="+", metavar="SHARDS", help=f"{SHARDS}; or one index")
    parser.add_argument("out", metavar="OUT", help="a new folder, or the folder of a run that did not finish")
    add_recipe(parser)
    add_seq_len(parser)
    add_rows(parser)
    add_seed(parser)
    add_epoch(parser, "begin with epoch N, counted from 0 (default: 0)")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="paint N epochs, one after the other (default: 1)")
    parser.add_argument(
        "--shuffle", type=int, default=0, metavar="N", help="shuffle within blocks of N samples (default: 0, no shuffling)"
    )
    parser.add_argument(
        "--tail", default="short", choices=("short", "drop", "pad", "wrap"),
        help="for a last batch with fewer rows: short writes it, drop leaves it out, pad adds empty rows, wrap repeats the "
        "first rows (default: short)",
    )  # fmt: skip
    parser.add_argument(
        "--steps-per-shard",
        type=int,
        default=None,
        metavar="N",
        help="write N batches into a file (default: as many as fit 256 MB)",
    )
    add_indexed_fields(parser, "the index")
    add_workers(parser, "paint")


def run(arguments: argparse.Namespace) -> int:
    """Plan, paint and write epochs, and print what was written. Return the exit status."""
    recipe = recipe_of(arguments)
    require_engine(arguments.engine, arguments.num_workers)
    console, start, source = Console(), time.perf_counter(), arguments.source
    if len(source) == 1 and _is_index(source[0]):
        if arguments.image is not None or arguments.target != AUTO:
            raise ConfigError(f"--image and --target are decided when an index is built: {source[0]} has its own")
        index = Index.open(source[0])
    else:
        index = build(console, source, arguments)
    columns = (
        SpinnerColumn(),
        TextColumn("painting"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} batches, {task.fields[images]:,} images"),
        TimeRemainingColumn(),
    )
    with progress(console, *columns) as bar:
        task = bar.add_task("", total=None, images=0)
        packed = pp.PackedShards.write(
            index,
            recipe,
            arguments.out,
            epoch=arguments.epoch,
            num_epochs=arguments.epochs,
            shuffle=arguments.shuffle,
            tail=arguments.tail,
            steps_per_shard=arguments.steps_per_shard,
            num_workers=arguments.num_workers,
            engine=arguments.engine,
            progress=lambda done, total, images: bar.update(task, completed=done, total=total, images=images),
            context="spawn",  # the progress bar is a thread, which does not survive a fork
        )
    _say(console, packed, arguments.out, time.perf_counter() - start)
    return 0


def _is_index(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _say(console: Console, packed: pp.PackedShards, out: str, seconds: float) -> None:
    first = next(iter(packed.reports.values()))
    for epoch, report in packed.reports.items():
        dropped = "".join(f", {count} dropped by {rule}" for rule, count in report.dropped.items())
        batches = count_of(len(packed.steps_of(epoch)), "batch", "es")
        images = count_of(report.packed, "image")
        say(console, f"epoch {epoch}: {images} in {batches}, {len(report.rejected):,} cannot be used{dropped}")
    say_losses(console, first.rejected, first.shard_errors)
    each = packed.nbytes / max(1, packed.num_images)
    say(console, f"{seconds:.1f} s")
    files = count_of(len(packed.shards), "file")
    say(console, f"wrote {Path(out)}: {files}, {packed.nbytes:,} bytes, {each:,.0f} per image")
    say(console, f"next: DataLoader(pp.PackedShards({out!r}), batch_size=None, shuffle=True)")
