"""The lines of an index of a folder or a dataset, kept as columns and read as headers.

A damaged file may hold any value. An impossible value raises `IndexFileError` before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from json import dumps

import numpy as np
import numpy.typing as npt

from patchpack.errors import IndexFileError
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.index.columns import UNREADABLE, Column, Columns, damaged, narrow, sizes_in
from patchpack.stream.index.source_scan import OBJECT, PartColumns, rest_of
from patchpack.stream.index.strings import STRIDE, Strings
from patchpack.stream.jobs.values import decode
from patchpack.types import Header, IntArray, Size

_PLAIN = ("size", "kind", "container")
_FILES = ("part", "file.bytes", "file.time")


def join(parts: Iterator[PartColumns], met: Callable[[int, int], None]) -> tuple[Columns, list[str]]:
    """Return the columns of all parts of a source, and the names of the containers that the samples are in.

    Args:
        parts: the columns of consecutive parts, in order.
        met: a function that is called after each element of `parts`, with (parts so far, usable samples so far).
    """
    containers: dict[str, int] = {}
    pieces: dict[str, list[Column]] = {}
    rejections: list[Rejection] = []
    faults: list[ShardFault] = []
    done = samples = 0
    for part in parts:
        numbers = np.array([containers.setdefault(name, len(containers)) for name in part.containers], dtype=np.uint32)
        for name, column in part.columns.items():
            pieces.setdefault(name, []).append(numbers[column] if name == "container" else column)
        rejections += part.rejections
        faults += part.faults
        done += part.num_parts
        samples += len(part.columns["kind"])
        met(done, samples)
    merged = {name: np.concatenate(pieces.pop(name)) for name in list(pieces)}  # never two copies of all of it
    columns: Columns = {name: narrow(merged.pop(name)) for name in _PLAIN}
    columns["key_hash"] = merged.pop("key_hash")
    for name in ("key", "rest"):
        columns |= Strings.pack(merged.pop(f"{name}.lengths"), merged.pop(f"{name}.bytes")).columns(name)
    columns |= {name: narrow(merged.pop(name)) for name in _FILES if name in merged}
    columns["losses"] = np.frombuffer(dumps([rejections, faults], separators=(",", ":")).encode(), np.uint8)
    return columns, list(containers)


class SourceLines:
    """The lines of an index of n samples of a folder or a dataset.

    Args:
        columns: arrays by name, from `join` or a file.
        containers: names of the containers that the samples are in.
        num_parts: number of parts of the source.
        name: name of the index, for messages.

    Raises:
        IndexFileError: the columns contradict each other.
    """

    def __init__(self, columns: Columns, containers: Sequence[str], num_parts: int, name: str) -> None:
        self._columns, self._containers, self._num_parts, self._name = columns, containers, num_parts, name
        try:
            self._keys, self._rests = Strings.of(columns, "key"), Strings.of(columns, "rest")
            self._check_shapes(len(columns["key_hash"]))
        except UNREADABLE as error:
            raise self._damaged(error) from None

    def _check_shapes(self, n: int) -> None:
        columns, strings = self._columns, (self._keys, self._rests)
        expected: list[tuple[Column, tuple[int, ...]]] = [(columns["size"], (n, 2))]
        expected += [(columns[name], (n,)) for name in ("kind", "container", "key_hash")]
        expected += [(s.lengths, (n,)) for s in strings] + [(s.starts, (-(-n // STRIDE),)) for s in strings]
        if "part" in columns:
            parts = (self._num_parts,)
            expected += [(columns["part"], (n,)), (columns["file.bytes"], parts), (columns["file.time"], parts)]
        if any(column.shape != shape for column, shape in expected):
            raise ValueError(f"its columns must have {n} lines each")
        blobs = [*(s.blob for s in strings), columns["losses"]]
        if columns["key_hash"].dtype.itemsize != 8 or any(b.dtype != np.uint8 or b.ndim != 1 for b in blobs):
            raise ValueError("a column has another type")
        if n and (
            int(columns["container"].max()) >= len(self._containers)
            or ("part" in columns and int(columns["part"].max()) >= self._num_parts)
        ):
            raise ValueError("a sample is in a part or a container that does not exist")

    def _damaged(self, error: Exception) -> IndexFileError:
        return damaged(self._name, f"{type(error).__name__}: {error}")

    def sizes(self) -> IntArray:
        """Return height and width of every image in pixels, int32 ``[n, 2]``."""
        return sizes_in(self._columns, self._name)

    def num_bytes(self) -> npt.NDArray[np.unsignedinteger] | None:
        """Return the size of every image file in bytes, unsigned ``[n]``. Return None if the images are not files."""
        if "part" not in self._columns:
            return None
        found: npt.NDArray[np.unsignedinteger] = self._columns["file.bytes"][self._columns["part"]]
        return found

    @cached_property
    def losses(self) -> tuple[list[Rejection], list[ShardFault]]:
        """Rejections and faults of the scan, parsed on first access."""
        try:
            return decode(self._columns["losses"].tobytes(), tuple[list[Rejection], list[ShardFault]])
        except UNREADABLE as error:
            raise self._damaged(error) from None

    def headers(self, lines: npt.NDArray[np.int64]) -> tuple[Header, ...]:
        """Return the headers of some lines, ``0 <= line < n``. See `patchpack.Index.headers`."""
        columns = self._columns
        try:
            keys = [key.decode("utf-8", "surrogatepass") for key in self._keys.take(lines)]
            places = [self._containers[number] for number in columns["container"][lines].tolist()]
            rests = map(rest_of, columns["kind"][lines].tolist(), self._rests.take(lines), keys)
            sizes = columns["size"][lines].tolist()
            return tuple(
                Header(key, place, member, Size(*size), location)
                for key, place, (member, location), size in zip(keys, places, rests, sizes, strict=True)
            )
        except UNREADABLE as error:
            raise self._damaged(error) from None

    def first_object(self) -> int | None:
        """Return the first line whose location a file cannot hold. Return None if there is none."""
        found = np.flatnonzero(self._columns["kind"] >= OBJECT)
        return int(found[0]) if len(found) else None
