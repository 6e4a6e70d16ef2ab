"""The protocol of a source of samples: headers in order, and a reader that fetches images and labels by location."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Protocol, runtime_checkable

from patchpack.types import Event


class Reader(Protocol):
    """A reader of the image and label at a location. It is picklable and called in workers."""

    def __call__(self, location: Any) -> tuple[Any, Any]:
        """Return (image, target). Raises `SourceError` or `TargetError`."""
        ...

    def target(self, location: Any) -> object:
        """Return the target alone."""
        ...


@runtime_checkable
class Source(Protocol):
    """The part of a source of samples that `Planner` and `Painter` use.

    A source may have the attribute ``scan_here = True`` if its headers cost nothing to read, or if it cannot be pickled. It is
    then never scanned in a separate process. It may have a ``fingerprint`` of the names of its samples, by which a saved state
    recognises it. A source whose samples depend on the epoch has a method ``set_epoch(epoch)``. It is called before each pass
    over the source. Its reader may have one too, which is called in every process before the samples of an epoch are read.
    """

    name: str
    reader: Reader

    def scan(self) -> Iterator[Event]:
        """Yield headers, rejections and container faults in order. The order is the same at every call."""
        ...


@runtime_checkable
class PartedSource(Source, Protocol):
    """A source with parts (such as shards) that can be read separately, so that they can be permuted and dealt to ranks.

    The attribute ``one_each = True`` means that every part is one sample, so that permuting the parts is a full shuffle.
    """

    num_parts: int

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield the events of these parts in this order, like `scan`."""
        ...


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
