"""The writing of epochs as packed shards.

The process that calls `write_packed` makes the plans. This process or its workers paint and write the batches, one tar file per
task. The manifest is written last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from patchpack.errors import ConfigError, PackingError, SourceError
from patchpack.paint.resample import compile_kernels
from patchpack.plan._integers import require_int
from patchpack.plan.online.batches import Tail
from patchpack.plan.recipe import Recipe
from patchpack.plan.shuffle import block_of, require_shuffle
from patchpack.report import Account
from patchpack.stream.index import Index
from patchpack.stream.index.reader import IndexReader
from patchpack.stream.jobs.engine import Engine, require_engine, run_all
from patchpack.stream.packed.manifest import NAME, VERSION, Manifest, PackedEpoch, PackedShard
from patchpack.stream.packed.write import PackedPart, PackTask, require_of_pack, versions_of, write_shard
from patchpack.stream.planning.epoch_plan import EpochPlan
from patchpack.stream.planning.probe import require_recipe
from patchpack.stream.planning.resume import recipe_fields
from patchpack.stream.tar.urls import absolute
from patchpack.stream.workers.slot_pool import slot_bytes_of
from patchpack.types import BatchPlan

Progress = Callable[[int, int, int], None]
"""Called with (batches written, batches in the epochs planned so far, images so far) after every shard."""

SHARD_BYTES = 1 << 28
"""Default limit of a shard: a few seconds of a disk, and little to paint again."""


def write_packed(
    index: Index,
    recipe: Recipe,
    path: str | os.PathLike[str],
    *,
    epoch: int = 0,
    num_epochs: int = 1,
    shuffle: bool | int = 0,
    tail: Tail = "short",
    seen: int = 0,
    steps_per_shard: int | None = None,
    num_workers: int = 0,
    engine: Engine = "local",
    progress: Progress | None = None,
    context: str | BaseContext | None = None,
) -> None:
    """Plan epochs, paint all of their batches, and write them into a folder. See `PackedShards.write`.

    Args:
        index: index of the images.
        recipe: sizes, augmentation and packing of the images.
        path: the folder to write into.
        epoch: the first epoch, default 0.
        num_epochs: number of epochs, default 1.
        shuffle: False or 0 for the order of the index, True for a full shuffle, or the number of samples in a shuffled block.
        tail: handling of the last rows if they do not fill a step, default ``"short"``.
        seen: number of samples met in earlier epochs. Drop schedules depend on this number. Default 0.
        steps_per_shard: number of batches in a file. Default None: as many as take 256 MB.
        num_workers: number of processes that paint. With 0 (default) this process paints.
        engine: ``"local"`` (default) or ``"ray"``.
        progress: a function that is called with (batches written, batches in the epochs planned so far, images so far). Default
            None.
        context: a multiprocessing context, or the name of a start method, for local processes.
    """
    require_engine(engine, num_workers)
    require_recipe(recipe)
    shuffle = block_of(shuffle, len(index) if isinstance(index, Index) else 1)
    require_shuffle(shuffle)
    for name, value, low, high in (
        ("epoch", epoch, 0, 1 << 40),
        ("num_epochs", num_epochs, 1, 1 << 20),
        ("seen", seen, 0, 1 << 60),
    ):
        require_int(name, value, low, high)
    if steps_per_shard is None:
        steps_per_shard = max(1, SHARD_BYTES // slot_bytes_of(recipe))
    require_int("steps_per_shard", steps_per_shard, 1, 1 << 40)
    if not isinstance(index, Index) or not index.shards:
        got = index.name if isinstance(index, Index) else type(index).__name__
        raise ConfigError(f"packed shards need an index of shards, patchpack.Index.build(shards), got {got}")
    numbers = {"epoch": epoch, "num_epochs": num_epochs, "shuffle": shuffle, "seen": seen, "steps_per_shard": steps_per_shard}
    versions = versions_of(recipe)
    made_of = {
        "version": VERSION,
        "index": index.fingerprint,
        "recipe": recipe_fields(recipe),
        "options": {"tail": tail, **{name: int(value) for name, value in numbers.items()}},
        "versions": versions,
    }
    pack = blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=16).hexdigest()
    folder = Path(os.path.abspath(path))
    if _is_finished(folder, pack):
        return
    index.verify()
    plans = _Plans(index, recipe, epoch, num_epochs, shuffle=shuffle, tail=tail, seen=seen)
    _make(folder)
    # absolute, because a worker on another machine runs in another folder
    reader = IndexReader([shard._replace(url=absolute(shard.url)) for shard in index.shards], index.members)

    def tasks() -> Iterator[PackTask]:
        for number, part in enumerate(plans.parts(steps_per_shard)):
            yield PackTask(str(folder / f"packed-{number:06d}.tar"), pack, part, recipe, reader, versions)

    parts: list[PackedPart] = []
    done = images = 0
    if engine == "local" and num_workers:
        compile_kernels(recipe)  # once: forked processes inherit the kernels, others find them on disk
    with closing(
        run_all(write_shard, tasks(), engine=engine, num_workers=num_workers, context=context, doing="paints")
    ) as written:
        for part in written:
            _require_here(folder, part.shard)
            parts.append(part)
            done += part.shard.num_steps
            images += sum(info.packed for info in part.infos)
            if progress is not None:
                progress(done, sum(plans.num_steps.values()), images)
    epochs = tuple(_epoch(number, count, parts) for number, count in plans.num_steps.items())
    num_steps = sum(plans.num_steps.values())
    Manifest(pack, made_of, repr(recipe), num_steps, epochs, tuple(part.shard for part in parts)).save(folder)
    for name in filter(_is_left_over, os.listdir(folder)):
        (folder / name).unlink(missing_ok=True)


class _Plans:
    """The plans of one epoch after another, in parts of several batches.

    Attributes:
        num_steps: dict from the number of each epoch planned so far to its number of steps.
    """

    def __init__(self, index: Index, recipe: Recipe, epoch: int, num_epochs: int, *, seen: int, **options: Any) -> None:
        self._index, self._recipe, self._epochs = index, recipe, range(epoch, epoch + num_epochs)
        self._seen, self._options = seen, options
        self.num_steps: dict[int, int] = {}
        self._first = self._plan(epoch)  # raises for wrong arguments before anything is written

    def _plan(self, epoch: int) -> EpochPlan:
        plan = EpochPlan(self._index, self._recipe, epoch, seen=self._seen, **self._options)
        if plan.fatal:
            raise SourceError(plan.fatal)
        return plan

    def parts(self, num_steps: int) -> Iterator[list[BatchPlan]]:
        plan = self._first
        del self._first
        for epoch in self._epochs:
            if epoch != self._epochs[0]:
                plan = self._plan(epoch)
            self.num_steps[epoch] = len(plan)
            for first in range(0, len(plan), num_steps):
                yield plan[first : first + num_steps]
            self._seen += plan.rows.seen


def _epoch(epoch: int, num_steps: int, parts: Sequence[PackedPart]) -> PackedEpoch:
    account = Account()
    for part in parts:
        for info in part.infos if part.shard.epoch == epoch else ():
            account.add(info)
    report = account.report()
    if report.waiting:
        raise PackingError(f"epoch {epoch}: {report.waiting} samples are neither packed nor reported as lost: {report}")
    return PackedEpoch.of(epoch, num_steps, report)


def _is_finished(folder: Path, pack: str) -> bool:
    """Return True if the folder holds all of this pack. Raise `ConfigError` if the folder holds anything else."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"{folder} cannot be used as a folder of packed shards: {type(error).__name__}: {error}") from None
    if NAME in names:
        try:
            found = Manifest.read(folder).fingerprint
        except SourceError as error:
            raise ConfigError(f"{error}. Nothing was overwritten, choose another folder") from None
        if found != pack:
            raise ConfigError(
                f"{folder} has the packed shards of another index or recipe, {found}: nothing was overwritten, choose another "
                f"folder"
            )
        return True
    for name in names:
        if not _is_left_over(name):
            require_of_pack(folder / name, pack)
    return False


def _is_left_over(name: str) -> bool:
    """Return True for the name of an unfinished file that a killed process left."""
    return name.startswith((".packed-", f".{NAME}.")) and name.endswith(".tmp")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be created: {type(error).__name__}: {error}") from None


def _require_here(folder: Path, shard: PackedShard) -> None:
    """Raise `SourceError` unless a shard that another machine wrote is present here."""
    path = folder / shard.name
    size = path.stat().st_size if path.exists() else None
    if size != shard.num_bytes:
        what = "is missing here" if size is None else f"has {size} bytes here"
        raise SourceError(
            f"a worker wrote {path} with {shard.num_bytes} bytes, and it {what}: choose a folder that all machines share"
        )
