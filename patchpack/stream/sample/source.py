"""What a source of samples is: headers in order, and a reader that can fetch what they point at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Protocol, runtime_checkable

from patchpack.types import Event


class Reader(Protocol):
    """Location to pixels and label; picklable, called in workers."""

    def __call__(self, location: Any) -> tuple[Any, Any]:
        """(image, target). Raises `SourceError` or `TargetError`."""
        ...

    def target(self, location: Any) -> Any:
        """The target alone."""
        ...


@runtime_checkable
class Source(Protocol):
    """What `Planner` and `Painter` need of a source of samples.

    A source may also say ``scan_here = True``: its headers cost nothing to read, or it cannot be pickled, so that no process of
    its own should scan it; and have a ``fingerprint`` of the names of what it holds, by which a saved state knows it again.
    A source whose samples depend on the epoch has a method ``set_epoch(epoch)``. It is called before each pass over the source.
    Its reader may have one too, which is called in every process before the samples of an epoch are read.
    """

    name: str
    reader: Reader

    def scan(self) -> Iterator[Event]:
        """Headers, rejections and container faults, in order; the same order at every call."""
        ...


@runtime_checkable
class PartedSource(Source, Protocol):
    """What a source may add: parts that can be read by themselves (shards), to be permuted and dealt to ranks.

    It may say ``one_each = True``: every part is one sample, so that permuting the parts is the whole shuffle.
    """

    num_parts: int

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """As `scan`, of these parts in this order."""
        ...


def tell_epoch(items: Any, epoch: int) -> None:
    """Call ``items.set_epoch(epoch)`` where `items` has such a method, as the streams of `datasets` do."""
    if callable(set_epoch := getattr(items, "set_epoch", None)):
        set_epoch(epoch)


def digest(names: Iterable[str]) -> str:
    """A few characters for a list of names."""
    hashed = blake2b(digest_size=8)
    for name in names:
        hashed.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return hashed.hexdigest()
