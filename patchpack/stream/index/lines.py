"""The lines of an index: line i describes sample i. Lines are read as headers, or as the columns of a whole shard.

A damaged file may hold any value. A value that points outside a column or a shard raises `IndexFileError` before it is used.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from patchpack._arrays import IntegerArray
from patchpack.errors import ConfigError, IndexFileError
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.index.columns import UNREADABLE, Column, Columns, damaged, sizes_in
from patchpack.stream.index.fingerprint import ask_each, unchanged
from patchpack.stream.index.head import Head
from patchpack.stream.index.scan import ShardColumns, ShardTask
from patchpack.stream.index.strings import STRIDE, Strings
from patchpack.stream.jobs.values import decode
from patchpack.stream.tar.byte_reader import BLOCK
from patchpack.stream.tar.reader import Slice
from patchpack.types import Header, IntArray, Size

I64 = npt.NDArray[np.int64]


def checked(lines: Sequence[int] | IntegerArray, count: int) -> I64:
    """Return the numbers of lines as an array. Raise `ConfigError` unless they are a flat sequence of 0 … `count` - 1."""
    found = np.asarray(lines)
    if found.size and (found.ndim != 1 or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= count):
        raise ConfigError(f"lines must be a flat sequence of integers in 0 … {count - 1}, got {found!r}")
    return found.astype(np.int64)


class Lines:
    """The lines of an index, made from its head and its columns. `starts` is described at `Index`.

    Args:
        head: the contents of the index without its columns.
        columns: arrays by name.
        name: name of the index, for messages.

    Raises:
        IndexFileError: the head and the columns contradict each other.
    """

    def __init__(self, head: Head, columns: Columns, name: str) -> None:
        self._head, self._columns, self._name = head, columns, name
        self.starts: I64 = np.zeros(len(head.shards) + 1, dtype=np.int64)
        np.cumsum([s.num_samples for s in head.shards], out=self.starts[1:])
        self._fronts = [(f"{s.label}/{s.prefix}", s.label, s.prefix) for s in head.shards]
        self._shard_bytes = np.array([s.fingerprint.num_bytes for s in head.shards], dtype=np.uint64)
        try:
            self._stems = Strings.of(columns, "stem")
            self._kept = [Strings.of(columns, f"label{i}") for i in range(len(head.members.labels))]
            self._check_shapes(int(self.starts[-1]))
        except UNREADABLE as error:
            raise self._damaged(error) from None

    def _check_shapes(self, n: int) -> None:
        strings = [self._stems, *self._kept]
        places = [f"{prefix}{part}" for prefix in self._prefixes for part in ("offset", "length")]
        each = [*(self._columns[name] for name in ("kind", "key_hash", *places)), *(s.lengths for s in strings)]
        expected: list[tuple[Column, tuple[int, ...]]] = [(column, (n,)) for column in each]
        expected += [(s.starts, (-(-n // STRIDE),)) for s in strings]
        expected += [(self._columns["size"], (n, 2))]
        blobs = [*(s.blob for s in strings), self._columns["losses"]]
        if not self._head.shards or any(column.shape != shape for column, shape in expected):
            raise ValueError(f"its columns must have {n} lines each")
        if self._columns["key_hash"].dtype.itemsize != 8 or any(b.dtype != np.uint8 or b.ndim != 1 for b in blobs):
            raise ValueError("a column has another type")

    @property
    def _prefixes(self) -> list[str]:
        """The prefixes in the names of columns that hold locations in shards.

        One prefix is for the image. Each label also has a prefix, unless the index itself holds all values of the label.
        """
        labels = [f"label{i}." for i in range(len(self._head.members.labels))]
        return ["", *(prefix for prefix in labels if f"{prefix}length" in self._columns)]

    def _damaged(self, error: Exception) -> IndexFileError:
        return damaged(self._name, f"{type(error).__name__}: {error}")

    def sizes(self) -> IntArray:
        """Return height and width of every image in pixels, int32 ``[n, 2]``."""
        return sizes_in(self._columns, self._name)

    def formats(self) -> Counter[str]:
        """Return the number of images of each format."""
        counts: Counter[str] = Counter()
        for (_, name), count in zip(self._head.kinds, np.bincount(self._columns["kind"]).tolist(), strict=False):
            counts[name or "other"] += count
        return counts

    @cached_property
    def losses(self) -> tuple[list[Rejection], list[ShardFault]]:
        """Rejections and faults of the scan, parsed on first access."""
        try:
            return decode(self._columns["losses"].tobytes(), tuple[list[Rejection], list[ShardFault]])
        except UNREADABLE as error:
            raise self._damaged(error) from None

    def headers(self, lines: I64) -> tuple[Header, ...]:
        """Return the headers of the samples with the numbers `lines`, each in ``0 … n - 1``. See `Index.headers`."""
        shards = np.searchsorted(self.starts, lines, side="right") - 1
        try:
            images = self._places("", lines, shards)
            labels = [self._labels(i, lines, shards) for i in range(len(self._kept))]
            names = [stem.decode("utf-8", "surrogateescape") for stem in self._stems.take(lines)]
            rests = [self._head.kinds[kind][0] for kind in self._columns["kind"][lines].tolist()]
            sizes = self._columns["size"][lines].astype(np.int64)
            if len(sizes) and (sizes.min() < 1 or sizes.max() > np.iinfo(np.int32).max):
                raise ValueError("it has an impossible image size")
        except UNREADABLE as error:
            raise self._damaged(error) from None
        each_labels = zip(*labels, strict=True) if labels else [()] * len(lines)
        made = []
        for shard, name, rest, (height, width), image, kept in zip(
            shards.tolist(), names, rests, sizes.tolist(), images, each_labels, strict=True
        ):
            front, label, prefix = self._fronts[shard]
            made.append(Header(front + name, label, prefix + name + rest, Size(height, width), Slice(shard, image, kept)))
        return tuple(made)

    def _places(self, prefix: str, lines: I64, shards: I64) -> list[tuple[int, int]]:
        """Return the location of one member of each sample: (offset, length) in bytes inside the shard."""
        offsets, lengths = (self._columns[f"{prefix}{part}"][lines].astype(np.uint64) for part in ("offset", "length"))
        limits = self._shard_bytes[shards]
        inside = offsets <= limits // np.uint64(BLOCK)
        begins = np.where(inside, offsets, np.uint64(0)) * np.uint64(BLOCK)
        if not (inside & (lengths <= limits - begins)).all():
            raise ValueError("it has a member outside its shard")
        return list(zip(begins.tolist(), lengths.tolist(), strict=True))

    def _labels(self, number: int, lines: I64, shards: I64) -> Sequence[tuple[int, int] | bytes]:
        kept = self._kept[number].take(lines)
        if f"label{number}." not in self._prefixes:
            return kept
        places = self._places(f"label{number}.", lines, shards)
        return [place if place[1] else value for place, value in zip(places, kept, strict=True)]

    def part(self, number: int) -> ShardColumns:
        """Return the columns of a shard in the form that scanning gives."""
        shard, columns = self._head.shards[number], self._columns
        first, stop = self.starts[number : number + 2].tolist()
        cut = {name: columns[name][first:stop] for name in ("size", "key_hash", "offset", "length")}
        codes, at = np.unique(columns["kind"][first:stop], return_index=True)
        in_order = codes[np.argsort(at)]  # numbered anew, in order of first use
        try:
            kinds = [self._head.kinds[code] for code in in_order.tolist()]
            numbers = np.zeros(len(self._head.kinds), dtype=np.uint16)
            numbers[in_order] = np.arange(len(in_order))
            cut["kind"] = numbers[columns["kind"][first:stop]]
            cut["stem.lengths"], cut["stem.bytes"] = self._stems.cut(first, stop)
            for i, kept in enumerate(self._kept):
                cut[f"label{i}.lengths"], cut[f"label{i}.bytes"] = kept.cut(first, stop)
        except UNREADABLE as error:
            raise self._damaged(error) from None
        for i in range(len(self._kept)):
            for name in (f"label{i}.offset", f"label{i}.length"):
                cut[name] = columns[name][first:stop] if name in columns else np.zeros(stop - first, np.uint8)
        rejections, faults = self._losses_of
        return ShardColumns(shard.fingerprint, shard.prefix, kinds, cut, rejections[shard.label], faults[shard.label])

    def unchanged(self, tasks: Sequence[ShardTask]) -> dict[str, ShardColumns]:
        """Return the columns of each shard that has not changed, by its label. The columns have the form of a new scan."""
        known = {shard.label: (number, shard.fingerprint) for number, shard in enumerate(self._head.shards)}
        shared = [task for task in tasks if task.label in known]
        same = ask_each(unchanged, [(task.url, known[task.label][1]) for task in shared])
        return {task.label: self.part(known[task.label][0]) for task, as_it_was in zip(shared, same, strict=True) if as_it_was}

    @cached_property
    def _losses_of(self) -> tuple[dict[str, list[Rejection]], dict[str, list[ShardFault]]]:
        rejections, faults = defaultdict(list), defaultdict(list)
        for rejection in self.losses[0]:
            rejections[rejection.shard].append(rejection)
        for fault in self.losses[1]:
            faults[fault.shard].append(fault)
        return rejections, faults
