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
from patchpack.types import Event, TargetKind


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

    `open_source` makes a source of most kinds of data. For any other kind write a subclass with `scan`, `name` and `reader`.
    The other attributes below have defaults. Set an attribute if its default does not describe your source.

    Attributes:
        name: name of the source in messages and saved states.
        reader: a function from the location in a header to (image, target). It must be picklable, because workers call it. If
            the reader has a method ``set_epoch``, every process calls this method before the samples of an epoch are read.
        num_parts: number of parts, such as shards, that `scan_parts` reads separately, so that they can be permuted and dealt
            to ranks. Default None: the source has no parts and is read from its beginning.
        one_sample_per_part: True if every part is one sample, so that permuting the parts is a full shuffle. Default False.
        scan_in_process: True if the planning process always scans headers itself, because headers cost nothing to read, or
            because the source cannot be pickled. Default False.
        decodes_to_scan: True if images must be decoded to find their sizes. Each worker then plans its own part of the samples.
            Default False.
        is_split: True if the source is divided among ranks already. Default False.
        fingerprint: a hash of the names of the samples, by which a saved state recognises the source. Default None: no check.
        class_names: names of the classes in the order of their numbers. Default None: unknown.
        ignored: number of files that are not read, by extension. Default: an empty dict.
        text: location of the text, and the tokenizer. Default None: no texts.
        target_kind: kind of the targets that the user declares. Default None: the first readable target decides.
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
    target_kind: TargetKind = None

    @property
    def texts(self) -> list[Text]:
        """The location of texts and the tokenizer, one or none. A mix has those of all its sources."""
        return [] if self.text is None else [self.text]

    @abstractmethod
    def scan(self) -> Iterator[Event]:
        """Yield headers, rejections and shard faults in order. Every call yields them in this order."""

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield the headers, rejections and faults of some parts, in the given order.

        Only a source with `num_parts` has parts.
        """
        raise NotImplementedError(f"{type(self).__name__} has num_parts but does not define scan_parts")

    def set_epoch(self, epoch: int) -> None:  # noqa: B027 - most sources have no epoch
        """Set the epoch of a source whose samples depend on the epoch.

        The method is called before each pass. By default it does nothing.
        """

    def within(self, limits: Limits) -> Source:
        """Return the source with the limits of a recipe. By default return the source itself, which has no limits."""
        return self

    def read_fields(self) -> dict[str, Any]:
        """Return the names of the fields that are read from every sample, as JSON-safe values by option.

        A saved state holds these names. By default the dict is empty.
        """
        return {}

    def reading_twice(self) -> Source:
        """Return a source that holds no decoded images. An image that was decoded for its size is read again to be painted.

        By default return the source itself.
        """
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
        """Return the source with the limits of a recipe.

        Raises `ConfigError` if the source has clips and the recipe takes none.
        """
        if limits == self.members.limits:
            return self
        other = copy(self)
        other.set_members(self.members.within(limits))
        return other

    def read_fields(self) -> dict[str, Any]:
        """Return the names of the fields that are read from every sample, see `Source`."""
        return self.members.names()

    @abstractmethod
    def set_members(self, members: SampleFields) -> None:
        """Set the fields to read, and make a reader for these fields."""


def tell_epoch(items: object, epoch: int) -> None:
    """Call ``items.set_epoch(epoch)`` if `items` has this method. Streams of `datasets` have it."""
    if callable(set_epoch := getattr(items, "set_epoch", None)):
        set_epoch(epoch)


def digest(names: Iterable[str]) -> str:
    """Return a short hash of a list of names."""
    hashed = blake2b(digest_size=8)
    for name in names:
        hashed.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return hashed.hexdigest()
