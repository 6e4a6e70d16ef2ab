"""The manifest of a folder of packed shards: a JSON file that is written last. A folder without a manifest holds no pack."""

from __future__ import annotations

import json
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from msgspec import Meta, Struct, convert, to_builtins

from patchpack.errors import SourceError
from patchpack.losses import Rejection, ShardFault
from patchpack.report import Report
from patchpack.stream.jobs.atomic import replace_file
from patchpack.stream.jobs.values import Count, decode
from patchpack.stream.packed.steps import UNREADABLE

FORMAT = "patchpack-packed"
VERSION = 2  # counted up if this code would misread a file of the earlier version
NAME = "manifest.json"


class PackedShard(Struct, frozen=True, forbid_unknown_fields=True):
    """A tar file of packed batches.

    Attributes:
        name: name of the file.
        epoch: epoch of the first batch in the file.
        first_step: step of the first batch in the file.
        offsets: positions in bytes where each batch begins, and where the last batch ends.
        num_bytes: size of the file in bytes.
        digest: hexadecimal BLAKE2b of the file.
    """

    name: Annotated[str, Meta(pattern=r"\Apacked-[0-9]{6,}\.tar\Z")]
    epoch: Count
    first_step: Count
    offsets: Annotated[tuple[Count, ...], Meta(min_length=1)]
    num_bytes: Count
    digest: str

    def __post_init__(self) -> None:
        rising = all(after > before for before, after in pairwise((*self.offsets, self.num_bytes)))
        if self.offsets[0] != 0 or not rising:
            raise ValueError(f"its batches cannot begin and end at {self.offsets} of {self.num_bytes} bytes")

    @property
    def num_steps(self) -> int:
        """Number of batches in the file."""
        return len(self.offsets) - 1


class PackedEpoch(Struct, dict=True):
    """One epoch of a pack: its number, its number of batches, and the fields of its `Report`."""

    epoch: Count
    num_steps: Count
    seen: Count
    packed: Count
    shortened: Count
    warnings: dict[str, Count]
    rejected: list[dict[str, str]]
    dropped: dict[str, Count]
    shard_errors: list[dict[str, str]]

    @classmethod
    def of(cls, epoch: int, num_steps: int, report: Report) -> PackedEpoch:
        """Return the entry of an epoch.

        Args:
            epoch: number of the epoch.
            num_steps: number of batches of the epoch.
            report: the report of the epoch. No sample may still be waiting for a row.
        """
        rejected, faults = ([loss._asdict() for loss in losses] for losses in (report.rejected, report.shard_errors))
        counts = report.seen, report.packed, report.shortened, report.warnings
        return cls(epoch, num_steps, *counts, rejected, report.dropped, faults)

    @cached_property
    def report(self) -> Report:
        """The report of the epoch's samples."""
        rejected, faults = [Rejection(**r) for r in self.rejected], [ShardFault(**f) for f in self.shard_errors]
        return Report(self.seen, self.packed, 0, rejected, self.dropped, faults, self.shortened, self.warnings)

    def __post_init__(self) -> None:
        self.report  # noqa: B018 - raises TypeError for losses with other fields


class Manifest(Struct, frozen=True):
    """The contents of a manifest.

    Attributes:
        fingerprint: a hexadecimal hash. Two packs have equal fingerprints if index, recipe, options and versions are equal.
            Every batch carries the fingerprint.
        made_of: everything that the fingerprint is computed from: the fingerprint of the index, every field of the recipe, the
            options and the versions.
        recipe: repr of the recipe.
        num_steps: number of batches.
        epochs: the epochs in order.
        shards: the shards in order.
    """

    fingerprint: str
    made_of: dict[str, Any]
    recipe: str
    num_steps: Count
    epochs: tuple[PackedEpoch, ...]
    shards: tuple[PackedShard, ...]

    def __post_init__(self) -> None:
        met = sum(e.num_steps for e in self.epochs)
        # compare numbers first: they may be huge in a wrong file, but the list of shards is as short as the file
        fits = 0 < met == self.num_steps == sum(s.num_steps for s in self.shards)
        if not fits or [(e.epoch, step) for e in self.epochs for step in range(e.num_steps)] != [
            (s.epoch, s.first_step + i) for s in self.shards for i in range(s.num_steps)
        ]:
            raise ValueError(f"its shards must hold the {self.num_steps} steps of its epochs")
        if any(after.epoch <= before.epoch for before, after in pairwise(self.epochs)):
            raise ValueError("its epochs must be in order")

    def save(self, folder: Path) -> None:
        """Write the manifest in one step."""
        head = {"format": FORMAT, "version": VERSION, **to_builtins(self)}
        written = json.dumps(head, sort_keys=True, indent=1).encode("ascii")

        def fill(file: BinaryIO) -> None:
            file.write(written)

        replace_file(folder / NAME, fill)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder. Raises `SourceError` if it is missing, is damaged, or has a newer version."""
        path = folder / NAME
        try:
            read = path.read_bytes()
        except FileNotFoundError:
            unfinished = any(folder.glob("packed-*.tar"))
            why = (
                "packing did not finish, run the same patchpack pack again" if unfinished else "write them with patchpack pack"
            )
            raise SourceError(f"{folder} has no {NAME}, so it holds no packed shards: {why}") from None
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
        try:
            head = decode(read, dict[str, Any])
            version = convert(head, _Format).version
            if version == VERSION:
                return convert(head, cls)
        except UNREADABLE as error:
            raise SourceError(
                f"{path} is not a manifest of packed shards, or is damaged ({type(error).__name__}: {error}): pack again"
            ) from None
        cure = "update patchpack" if version > VERSION else "pack again"
        raise SourceError(f"{path} is a manifest of version {version}, this patchpack reads version {VERSION}: {cure}")


class _Format(Struct):
    """The fields that manifests of all versions have."""

    format: Literal["patchpack-packed"]
    version: Count
