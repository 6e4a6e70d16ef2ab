"""What a source of samples is: headers in order, and a reader that can fetch what they point at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """What `Planner` and `Painter` need of a source of samples."""

    name: str
    reader: Reader

    def scan(self) -> Iterator[Event]:
        """Headers, rejections and container faults, in order; the same order at every call."""
        ...


@runtime_checkable
class PartedSource(Source, Protocol):
    """What a source may add: parts that can be read by themselves (shards), to be permuted and dealt to ranks."""

    num_parts: int

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """As `scan`, of these parts in this order."""
        ...
