"""The head of an index of a folder or a dataset: the data that the index belongs to, and how to open the data again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct, convert

from patchpack.image.formats import Reading
from patchpack.stream.index.head import WrittenKind, kind_from_json, kind_to_json
from patchpack.stream.jobs.values import Count
from patchpack.stream.sample.fields import Limits
from patchpack.stream.sample.names import Default
from patchpack.stream.sources.opening import paths_of
from patchpack.types import TargetKind

KIND = "source"
"""The field of a head that only an index of a folder or a dataset has."""


@dataclass(frozen=True)
class Origin:
    """The arguments that opened a source, as far as a file can hold them.

    Attributes:
        paths: the folder or the files. None if the source is not named by paths.
        options: the options of `open_source` that were given. None if one of them is no text.
    """

    paths: list[str] | None = None
    options: dict[str, str | list[str] | None] | None = None

    @classmethod
    def of(cls, source: object, options: Mapping[str, Any]) -> Origin:
        """Return the arguments that a file can hold, of the data and the options that a user gave to `open_source`."""
        paths = paths_of(source)
        given = {name: value for name, value in options.items() if not isinstance(value, Default)}
        if not all(_is_text(value) for value in given.values()):
            return cls(paths, None)
        return cls(paths, {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in given.items()})


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, (list, tuple)) and all(map(_is_text, value)))


@dataclass(frozen=True)
class SourceHead:
    """The contents of an index of a folder or a dataset without its columns.

    Attributes:
        name: name of the source in messages.
        num_parts: number of parts of the source.
        samples: hash of the names of the samples, from `Source.fingerprint`. None if the source has no such hash.
        fields: names of the fields that were read of every sample, from `Source.read_fields`.
        class_names: names of the classes in the order of their numbers. None if they are unknown.
        containers: names of the containers that the samples are in.
        limits: the limits of the scan.
        origin: the arguments that opened the source.
        target_kind: kind of the targets: declared, or the kind of the first readable target.
        fingerprint: hexadecimal hash of everything that plans depend on.
    """

    name: str
    num_parts: int
    samples: str | None
    fields: dict[str, Any]
    class_names: list[str] | None
    containers: list[str]
    limits: Limits
    origin: Origin
    target_kind: TargetKind
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """Return the head as values for JSON, which `from_json` reads."""
        return {
            KIND: {
                "name": self.name,
                "num_parts": self.num_parts,
                "samples": self.samples,
                "fields": self.fields,
                "class_names": self.class_names,
                "containers": self.containers,
                "max_pixels": self.limits.max_pixels,
                "max_bytes": self.limits.max_bytes,
                "formats": self.limits.reading.formats,
                "paths": self.origin.paths,
                "options": self.origin.options,
                "target_kind": kind_to_json(self.target_kind),
                "fingerprint": self.fingerprint,
            }
        }

    @classmethod
    def from_json(cls, head: Mapping[str, Any]) -> SourceHead:
        """Return the head from the values of `to_json`. Other values raise one of the errors in `columns.UNREADABLE`."""
        said = convert(head[KIND], _Written)
        limits = Limits(said.max_pixels, said.max_bytes, clips=False, reading=Reading(formats=said.formats))
        return cls(
            said.name,
            said.num_parts,
            said.samples,
            said.fields,
            said.class_names,
            said.containers,
            limits,
            Origin(said.paths, said.options),
            kind_from_json(said.target_kind),
            said.fingerprint,
        )


class _Written(Struct):
    """The values of `SourceHead.to_json`."""

    name: str
    num_parts: Count
    samples: str | None
    fields: dict[str, Any]
    class_names: list[str] | None
    containers: list[str]
    max_pixels: Count
    max_bytes: Count
    formats: tuple[str, ...]
    paths: list[str] | None
    options: dict[str, str | list[str] | None] | None
    target_kind: WrittenKind
    fingerprint: str
