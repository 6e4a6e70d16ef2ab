"""An index as a source. It yields the headers that a scan of the shards would yield, but opens no shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from patchpack._arrays import IntegerArray
from patchpack.losses import Rejection, ShardFault
from patchpack.plan.shuffle import block_of
from patchpack.stream.sample.source import Reader, Source
from patchpack.types import Event, Header, TargetKind

_BLOCK = 1 << 10  # headers made at a time


class SampleIndex(Protocol):
    """The attributes of an index that planning uses. The n usable samples are in the order of their shards.

    Attributes:
        sizes: int32 ``[n, 2]``, height and width in pixels, after EXIF orientation.
        key_hash: uint64 ``[n]``, the result of `patchpack.rng.key_hash` for each key.
        starts: int64 ``[num_shards + 1]``. Shard s holds the samples ``starts[s] … starts[s + 1] - 1``.
        num_shards: number of shards.
        name: name of the index in messages.
        target_kind: kind of the targets.
        rejections: samples that scanning refused.
        faults: shards that scanning could not read to their end.
        fingerprint: a hash of the whole content. Two indexes with equal content have equal fingerprints.
        reader: a function from a location to (image bytes, target).

    An index may also have ``num_bytes``, int ``[n]``, the sizes of the image files in bytes. Then `Recipe.max_bytes` is checked
    before images are read. With ``permuted_as_a_whole = True``, any `shuffle` but 0 permutes all samples.
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

    def headers(self, lines: IntegerArray) -> tuple[Header, ...]:
        """Return the headers of the samples with these numbers."""
        ...


def block_in(index: SampleIndex, shuffle: object) -> int:
    """Return the number of samples of an index that are permuted at a time, for a user's value of `shuffle`.

    Raises:
        ConfigError: `shuffle` is neither a bool nor an integer.
    """
    block = block_of(shuffle, len(index))
    whole = block > 0 and bool(getattr(index, "permuted_as_a_whole", False))
    return max(1, len(index)) if whole else block


def is_index(source: object) -> TypeGuard[SampleIndex]:
    """Return True for an index.

    Only the class of the object is inspected, because reading an attribute may compute a column.
    """
    return callable(getattr(type(source), "headers", None)) and hasattr(source, "key_hash") and hasattr(source, "starts")


class IndexSource(Source):
    """The samples of an index as a source. The first shard yields the rejections and faults of all shards.

    Attributes:
        index: the given index.
    """

    scan_in_process = True

    def __init__(self, index: SampleIndex) -> None:
        self.index, self.name, self.num_parts = index, index.name, index.num_shards
        self.reader = index.reader
        self.class_names: list[str] | None = getattr(index, "class_names", None)
        self.ignored: Mapping[str, int] = getattr(index, "ignored", {})

    def scan(self) -> Iterator[Event]:
        """Yield the rejections, faults and headers of the index, see `Source`."""
        return self.scan_parts(range(self.index.num_shards))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield the headers of some shards, see `Source`."""
        for part in parts:
            if part == 0:
                yield from self.index.rejections
                yield from self.index.faults
            first, last = self.index.starts[part : part + 2].tolist()
            for start in range(first, last, _BLOCK):
                yield from self.index.headers(np.arange(start, min(start + _BLOCK, last)))
