"""``patchpack index``: one file with the size and location of every sample of some shards or of a folder."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn

from patchpack.cli.arguments import AUTO, SHARDS, add_indexed_fields, add_target_kind, add_workers, describe
from patchpack.cli.commands.inspect import print_percentiles
from patchpack.cli.opening import typed_target
from patchpack.cli.terminal import count_of, progress, say, say_losses
from patchpack.errors import SourceError
from patchpack.paint.target_kinds import KindOption, is_declared, option_of
from patchpack.stream.index import Index
from patchpack.stream.index.columns import require_replaceable
from patchpack.stream.jobs.engine import require_engine
from patchpack.stream.sample.names import IMAGE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        "Reads size and place of every sample of uncompressed tar shards, of a folder or of image files into one small\n"
        "file. With it patchpack.load plans a whole epoch at once and resumes at any step. No image is decoded.",
        "patchpack index 'train-{0000..0099}.tar' -o train.index --num-workers 8",
        "patchpack index 'train-*.tar' --update train.index -o train.index",
        "patchpack index photos/ -o photos.index",
        "patchpack index 's3://bucket/train-{0000..0099}.tar' -o train.index --num-workers 32",
    )
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help=f"{SHARDS}; or a folder, or image files")
    parser.add_argument(
        "-o", "--out", required=True, metavar="FILE", help="write the index to this file, which may replace an older index"
    )
    add_indexed_fields(parser, "the older index")
    add_target_kind(parser)
    add_workers(parser, "read shards")
    parser.add_argument("--update", metavar="OLD", help="take unchanged shards from this older index and read the others only")


def run(arguments: argparse.Namespace) -> int:
    """Build and save an index, and print what it holds. Return the exit status."""
    require_engine(arguments.engine, arguments.num_workers)
    out = Path(arguments.out)
    require_replaceable(out)  # before anything slow
    console = Console()
    old = None if arguments.update is None else Index.open(arguments.update, verify=False)
    start = time.perf_counter()
    index = build(console, arguments.shards, arguments, update=old)
    seconds = time.perf_counter() - start
    index.save(out)
    _say(console, index, old, out, seconds)
    return 0


def build(console: Console, shards: list[str], arguments: argparse.Namespace, *, update: Index | None = None) -> Index:
    """Build an index, and show the progress while shards are scanned.

    Args:
        console: the terminal.
        shards: paths, URLs and patterns of the shards, a folder, or image files.
        arguments: the parsed command line, with the options of `add_indexed_fields` and `add_workers`.
        update: an older index. Unchanged shards are taken from it and not read again. Its fields are the defaults of
            ``--image`` and ``--target``, and its declared kind is the default of ``--target-kind``. Default None.

    Raises:
        SourceError: no sample can be used. The reasons are printed before the error is raised.
    """
    image, target = arguments.image, arguments.target
    if image is None:
        image = IMAGE if update is None else ";".join(update.members.image)
    if target == AUTO:
        target = typed_target(shards, image=image) if update is None else update.members.target
    kind: KindOption = getattr(arguments, "target_kind", None)
    if kind is None and update is not None and target == update.members.target and is_declared(update.target_kind):
        kind = option_of(update.target_kind)
    columns = (
        SpinnerColumn(),
        TextColumn("reading headers"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} shards or files, {task.fields[samples]:,} samples"),
        TimeRemainingColumn(),
    )
    with progress(console, *columns) as bar:
        task = bar.add_task("", total=None, samples=0)
        index = Index.build(
            shards,
            image=image,
            target=target,
            target_kind=kind,
            num_workers=arguments.num_workers,
            engine=arguments.engine,
            update=update,
            progress=lambda done, total, samples: bar.update(task, completed=done, total=total, samples=samples),
            context="spawn",  # the progress bar is a thread, which does not survive a fork
        )
    if not len(index):
        say_losses(console, index.rejections, index.faults)
        raise SourceError(
            f"{count_of(len(index.rejections), 'sample')} in {index.name}, none that can be used: nothing was written"
        )
    return index


def _say(console: Console, index: Index, old: Index | None, out: Path, seconds: float) -> None:
    n, size = len(index), out.stat().st_size
    target, classes = index.members.target, getattr(index, "class_names", None)
    labels = ", ".join([target] if isinstance(target, str) else target or ["none"])
    if classes is not None:
        labels = f"{count_of(len(classes), 'class folder')}"
    place = count_of(index.num_shards, "shard") if index.shards else index.name
    say(console, f"{count_of(n, 'sample')} in {place}, labels: {labels}")
    print_percentiles(console, index.sizes)
    if index.formats:
        say(console, "formats: " + ", ".join(f"{kind} {count:,}" for kind, count in index.formats.most_common()))
    say(console, f"{count_of(len(index.rejections), 'sample')} cannot be used" + (":" if index.rejections else ""))
    say_losses(console, index.rejections, index.faults)
    rate = f", {n / max(seconds, 1e-9):,.0f} samples/s"
    if old is not None:  # a rate would count samples that were not read
        rate = ""
        before = {(shard.label, shard.fingerprint) for shard in old.shards}
        same = sum((shard.label, shard.fingerprint) in before for shard in index.shards)
        say(console, f"{same:,} of {count_of(index.num_shards, 'shard')} as in the earlier index, not read again")
    say(console, f"{seconds:.1f} s{rate}")
    say(console, f"wrote {out}: {size:,} bytes, {size / n:.1f} per sample")
    say(console, f"next: loader = pp.load(pp.Index.open({str(out)!r}), recipe, shuffle=True)")
