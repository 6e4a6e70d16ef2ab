"""The writing of one packed shard, on any worker. The result depends on the task and the images alone.

A shard gets its final name when it is complete. If Ray or a second run of the same command starts a task again, a finished
shard is kept. Every worker writes the same bytes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, NamedTuple

from patchpack._version import __version__
from patchpack.batch_info import BatchInfo
from patchpack.errors import ConfigError, ShardError, SourceError
from patchpack.plan.recipe import Recipe
from patchpack.stream.jobs.atomic import replace_file
from patchpack.stream.jobs.values import decode
from patchpack.stream.packed import steps
from patchpack.stream.packed.manifest import PackedShard
from patchpack.stream.packed.steps import About, Place, require_place, write_step
from patchpack.stream.painting.painter import painted
from patchpack.stream.sample.source import Reader
from patchpack.stream.tar.byte_reader import BLOCK, SeekableReader
from patchpack.stream.tar.members import UNREADABLE, read_members
from patchpack.types import BatchPlan

_FOREIGN = (*steps.UNREADABLE, *UNREADABLE, ShardError, StopIteration)


class PackTask(NamedTuple):
    """The description of one shard to write. It is picklable.

    Attributes:
        path: absolute path of the file.
        pack: fingerprint of the pack. Each batch in the file holds this fingerprint too.
        plans: plans of the batches in the file.
        recipe: recipe of the plans.
        reader: reader of the images, the same on every machine.
        versions: versions of the packages that pixel values depend on.
    """

    path: str
    pack: str
    plans: Sequence[BatchPlan]
    recipe: Recipe
    reader: Reader
    versions: dict[str, str]


class PackedPart(NamedTuple):
    """The result of a task: the entry of the shard in the manifest, and the `BatchInfo` of each batch."""

    shard: PackedShard
    infos: list[BatchInfo]


def write_shard(task: PackTask) -> PackedPart:
    """Paint and write a shard. If the shard exists already, read it. The result depends on the task and the images alone.

    Raises:
        SourceError: images cannot be read, or the folder cannot be written.
        TargetError: a target is neither a number, an array nor a JSON value.
        ConfigError: the path holds a file of another pack, or package versions have changed since planning.
    """
    here = versions_of(task.recipe)
    if here != task.versions:
        raise ConfigError(
            f"pixels depend on versions, so all machines need the same: here are {here}, the task has {task.versions}"
        )
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
            for rejection in batch.info.rejections[len(plan.info.rejections) :]:
                if rejection.stage == "read":  # the image may be readable later, but the batch would stay without it
                    raise SourceError(f"{rejection.key} cannot be read now: {rejection.reason}. Run the same command again")
            for piece in write_step(batch, _place(task.pack, plan), plan):
                put(piece)
            offsets.append(at)
            infos.append(_counters(batch.info))
        put(steps.END)

    try:
        replace_file(Path(task.path), fill)
    except OSError as error:
        raise SourceError(f"{task.path} cannot be written: {type(error).__name__}: {error}") from error
    return _part(task, offsets, infos, hashed.hexdigest())


def _part(task: PackTask, offsets: list[int], infos: list[BatchInfo], digest: str) -> PackedPart:
    first, name = task.plans[0], os.path.basename(task.path)
    return PackedPart(PackedShard(name, first.epoch, first.step, tuple(offsets), offsets[-1] + len(steps.END), digest), infos)


def _counters(info: BatchInfo) -> BatchInfo:
    """Return a batch's info without the fields that have an entry for each image.

    The infos of all batches are held in memory, so they must be small.
    """
    return replace(info, repeats=None, boxes=None, flips=None)


def _place(pack: str, plan: BatchPlan) -> Place:
    return Place(pack, plan.epoch, plan.step)


def _read_again(task: PackTask) -> PackedPart:
    """Return the result for a shard that an earlier run has written. Such a shard is complete."""
    offsets, infos = [], []
    left = iter(task.plans)
    try:
        with open(task.path, "rb") as file:
            for member in read_members(SeekableReader(file)):
                if member.name.endswith(".json"):  # the first of its batch
                    offsets.append(member.where[0] - BLOCK)
                    about = _about_at(file, member.where)
                    require_place(about, _place(task.pack, next(left)))
                    infos.append(_counters(BatchInfo.from_json(about.info)))
            offsets.append(file.seek(0, io.SEEK_END) - len(steps.END))
            file.seek(0)
            hashed = blake2b(digest_size=16)
            while chunk := file.read(1 << 20):
                hashed.update(chunk)
        if next(left, None) is not None or len(infos) != len(task.plans):
            raise ValueError("it has another number of batches")
        return _part(task, offsets, infos, hashed.hexdigest())
    except _FOREIGN as error:
        raise _foreign(task.path, error) from None


def require_of_pack(path: Path, pack: str) -> None:
    """Raise `ConfigError` unless the first batch of a file belongs to this pack."""
    try:
        with open(path, "rb") as file:
            about = _about_at(file, next(read_members(SeekableReader(file))).where)
        if about.pack != pack:
            raise ShardError(f"expected pack {pack}, got {about.pack}")
    except _FOREIGN as error:
        raise _foreign(path, error) from None


def _about_at(file: BinaryIO, where: tuple[int, int]) -> About:
    file.seek(where[0])
    return decode(file.read(where[1]), About)


def _foreign(path: object, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} exists, but this pack would write other contents ({type(error).__name__}: {error}): choose another folder, or "
        f"empty this one if its contents are not needed"
    )


def versions_of(recipe: Recipe) -> dict[str, str]:
    """Return the installed versions of the packages that pixel values depend on."""
    names = ["numpy", "pillow", *(["simplejpeg"] if recipe.decode == "simplejpeg" else [])]
    return {"patchpack": __version__, **{name: version(name) for name in names}}
