"""The manifest of a folder of packed shards, one JSON file that is written last. Without it the folder holds no pack."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from patchpack.errors import SourceError
from patchpack.report import Rejection, Report, ShardFault
from patchpack.stream.jobs.atomic import replace_file
from patchpack.stream.jobs.values import count, text
from patchpack.stream.packed.steps import UNREADABLE

FORMAT = "patchpack-packed"
VERSION = 1
NAME = "manifest.json"

_NAMED = re.compile(r"packed-[0-9]{6,}\.tar").fullmatch


class PackedShard(NamedTuple):
    """A tar file of packed batches.

    Attributes:
        name: of the file.
        epoch: epoch of its first batch.
        first_step: step of its first batch.
        offsets: positions in bytes where its batches begin, and where the last one ends.
        num_bytes: of the file.
        digest: hexadecimal BLAKE2b of the file.
    """

    name: str
    epoch: int
    first_step: int
    offsets: tuple[int, ...]
    num_bytes: int
    digest: str

    @property
    def num_steps(self) -> int:
        """Number of batches in it."""
        return len(self.offsets) - 1


class PackedEpoch(NamedTuple):
    """One epoch of a pack: its number, its batches, and the account of its samples."""

    epoch: int
    num_steps: int
    report: Report


@dataclass(frozen=True)
class Manifest:
    """The contents of a manifest.

    Attributes:
        fingerprint: hexadecimal; equal if index, recipe, options and versions are. Every batch carries it.
        made_of: content of the fingerprint: the index's fingerprint, every field of the recipe, options, versions.
        recipe: repr of the recipe.
        epochs: the epochs in order.
        shards: the shards in order.
    """

    fingerprint: str
    made_of: dict[str, Any]
    recipe: str
    epochs: tuple[PackedEpoch, ...]
    shards: tuple[PackedShard, ...]

    def save(self, folder: Path) -> None:
        """Write the manifest in one step."""
        head = {
            "format": FORMAT,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "made_of": self.made_of,
            "recipe": self.recipe,
            "num_steps": sum(e.num_steps for e in self.epochs),
            "epochs": [{"epoch": e.epoch, "num_steps": e.num_steps, **_report_to_json(e.report)} for e in self.epochs],
            "shards": [shard._asdict() for shard in self.shards],
        }
        written = json.dumps(head, sort_keys=True, indent=1).encode("ascii")

        def fill(file: BinaryIO) -> None:
            file.write(written)

        replace_file(folder / NAME, fill)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder. Raises `SourceError` if it is missing, foreign, damaged, or of a newer version."""
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
            head = json.loads(read)
            if head["format"] != FORMAT:
                raise ValueError(f"its format is {head['format']!r}")
            version = head["version"]
            if version <= VERSION:
                return cls._from_json(head)
        except UNREADABLE as error:
            raise SourceError(
                f"{path} is not a manifest of packed shards, or is damaged ({type(error).__name__}: {error}): pack again"
            ) from None
        raise SourceError(
            f"{path} is a manifest of version {version}, this patchpack reads up to version {VERSION}: update patchpack"
        )

    @classmethod
    def _from_json(cls, head: Mapping[str, Any]) -> Manifest:
        epochs = tuple(PackedEpoch(count(e["epoch"]), count(e["num_steps"]), _report_from_json(e)) for e in head["epochs"])
        shards = tuple(_shard_from_json(**shard) for shard in head["shards"])
        said, met = head["num_steps"], sum(e.num_steps for e in epochs)
        # compare numbers first: they may be huge in a wrong file, but the list of shards is as short as the file
        fits = 0 < met == said == sum(s.num_steps for s in shards)
        if not fits or [(e.epoch, step) for e in epochs for step in range(e.num_steps)] != [
            (s.epoch, s.first_step + i) for s in shards for i in range(s.num_steps)
        ]:
            raise ValueError(f"its shards must hold the {said} steps of its epochs")
        if any(after.epoch <= before.epoch for before, after in pairwise(epochs)):
            raise ValueError("its epochs must be in order")
        return cls(text(head["fingerprint"]), dict(head["made_of"]), text(head["recipe"]), epochs, shards)


def _report_to_json(report: Report) -> dict[str, Any]:
    return {
        "seen": report.seen,
        "packed": report.packed,
        "altered": report.altered,
        "warnings": report.warnings,
        "rejected": [r._asdict() for r in report.rejected],
        "dropped": report.dropped,
        "shard_errors": [f._asdict() for f in report.shard_errors],
    }


def _report_from_json(said: Mapping[str, Any]) -> Report:
    rejected = [Rejection(**{name: text(value) for name, value in r.items()}) for r in said["rejected"]]
    faults = [ShardFault(**{name: text(value) for name, value in f.items()}) for f in said["shard_errors"]]
    dropped, warnings = ({text(what): count(images) for what, images in said[name].items()} for name in ("dropped", "warnings"))
    return Report(count(said["seen"]), count(said["packed"]), 0, rejected, dropped, faults, count(said["altered"]), warnings)


def _shard_from_json(*, name: Any, epoch: Any, first_step: Any, offsets: Any, num_bytes: Any, digest: Any) -> PackedShard:
    shard = PackedShard(text(name), count(epoch), count(first_step), tuple(map(count, offsets)), count(num_bytes), text(digest))
    rising = all(after > before for before, after in pairwise((*shard.offsets, shard.num_bytes)))
    if not _NAMED(shard.name) or shard.offsets[0] != 0 or not rising:
        raise ValueError(f"its entry of the shard {shard.name!r} is not valid")
    return shard
