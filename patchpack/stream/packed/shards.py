"""Packed shards as a dataset: item i is the batch of step i."""

from __future__ import annotations

import operator
import os
from bisect import bisect_right
from collections.abc import Iterator
from hashlib import blake2b
from itertools import accumulate
from multiprocessing.context import BaseContext
from pathlib import Path

import torch
from torch.utils.data import Dataset

from patchpack.batch.packed import PackedBatch
from patchpack.batch.validate import validate
from patchpack.errors import ShapeError, ShardError
from patchpack.plan.online.batches import Tail
from patchpack.plan.recipe import Recipe
from patchpack.report import Report
from patchpack.stream.index import Index
from patchpack.stream.jobs.engine import Engine
from patchpack.stream.packed.epochs import Progress, write_packed
from patchpack.stream.packed.manifest import Manifest, PackedShard
from patchpack.stream.packed.steps import END, Place, read_step


class PackedShards(Dataset[PackedBatch]):
    """A dataset of batches that `write` or ``patchpack pack`` painted once. Item i is batch i, as from `patchpack.load`.

    The batches are fixed, and so are the random draws and the dropped patches in them. Only the order of the batches can vary.
    No file is ever unpickled.

    Args:
        path: the folder.

    Attributes:
        path: absolute path of the folder.
        fingerprint: a hexadecimal hash. Two packs have equal fingerprints if index, recipe, options and versions of the
            painting packages are equal.
        recipe: repr of the recipe.
        made_of: everything that the fingerprint is computed from, see `Manifest`.
        shards: the files, in order.
        reports: `patchpack.Report` of each epoch, by its number.
        num_images: number of readable images, over all epochs.
        nbytes: size of all files together, in bytes.

    Raises:
        SourceError: the folder holds no packed shards, or its manifest is damaged or was written by a newer version.
        ShardError: a shard is missing, or has another size than the manifest says.

    Example:
        >>> packed = pp.PackedShards.write(index, recipe, "packed/", num_epochs=4)  # doctest: +SKIP
        >>> loader = torch.utils.data.DataLoader(packed, batch_size=None, shuffle=True)  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        manifest = Manifest.read(self.path)
        self.fingerprint, self.recipe, self.made_of = manifest.fingerprint, manifest.recipe, manifest.made_of
        self.shards: tuple[PackedShard, ...] = manifest.shards
        self.reports: dict[int, Report] = {e.epoch: e.report for e in manifest.epochs}
        self.num_images = sum(report.packed for report in self.reports.values())
        self.nbytes = sum(shard.num_bytes for shard in self.shards)
        self._starts = [0, *accumulate(shard.num_steps for shard in self.shards)]
        ends = list(accumulate(e.num_steps for e in manifest.epochs))
        self._epochs = {e.epoch: range(end - e.num_steps, end) for e, end in zip(manifest.epochs, ends, strict=True)}
        for shard in self.shards:
            self._require_size(shard)

    @staticmethod
    def write(
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
    ) -> PackedShards:
        """Plan epochs, paint all of their batches, and write them.

        If a run is killed, a second run with the same arguments continues. `reports` names the unusable samples.

        Args:
            index: index of the images.
            recipe: sizes, augmentation and packing of the images.
            path: a folder that is new, empty, or holds the files of an earlier run with the same arguments.
            epoch: the first epoch, default 0.
            num_epochs: number of epochs, default 1. The epochs are written one after another.
            shuffle: False or 0 for the order of the index, True for a full shuffle, or the number of samples in a shuffled
                block. Later reads return rows in this order. See `patchpack.EpochPlan`.
            tail: handling of the last rows if they do not fill a step, default ``"short"``. See `patchpack.EpochPlan`.
            seen: number of samples met in earlier epochs. Drop schedules depend on this number. Default 0.
            steps_per_shard: number of batches in a file. Default None: as many as take 256 MB.
            num_workers: number of processes that paint, each one file at a time. With 0 (default) this process paints. The
                number does not change a byte of the files.
            engine: ``"local"`` (default) or ``"ray"``, see `patchpack.stream.jobs.engine.run_all`.
            progress: a function that is called with (batches written, batches in the epochs planned so far, images so far).
                Default None.
            context: a multiprocessing context, or the name of a start method, for local processes.

        Raises:
            ConfigError: an option cannot work, or the folder holds something else.
            StaleIndexError: shards have changed since they were indexed.
            TargetError: a target is neither a number, an array nor a JSON value. The error names the sample.
            SourceError: no image can be packed, images cannot be read at present, or the folder cannot be written.
        """
        write_packed(
            index,
            recipe,
            path,
            epoch=epoch,
            num_epochs=num_epochs,
            shuffle=shuffle,
            tail=tail,
            seen=seen,
            steps_per_shard=steps_per_shard,
            num_workers=num_workers,
            engine=engine,
            progress=progress,
            context=context,
        )
        return PackedShards(path)

    def __len__(self) -> int:
        """Return the number of batches, over all epochs."""
        return self._starts[-1]

    def __repr__(self) -> str:
        return f"PackedShards({len(self)} batches, {self.num_images} images in {len(self.shards)} files of {self.path})"

    def steps_of(self, epoch: int) -> range:
        """Return the numbers of one epoch's batches. Raises `KeyError` for an epoch that was not packed."""
        return self._epochs[epoch]

    def __getitem__(self, step: int) -> PackedBatch:
        """Read one batch of tensors by its number. −1 is the last batch. Any number of processes may read the files.

        Raises:
            IndexError: the step does not exist.
            ShardError: the file of the step is missing, cut off, damaged, or of another pack.
        """
        step = operator.index(step)
        if not -len(self) <= step < len(self):
            raise IndexError(f"step must be in 0 … {len(self) - 1}, got {step}")
        step %= len(self)
        number = bisect_right(self._starts, step) - 1
        shard, at = self.shards[number], step - self._starts[number]
        begin, end = shard.offsets[at : at + 2]
        data = torch.empty(end - begin + len(END), dtype=torch.uint8)
        memory = data.numpy()
        memory[end - begin :] = 0
        path = self.path / shard.name
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(begin)
                got, view = 0, memory.data
                while got < end - begin and (count := file.readinto(view[got : end - begin])):
                    got += count
        except OSError as error:
            raise ShardError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
        if got < end - begin:
            raise ShardError(f"{path} ends early: it has {got} of {end - begin} bytes at {begin}. {_AGAIN}")
        try:
            return read_step(data, Place(self.fingerprint, shard.epoch, shard.first_step + at))
        except ShardError as error:
            raise ShardError(f"{path}: {error}. {_AGAIN}") from None

    def __iter__(self) -> Iterator[PackedBatch]:
        """Iterate over all batches in order."""
        return map(self.__getitem__, range(len(self)))

    def verify(self) -> None:
        """Read all files once, check the hash of each file, and check that each batch is consistent.

        Raises:
            ShardError: a file has a fault. The error names the first such file.
        """
        for number, shard in enumerate(self.shards):
            path = self.path / shard.name
            hashed = blake2b(digest_size=16)
            self._require_size(shard)
            try:
                with open(path, "rb") as file:
                    while chunk := file.read(1 << 20):
                        hashed.update(chunk)
            except OSError as error:
                raise ShardError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
            if hashed.hexdigest() != shard.digest:
                raise ShardError(f"{path} has changed since it was written. {_AGAIN}")
            for step in range(self._starts[number], self._starts[number + 1]):
                try:
                    validate(self[step])
                except ShapeError as error:
                    raise ShardError(f"{path}, step {step}: {error}") from None

    def _require_size(self, shard: PackedShard) -> None:
        path = self.path / shard.name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise ShardError(f"{path} cannot be read: {type(error).__name__}: {error}. {_AGAIN}") from None
        if size != shard.num_bytes:
            raise ShardError(
                f"{path} must have {shard.num_bytes:,} bytes, got {size:,}: it is incomplete or belongs to another pack. "
                f"{_AGAIN}"
            )


_AGAIN = "Remove it and the manifest, then run the same patchpack pack again, which keeps the complete shards"
