"""The base class of sources of samples: headers in order, and a reader that fetches images and labels by location."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Protocol

from patchpack.stream.sample.fields import Limits, SampleFields
from patchpack.stream.sample.text import Text
from patchpack.types import Event


class Reader(Protocol):
    """A reader of the image and label at a location. It is picklable and called in workers."""

    def __call__(self, location: Any) -> tuple[Any, Any]:
        """Return (image, target). Raises `SourceError` or `TargetError`."""
        ...

    def target(self, location: Any) -> object:
        """Return the target alone."""
        ...


class Source(ABC):
    """Samples in a fixed order: their headers, and a reader of their images and labels.

    `open_source` makes one of most kinds of data. For any other kind write a subclass with `scan`, `name` and `reader`. What
    else a source can do is declared by the attributes below, each with a default.

    Attributes:
        name: name of the source in messages and saved states.
        reader: location of a header → (image, target). It is pickled to workers. If it has a method ``set_epoch``, that is
            called in every process before the samples of an epoch are read.
        num_parts: number of parts, such as shards, that `scan_parts` reads separately, so that they can be permuted and dealt
            to ranks. Default None: the source has no parts and is read from its beginning.
        one_sample_per_part: True if every part is one sample, so that permuting the parts is a full shuffle. Default False.
        scan_in_process: True if headers are always scanned in the planning process: they cost nothing to read, or the source
            cannot be pickled. Default False.
        decodes_to_scan: True if images must be decoded to find their sizes. Workers then plan their own shares. Default False.
        is_split: True if the source is divided among ranks already. Default False.
        fingerprint: hash of the names of the samples, by which a saved state recognises the source. Default None.
        class_names: names of the classes in the order of their numbers, None if unknown.
        ignored: number of files that are not read, by extension. Default empty.
        text: location of the text and its tokenizer, None without texts.
    """

    name: str
    reader: Reader
    num_parts: int | None = None
    one_sample_per_part: bool = False
    scan_in_process: bool = False
    decodes_to_scan: bool = False
    is_split: bool = False
    fingerprint: str | None = None
    class_names: list[str] | None = None
    ignored: Mapping[str, int] = MappingProxyType({})
    text: Text | None = None

    @abstractmethod
    def scan(self) -> Iterator[Event]:
        """Yield headers, rejections and container faults in order. The order is the same at every call."""

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield the events of these parts in this order, like `scan`. Only for a source with `num_parts`."""
        raise NotImplementedError(f"{type(self).__name__} has num_parts but does not define scan_parts")

    def set_epoch(self, epoch: int) -> None:  # noqa: B027 - most sources have no epoch
        """Set the epoch of a source whose samples depend on it. It is called before each pass. Default: does nothing."""

    def within(self, limits: Limits) -> Source:
        """Return the source with the limits of a recipe. Default: the source itself, which has no limits."""
        return self

    def read_fields(self) -> dict[str, Any]:
        """Return what is read of every sample, JSON-safe by option. A saved state holds it. Default: nothing is known."""
        return {}

    def reading_twice(self) -> Source:
        """Return the source without images in memory: what was decoded for its size is read again. Default: the source."""
        return self

    def __repr__(self) -> str:
        return f"Source({self.name})"


class FieldSource(Source):
    """A source that reads named fields of its samples within limits.

    Attributes:
        members: the fields.
    """

    members: SampleFields

    def within(self, limits: Limits) -> FieldSource:
        """Return the source with the limits of a recipe. Raises `ConfigError` if the recipe does not take its clips."""
        if limits == self.members.limits:
            return self
        other = copy(self)
        other.set_members(self.members.within(limits))
        return other

    def read_fields(self) -> dict[str, Any]:
        """Return the names of the fields that are read of every sample, see `Source`."""
        return self.members.names()

    @abstractmethod
    def set_members(self, members: SampleFields) -> None:
        """Set the fields to read, and make the reader for them."""


def tell_epoch(items: object, epoch: int) -> None:
    """Call ``items.set_epoch(epoch)`` if `items` has such a method, like the streams of `datasets`."""
    if callable(set_epoch := getattr(items, "set_epoch", None)):
        set_epoch(epoch)


def digest(names: Iterable[str]) -> str:
    """Return a short hash of a list of names."""
    hashed = blake2b(digest_size=8)
    for name in names:
        hashed.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return hashed.hexdigest()
