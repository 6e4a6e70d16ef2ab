"""``patchpack index``: sizes and places of every sample of some shards, in one file."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from patchpack.cli.inspect import print_percentiles
from patchpack.cli.opening import AUTO, typed_target
from patchpack.cli.survey import Survey
from patchpack.cli.terminal import count_of, say, say_losses
from patchpack.errors import SourceError
from patchpack.stream.index import Index
from patchpack.stream.index.columns import require_replaceable
from patchpack.stream.jobs.engine import Engine, require_engine
from patchpack.stream.sample.names import IMAGE


def run(
    shards: list[str],
    *,
    image: str | None,
    target: str | tuple[str, ...] | None,
    num_workers: int,
    engine: Engine,
    update: str | None,
    out: str,
) -> int:
    """Build, save and tell; returns the exit status.

    Args:
        shards: paths, URLs and patterns.
        image, target: as for `patchpack.load`; None and `AUTO` take those of `update`, or the usual ones.
        num_workers, engine: who scans, see `patchpack.stream.jobs.engine.run_all`.
        update: an earlier index, of which unchanged shards are taken over.
        out: where the index goes.
    """
    require_engine(engine, num_workers)
    require_replaceable(Path(out))  # before anything slow
    console = Console()
    old = None if update is None else Index.open(update, verify=False)
    start = time.perf_counter()
    index = build(console, shards, image=image, target=target, num_workers=num_workers, engine=engine, update=old)
    seconds = time.perf_counter() - start
    index.save(out)
    _say(console, index, old, Path(out), seconds)
    return 0


def build(
    console: Console,
    shards: list[str],
    *,
    image: str | None,
    target: str | tuple[str, ...] | None,
    update: Index | None = None,
    **options: Any,
) -> Index:
    """`Index.build` with progress; image and target as for `run`.

    Raises:
        SourceError: no sample can be used; why is said before.
    """
    if image is None:
        image = IMAGE if update is None else ";".join(update.members.image)
    if target == AUTO:
        target = typed_target(shards, image=image) if update is None else update.members.target
    columns = (
        SpinnerColumn(),
        TextColumn("reading headers"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} shards, {task.fields[samples]:,} samples"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, samples=0)
        index = Index.build(
            shards,
            image=image,
            target=target,
            update=update,
            progress=lambda done, total, samples: progress.update(task, completed=done, total=total, samples=samples),
            context="spawn",  # the progress bar is a thread, which a fork would not survive
            **options,
        )
    if not len(index):
        say_losses(console, index.rejections, index.faults)
        raise SourceError(
            f"{count_of(len(index.rejections), 'sample')} in {index.name}, none that can be used: nothing was written"
        )
    return index


def _say(console: Console, index: Index, old: Index | None, out: Path, seconds: float) -> None:
    n, size = len(index), out.stat().st_size
    target = index.members.target
    labels = ", ".join([target] if isinstance(target, str) else target or ["none"])
    say(console, f"{count_of(n, 'sample')} in {count_of(index.num_shards, 'shard')}, labels: {labels}")
    print_percentiles(console, Survey(index.sizes, [], index.formats, Counter(), index.rejections, index.faults, True))
    say(console, "formats: " + ", ".join(f"{kind} {count:,}" for kind, count in index.formats.most_common()))
    say(console, f"{count_of(len(index.rejections), 'sample')} cannot be used" + (":" if index.rejections else ""))
    say_losses(console, index.rejections, index.faults)
    rate = f", {n / max(seconds, 1e-9):,.0f} samples/s"
    if old is not None:  # a rate would count what was not read
        rate = ""
        before = {(shard.label, shard.fingerprint) for shard in old.shards}
        same = sum((shard.label, shard.fingerprint) in before for shard in index.shards)
        say(console, f"{same:,} of {count_of(index.num_shards, 'shard')} as in the earlier index, not read again")
    say(console, f"{seconds:.1f} s{rate}")
    say(console, f"wrote {out}: {size:,} bytes, {size / n:.1f} per sample")
    say(console, f"next: loader = pp.load(pp.Index.open({str(out)!r}), recipe, shuffle=True)")
