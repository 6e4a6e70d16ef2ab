"""An index as a source: its headers, as a scan of its shards would give them, without opening one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from patchpack.report import Rejection, ShardFault
from patchpack.stream.sample.source import Reader
from patchpack.types import Event, Header, TargetKind

_BLOCK = 1 << 10  # headers made at a time


class SampleIndex(Protocol):
    """What planning needs of an index of n usable samples, shard after shard in the order of their shards.

    Attributes:
        sizes: int32 ``[n, 2]`` oriented height and width.
        key_hash: uint64 ``[n]``, `patchpack.rng.key_hash` of the keys.
        starts: int64 ``[num_shards + 1]``: the samples of shard s are ``starts[s]:starts[s + 1]``.
        num_shards: how many.
        name: for messages.
        target_kind: of the targets.
        rejections, faults: what scanning refused.
        fingerprint: of all of it; equal for equal content.
        reader: location to (image bytes, target).

    It may also have ``num_bytes``, int ``[n]``, of the image files, for `Recipe.max_bytes` to be checked before they are read.
    """

    key_hash: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    num_shards: int
    name: str
    target_kind: TargetKind
    fingerprint: str
    reader: Reader

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> npt.NDArray[np.int32]: ...

    @property
    def rejections(self) -> list[Rejection]: ...

    @property
    def faults(self) -> list[ShardFault]: ...

    def headers(self, lines: npt.NDArray[Any]) -> tuple[Header, ...]:
        """The header of each line."""
        ...


def is_index(source: Any) -> TypeGuard[SampleIndex]:
    """True for an index; looks at its class alone, because some of its columns are made when they are asked for."""
    return callable(getattr(type(source), "headers", None)) and hasattr(source, "key_hash") and hasattr(source, "starts")


class IndexSource:
    """A `PartedSource` over an index; what was refused comes with the first shard.

    Attributes:
        index: what it was made of.
    """

    scan_here = True

    def __init__(self, index: SampleIndex) -> None:
        self.index, self.name, self.num_parts = index, index.name, index.num_shards
        self.reader: Reader = index.reader

    def scan(self) -> Iterator[Event]:
        """See `Source`."""
        return self.scan_parts(range(self.num_parts))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """See `PartedSource`."""
        for part in parts:
            if part == 0:
                yield from self.index.rejections
                yield from self.index.faults
            first, last = self.index.starts[part : part + 2].tolist()
            for start in range(first, last, _BLOCK):
                yield from self.index.headers(np.arange(start, min(start + _BLOCK, last)))
