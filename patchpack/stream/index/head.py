"""The head of an index, with its shards, to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from patchpack.image.formats import Reading
from patchpack.stream.index.fingerprint import Fingerprint
from patchpack.stream.jobs.values import count, text
from patchpack.stream.sample.fields import Limits, SampleFields
from patchpack.types import TargetKind, TargetSpec


class Shard(NamedTuple):
    """A shard at the time it was indexed.

    Attributes:
        label: its name in keys and reports.
        url: its location, as given by the user.
        fingerprint: its fingerprint.
        num_samples: number of usable samples.
        prefix: common beginning of all stems.
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
        kinds: (rest of the image's name behind the stem, format) by number.
        target_kind: kind of the first readable target.
        fingerprint: hexadecimal hash of everything that plans depend on.
    """

    members: SampleFields
    shards: tuple[Shard, ...]
    kinds: tuple[tuple[str, str], ...]
    target_kind: TargetKind
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """Return the head as values for JSON, see `from_json`."""
        members, kind = self.members, self.target_kind
        return {
            "fingerprint": self.fingerprint,
            "image": members.image,
            "target": members.target,
            "max_pixels": members.limits.max_pixels,
            "max_bytes": members.limits.max_bytes,
            **({"formats": members.limits.reading.formats} if members.limits.reading.formats else {}),
            "target_kind": {"each": {k: tuple(v) for k, v in kind.items()}} if isinstance(kind, dict) else kind,
            "kinds": self.kinds,
            "shards": [(s.label, s.url, *s.fingerprint, s.num_samples, s.prefix) for s in self.shards],
        }

    @classmethod
    def from_json(cls, head: Mapping[str, Any]) -> Head:
        """Return the head from the values of `to_json`. Raises one of `columns.UNREADABLE` for other values."""
        target, kind = head["target"], head["target_kind"]
        members = SampleFields(
            tuple(map(text, head["image"])),
            tuple(map(text, target)) if isinstance(target, list) else None if target is None else text(target),
            limits=Limits(
                count(head["max_pixels"]),
                count(head["max_bytes"]),
                clips=False,
                reading=Reading(formats=tuple(map(text, head.get("formats", ())))),
            ),
        )
        shards = tuple(
            Shard(
                text(label),
                text(url),
                Fingerprint(count(size), _version(version), text(digest)),
                count(samples),
                text(prefix),
            )
            for label, url, size, version, digest, samples, prefix in head["shards"]
        )
        target_kind = {text(k): _spec(v) for k, v in kind["each"].items()} if isinstance(kind, dict) else kind and _spec(kind)
        kinds = tuple((text(rest), text(name)) for rest, name in head["kinds"])
        return cls(members, shards, kinds, target_kind, text(head["fingerprint"]))


def _version(value: Any) -> int | str:
    return value if isinstance(value, str) else int(value)


def _spec(value: Any) -> TargetSpec:
    dtype, shape = value
    if dtype not in ("int64", "float32", "object"):
        raise ValueError(f"targets cannot have the dtype {dtype!r}")
    return TargetSpec(dtype, tuple(map(count, shape)))
