"""The head of an index, which lists the shards. It can be converted to JSON and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from msgspec import Struct, convert

from patchpack.image.formats import Reading
from patchpack.stream.index.fingerprint import Fingerprint
from patchpack.stream.jobs.values import Count
from patchpack.stream.sample.fields import Limits, SampleFields
from patchpack.types import TargetKind, TargetSpec


class Shard(NamedTuple):
    """A shard at the time it was indexed.

    Attributes:
        label: name of the shard in keys and reports.
        url: path or URL of the shard, as the user gave it.
        fingerprint: fingerprint of the shard's file.
        num_samples: number of usable samples in the shard.
        prefix: common beginning of the stems of all samples. A stem is a member's name up to the first dot of the file name.
    """

    label: str
    url: str
    fingerprint: Fingerprint
    num_samples: int
    prefix: str


@dataclass(frozen=True)
class Head:
    """The contents of an index without its columns.

    Attributes:
        members: the fields that were read of each sample.
        shards: the shards in order.
        kinds: all different pairs (rest of an image's name after the stem, image format). A sample refers to its pair by
            number.
        target_kind: kind of the targets: declared, or the kind of the first readable target.
        fingerprint: hexadecimal hash of everything that plans depend on.
    """

    members: SampleFields
    shards: tuple[Shard, ...]
    kinds: tuple[tuple[str, str], ...]
    target_kind: TargetKind
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """Return the head as values for JSON, which `from_json` reads."""
        members = self.members
        return {
            "fingerprint": self.fingerprint,
            "image": members.image,
            "target": members.target,
            "max_pixels": members.limits.max_pixels,
            "max_bytes": members.limits.max_bytes,
            **({"formats": members.limits.reading.formats} if members.limits.reading.formats else {}),
            "target_kind": kind_to_json(self.target_kind),
            "kinds": self.kinds,
            "shards": [(s.label, s.url, *s.fingerprint, s.num_samples, s.prefix) for s in self.shards],
        }

    @classmethod
    def from_json(cls, head: Any) -> Head:
        """Return the head from the values of `to_json`. Other values raise one of the errors in `columns.UNREADABLE`."""
        said = convert(head, _Written)
        limits = Limits(said.max_pixels, said.max_bytes, clips=False, reading=Reading(formats=said.formats))
        members = SampleFields(said.image, said.target, limits=limits)
        shards = tuple(
            Shard(label, url, Fingerprint(size, version, digest), samples, prefix)
            for label, url, size, version, digest, samples, prefix in said.shards
        )
        return cls(members, shards, said.kinds, kind_from_json(said.target_kind), said.fingerprint)


def _listed(spec: TargetSpec | None) -> tuple[object, ...] | None:
    return spec and (tuple(spec) if spec.declared else spec[:2])


class _Spec(NamedTuple):
    """A `TargetSpec`."""

    dtype: Literal["int64", "float32", "object"]
    shape: tuple[Count, ...]
    declared: bool = False


class _Several(Struct):
    """The kinds of several targets, by name."""

    each: dict[str, _Spec]


WrittenKind = _Several | _Spec | None


def kind_to_json(kind: TargetKind) -> object:
    """Return the kind of targets as values for JSON, which `kind_from_json` reads."""
    return {"each": {name: _listed(spec) for name, spec in kind.items()}} if isinstance(kind, dict) else _listed(kind)


def kind_from_json(said: WrittenKind) -> TargetKind:
    """Return the kind of targets from the values of `kind_to_json`."""
    if isinstance(said, _Several):
        return {name: TargetSpec(*spec) for name, spec in said.each.items()}
    return said and TargetSpec(*said)


class _Written(Struct):
    """The values of `Head.to_json`."""

    fingerprint: str
    image: tuple[str, ...]
    target: str | tuple[str, ...] | None
    max_pixels: Count
    max_bytes: Count
    target_kind: WrittenKind
    kinds: tuple[tuple[str, str], ...]
    shards: tuple[tuple[str, str, Count, int | str, str, Count, str], ...]  # fields of a shard and its fingerprint
    formats: tuple[str, ...] = ()
