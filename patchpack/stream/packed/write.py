"""Epochs to packed shards: planned here, painted and written anywhere, one tar file one task, the manifest last.

A shard is moved into place when it is whole, so a task that is begun again, by Ray or by the next run of the same command,
finds what is done and makes the rest; whoever makes a shard makes the same bytes.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from patchpack import __version__
from patchpack.errors import ConfigError, PackingError, ShardError, SourceError
from patchpack.paint.resample import compile_kernels
from patchpack.plan._integers import require_int
from patchpack.plan.planner import Tail
from patchpack.plan.recipe import Recipe
from patchpack.stream.archive import UNREADABLE, read_members
from patchpack.stream.atomic import replace_file
from patchpack.stream.dataset import painted
from patchpack.stream.engine import Engine, require_engine, run_all
from patchpack.stream.index import Index
from patchpack.stream.indexed import EpochPlan
from patchpack.stream.packed import steps
from patchpack.stream.packed.manifest import NAME, VERSION, Manifest, PackedEpoch, PackedShard, account
from patchpack.stream.packed.steps import Place, require_place, write_step
from patchpack.stream.resume import recipe_fields
from patchpack.stream.ring import slot_bytes_of
from patchpack.stream.shards import ShardReader
from patchpack.stream.source import Reader
from patchpack.stream.tape import BLOCK, SeekableTape
from patchpack.types import BatchPlan

Progress = Callable[[int, int, int], None]
"""Called with (batches written, batches in the epochs planned so far, images so far) after every shard."""

SHARD_BYTES = 1 << 28
"""What a shard holds at most, if not told otherwise: a few seconds of a disk, and little to paint again."""

_INFO = ("seen", "packed", "altered", "dropped", "rejections", "shard_errors")


class PackTask(NamedTuple):
    """One shard that is to be; picklable.

    Attributes:
        path: of the file, absolute.
        pack: fingerprint that its batches carry.
        plans: of its batches.
        recipe: they were made with.
        reader: where the images are; for every machine the same.
        versions: of the packages that decide about pixels.
    """

    path: str
    pack: str
    plans: Sequence[BatchPlan]
    recipe: Recipe
    reader: Reader
    versions: dict[str, str]


class PackedPart(NamedTuple):
    """What became of a task: a line of the manifest, and the account of its batches."""

    shard: PackedShard
    infos: list[dict[str, Any]]


def write_shard(task: PackTask) -> PackedPart:
    """Paint and write a shard; one that is there already is read instead. A pure function of the task and the images.

    Raises:
        SourceError: images that cannot be read, or a folder that cannot be written.
        TargetError: a target that cannot be kept.
        ConfigError: a file of another pack in its place, or other versions than where the task was made.
    """
    here = versions_of(task.recipe)
    if here != task.versions:
        raise ConfigError(f"pixels depend on versions: here are {here}, the task was made with {task.versions}: make them one")
    if os.path.exists(task.path):
        return _read_again(task)
    offsets, infos, hashed = [0], [], blake2b(digest_size=16)

    def fill(file: BinaryIO) -> None:
        at = 0

        def put(data: bytes | memoryview) -> None:
            nonlocal at
            file.write(data)
            hashed.update(data)
            at += len(data)

        for plan in task.plans:
            batch = painted(plan, task.recipe, task.reader)
            for rejection in batch.info["rejections"][len(plan.info["rejections"]) :]:
                if rejection["stage"] == "read":  # may be gone tomorrow, and the hole would stay
                    raise SourceError(f"{rejection['key']} cannot be read now: {rejection['reason']}. Run the same again")
            for piece in write_step(batch, _place(task.pack, plan), plan):
                put(piece)
            offsets.append(at)
            infos.append({name: batch.info[name] for name in _INFO})
        put(steps.END)

    try:
        replace_file(Path(task.path), fill)
    except OSError as error:
        raise SourceError(f"{task.path} cannot be written: {type(error).__name__}: {error}") from error
    return _part(task, offsets, infos, hashed.hexdigest())


def _part(task: PackTask, offsets: list[int], infos: list[dict[str, Any]], digest: str) -> PackedPart:
    first, name = task.plans[0], os.path.basename(task.path)
    return PackedPart(PackedShard(name, first.epoch, first.step, tuple(offsets), offsets[-1] + len(steps.END), digest), infos)


def _place(pack: str, plan: BatchPlan) -> Place:
    return Place(pack, plan.epoch, plan.step)


def _read_again(task: PackTask) -> PackedPart:
    """The part of a shard that an earlier try has made. It was moved into place when it was whole."""
    offsets, infos = [], []
    left = iter(task.plans)
    try:
        with open(task.path, "rb") as file:
            for member in read_members(SeekableTape(file)):
                if member.name.endswith(".json"):  # the first of its batch
                    offsets.append(member.where[0] - BLOCK)
                    about = _json_at(file, member.where)
                    require_place(about, _place(task.pack, next(left)))
                    infos.append({name: about["info"][name] for name in _INFO})
            offsets.append(file.seek(0, io.SEEK_END) - len(steps.END))
            file.seek(0)
            hashed = blake2b(digest_size=16)
            while chunk := file.read(1 << 20):
                hashed.update(chunk)
        if next(left, None) is not None or len(infos) != len(task.plans):
            raise ValueError("it holds another number of batches")
    except (*steps.UNREADABLE, *UNREADABLE, ShardError, StopIteration) as error:
        raise _foreign(task.path, error) from None
    return _part(task, offsets, infos, hashed.hexdigest())


def _json_at(file: BinaryIO, where: tuple[int, int]) -> Any:
    file.seek(where[0])
    return json.loads(file.read(where[1]))


def _foreign(path: object, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} is there and is not what this pack would hold ({type(error).__name__}: {error}): choose another folder, or "
        f"empty it if nobody needs what it holds"
    )


def versions_of(recipe: Recipe) -> dict[str, str]:
    """Of what decides about pixels, as installed here."""
    names = ["numpy", "pillow", *(["simplejpeg"] if recipe.decode == "turbo" else [])]
    return {"patchpack": __version__, **{name: version(name) for name in names}}


def write_all(
    index: Index,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    epoch: int = 0,
    num_epochs: int = 1,
    shuffle: int = 0,
    tail: Tail = "short",
    seen: int = 0,
    steps_per_shard: int | None = None,
    num_workers: int = 0,
    engine: Engine = "local",
    progress: Progress | None = None,
    context: Any = None,
) -> None:
    """See `PackedShards.write`."""
    require_engine(engine, num_workers)
    require_int("epoch", epoch, 0, 1 << 40)
    require_int("num_epochs", num_epochs, 1, 1 << 20)
    if steps_per_shard is None:
        steps_per_shard = max(1, SHARD_BYTES // slot_bytes_of(recipe))
    require_int("steps_per_shard", steps_per_shard, 1, 1 << 40)
    if not isinstance(index, Index):
        raise ConfigError(f"packed shards are made of an index: patchpack.Index.build(shards), got {type(index).__name__}")
    options = {"epoch": epoch, "num_epochs": num_epochs, "shuffle": shuffle, "tail": tail, "seen": seen}
    versions = versions_of(recipe)
    made_of = {
        "version": VERSION,
        "index": index.fingerprint,
        "recipe": recipe_fields(recipe),
        "options": {**options, "steps_per_shard": steps_per_shard},
        "versions": versions,
    }
    pack = blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=16).hexdigest()
    folder = Path(os.path.abspath(out))
    if _is_finished(folder, pack):
        return
    index.verify()
    plans = _Plans(index, recipe, epoch, num_epochs, shuffle=shuffle, tail=tail, seen=seen)
    _make(folder)
    # absolute: a worker on another machine is in another folder
    reader = ShardReader([os.path.abspath(shard.url) for shard in index.shards], index.members)

    def tasks() -> Iterator[PackTask]:
        for number, part in enumerate(plans.parts(steps_per_shard)):
            path = str(folder / f"packed-{number:06d}.tar")
            yield PackTask(path, pack, part, recipe, reader, versions)

    parts: list[PackedPart] = []
    done = images = 0
    if engine == "local" and num_workers:
        compile_kernels(recipe)  # once: processes that are forked have the kernels, the others find them on disk
    with closing(
        run_all(write_shard, tasks(), engine=engine, num_workers=num_workers, context=context, doing="paints")
    ) as written:
        for part in written:
            _require_here(folder, part.shard)
            parts.append(part)
            done += part.shard.num_steps
            images += sum(info["packed"] for info in part.infos)
            if progress is not None:
                progress(done, sum(plans.num_steps.values()), images)
    epochs = tuple(_epoch(number, count, parts) for number, count in plans.num_steps.items())
    Manifest(pack, made_of, repr(recipe), epochs, tuple(part.shard for part in parts)).save(folder)
    for left in folder.glob(".packed-*.tmp"):  # of workers that were killed
        left.unlink(missing_ok=True)


class _Plans:
    """Epoch after epoch, one at a time, in parts of so many batches.

    Attributes:
        num_steps: by epoch, of those planned so far.
    """

    def __init__(self, index: Index, recipe: Recipe, epoch: int, num_epochs: int, *, seen: int, **options: Any) -> None:
        self._index, self._recipe, self._epochs = index, recipe, range(epoch, epoch + num_epochs)
        self._seen, self._options = seen, options
        self.num_steps: dict[int, int] = {}
        self._first = self._plan(epoch)  # what cannot be is refused before anything is begun

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
    report = account([info for part in parts if part.shard.epoch == epoch for info in part.infos])
    if report.waiting:
        raise PackingError(f"epoch {epoch}: {report.waiting} samples are neither packed nor named: {report}")
    return PackedEpoch(epoch, num_steps, report)


def _is_finished(folder: Path, pack: str) -> bool:
    """True if this pack is there as a whole. Raises `ConfigError` where the folder holds anything else."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"{folder} cannot be the folder of a pack: {type(error).__name__}: {error}") from None
    if NAME in names:
        try:
            found = Manifest.read(folder).fingerprint
        except SourceError as error:
            raise ConfigError(f"{error}; nothing was overwritten, choose another folder") from None
        if found != pack:
            raise ConfigError(f"{folder} holds another pack, {found}; nothing was overwritten, choose another folder")
        return True
    for name in names:
        if name.startswith(".packed-") and name.endswith(".tmp"):  # of a worker that was killed
            continue
        try:
            _require_of_pack(folder / name, pack)
        except (*steps.UNREADABLE, *UNREADABLE, ShardError, StopIteration) as error:
            raise _foreign(folder / name, error) from None
    return False


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {type(error).__name__}: {error}") from None


def _require_of_pack(path: Path, pack: str) -> None:
    """Its first batch says of which it is."""
    with open(path, "rb") as file:
        member = next(read_members(SeekableTape(file)))
        about = _json_at(file, member.where)
        if about["pack"] != pack:
            raise ShardError(f"it is of pack {about['pack']}, this would be {pack}")


def _require_here(folder: Path, shard: PackedShard) -> None:
    """What was written on another machine must be there for this one."""
    path = folder / shard.name
    size = path.stat().st_size if path.exists() else None
    if size != shard.num_bytes:
        what = "is not here" if size is None else f"has {size} bytes here"
        raise SourceError(
            f"{path} was written with {shard.num_bytes} bytes by a worker and {what}: the folder must be one that all machines "
            f"share"
        )
