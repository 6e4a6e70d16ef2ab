"""``patchpack pack``: whole epochs painted once, into a folder of packed shards."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from patchpack.cli.index import build
from patchpack.cli.opening import AUTO
from patchpack.cli.terminal import count_of, say, say_losses
from patchpack.errors import ConfigError
from patchpack.plan.recipe import Recipe
from patchpack.stream.index import Index
from patchpack.stream.index.columns import MAGIC
from patchpack.stream.jobs.engine import Engine, require_engine
from patchpack.stream.packed import PackedShards


def run(
    source: list[str],
    recipe: Recipe,
    out: str,
    *,
    image: str | None,
    target: str | tuple[str, ...] | None,
    num_workers: int,
    engine: Engine,
    **options: Any,
) -> int:
    """Plan, paint, write and tell; returns the exit status.

    Args:
        source: shards (paths, URLs and patterns), or the path of an index.
        recipe: what to do with them.
        out: the folder.
        image, target: as for `patchpack index`; an index has its own.
        num_workers, engine: who scans and paints, see `patchpack.stream.jobs.engine.run_all`.
        **options: for `PackedShards.write`.
    """
    require_engine(engine, num_workers)
    console, start = Console(), time.perf_counter()
    workers: dict[str, Any] = {"num_workers": num_workers, "engine": engine}
    if len(source) == 1 and _is_index(source[0]):
        if image is not None or target != AUTO:
            raise ConfigError(f"--image and --target are decided when an index is built: {source[0]} has its own")
        index = Index.open(source[0])
    else:
        index = build(console, source, image=image, target=target, **workers)
    columns = (
        SpinnerColumn(),
        TextColumn("painting"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} batches, {task.fields[images]:,} images"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, images=0)
        packed = PackedShards.write(
            index,
            recipe,
            out,
            progress=lambda done, total, images: progress.update(task, completed=done, total=total, images=images),
            context="spawn",  # the progress bar is a thread, which a fork would not survive
            **workers,
            **options,
        )
    _say(console, packed, out, time.perf_counter() - start)
    return 0


def _is_index(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _say(console: Console, packed: PackedShards, out: str, seconds: float) -> None:
    first = next(iter(packed.reports.values()))
    for epoch, report in packed.reports.items():
        dropped = "".join(f", {count} dropped by {rule}" for rule, count in report.dropped.items())
        say(
            console,
            f"epoch {epoch}: {count_of(report.packed, 'image')} in {count_of(len(packed.steps_of(epoch)), 'batch', 'es')}, "
            f"{len(report.rejected):,} cannot be used{dropped}",
        )
    say_losses(console, first.rejected, first.shard_errors)
    each = packed.nbytes / max(1, packed.num_images)
    say(console, f"{seconds:.1f} s")
    say(
        console,
        f"wrote {Path(out)}: {count_of(len(packed.shards), 'file')}, {packed.nbytes:,} bytes, {each:,.0f} per image",
    )
    say(console, f"next: DataLoader(pp.PackedShards({out!r}), batch_size=None, shuffle=True)")
