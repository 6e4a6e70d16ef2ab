"""The file format of an index: a small head as JSON, then columns in their memory layout. Files are memory-mapped.

::

    16 bytes  magic
     4 bytes  version            little endian, like all numbers
     4 bytes  CRC-32 of the head
     8 bytes  length of the head
              head, JSON         "columns" lists [name, dtype, shape, begin, CRC-32] of each column
              columns            each begins at a multiple of 64 bytes; `begin` counts from the first column

The file depends on the contents alone: equal contents give equal files.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct, ValidationError, convert

from patchpack.errors import ConfigError, IndexFileError
from patchpack.stream.jobs.atomic import replace_file
from patchpack.stream.jobs.values import Count, decode

Column = np.ndarray
Columns = dict[str, Column]

MAGIC = b"\x93patchpack-index"
VERSION = 2
ALIGNMENT = 64

_FIXED = struct.Struct("<16sIIQ")
_DTYPES = ("|u1", "<u2", "<u4", "<u8")
UNREADABLE = (ValidationError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


class _Place(NamedTuple):
    """The location of a column in a file."""

    name: str
    dtype: Literal["|u1", "<u2", "<u4", "<u8"]
    shape: Annotated[tuple[Count, ...], Meta(min_length=1)]
    begin: Annotated[Count, Meta(multiple_of=ALIGNMENT)]
    checksum: Count


class _Layout(Struct):
    """The fields that `write` adds to a head."""

    columns: list[_Place]
    bytes: Count


def narrow(column: Column) -> Column:
    """Convert non-negative integers to the smallest little-endian dtype that holds all of them."""
    largest = int(column.max(initial=0))
    return column.astype(next(dtype for dtype in _DTYPES if largest <= np.iinfo(dtype).max), copy=False)


def write(path: str | os.PathLike[str], head: Mapping[str, object], columns: Columns) -> None:
    """Write a file in one step: a reader of `path` finds the complete old file or the complete new one.

    Args:
        path: path of the index file.
        head: fields of the head, as values for JSON.
        columns: arrays by name.

    Raises:
        IndexFileError: the file cannot be written. A file that was there before is unchanged.
        ConfigError: `path` is a file of another kind.
    """
    path = Path(path)
    require_replaceable(path)
    places, end, written = [], 0, dict[str, Column]()
    for name, column in columns.items():
        written[name] = np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<"))
        places.append([name, written[name].dtype.str, list(column.shape), end, crc32(written[name].data)])
        end = _aligned(end + column.nbytes)
    text = json.dumps({**head, "columns": places, "bytes": end}, separators=(",", ":")).encode("ascii")

    def fill(file: BinaryIO) -> None:
        file.write(_FIXED.pack(MAGIC, VERSION, crc32(text), len(text)) + text)
        _pad(file)
        for column in written.values():
            file.write(column.data)
            _pad(file)

    try:
        replace_file(path, fill)
    except OSError as error:
        raise IndexFileError(
            f"{path} cannot be written: {type(error).__name__}: {error}. An earlier file there is unchanged"
        ) from error


def require_replaceable(path: Path) -> None:
    """Raise `ConfigError` if `path` is a file other than an index.

    So a mistyped path cannot overwrite a shard.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return
    except FileNotFoundError:
        if path.parent.is_dir():
            return
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {type(error).__name__}: {error}") from None
    raise ConfigError(f"{path} exists and is not an index of patchpack: nothing was overwritten, choose another name")


def read(path: str | os.PathLike[str], *, verify: bool = False) -> tuple[dict[str, Any], Columns]:
    """Map an index file into memory.

    Args:
        path: path of the index file.
        verify: True reads the whole file and compares each column with its checksum. Default False.

    Returns:
        The head, and read-only columns that lie in the mapped file. Pages are read from disk on access.

    Raises:
        IndexFileError: the file is missing, cut off, damaged, no index, or has another version.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head, begin = _read_head(file, path, size)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise IndexFileError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
    try:
        layout = convert(head, _Layout)
        whole = begin + layout.bytes
        if size != whole:
            raise IndexFileError(
                f"{path} must have {whole} bytes, got {size}: it is incomplete or joined with other data. {_AGAIN}"
            )
        columns = {place.name: _view(mapped, begin, place) for place in layout.columns}
        changed = [place.name for place in layout.columns if verify and crc32(columns[place.name].data) != place.checksum]
    except UNREADABLE as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None
    if changed:
        raise damaged(path, f"its column {changed[0]} does not match its checksum")
    return head, columns


_AGAIN = "Build it again: patchpack index SHARDS -o FILE"


def damaged(path: object, why: str) -> IndexFileError:
    """Return the error for an index file with impossible contents."""
    return IndexFileError(f"{path} is damaged ({why}). {_AGAIN}")


def sizes_in(columns: Columns, path: object) -> npt.NDArray[np.int32]:
    """Return height and width of every image in pixels, int32 ``[n, 2]``. Raises `IndexFileError` for an impossible size."""
    column = columns["size"]
    if len(column) and (column.min() < 1 or column.max() > np.iinfo(np.int32).max):
        raise damaged(path, "ValueError: it has an impossible image size")
    return column.astype(np.int32)


def _read_head(file: BinaryIO, path: object, size: int) -> tuple[dict[str, Any], int]:
    """Return the head, and the position where the columns begin."""
    fixed = file.read(_FIXED.size)
    if fixed[: len(MAGIC)] != MAGIC[: len(fixed)] or not fixed:
        raise IndexFileError(f"{path} is not an index of patchpack: it begins with {fixed[:16]!r}")
    if len(fixed) < _FIXED.size:
        raise IndexFileError(f"{path} is incomplete, it ends after {size} bytes. {_AGAIN}")
    _, version, checksum, length = _FIXED.unpack(fixed)
    if version != VERSION:
        what = "update patchpack, or build it again" if version > VERSION else _AGAIN[0].lower() + _AGAIN[1:]
        raise IndexFileError(f"{path} is an index of version {version}, this patchpack reads version {VERSION}: {what}")
    if length > size - _FIXED.size:
        raise IndexFileError(f"{path} ends inside its head, after {size} bytes, or is damaged. {_AGAIN}")
    text = file.read(length)
    if crc32(text) != checksum:
        raise damaged(path, "its head does not match its checksum")
    try:
        head = decode(text, dict[str, Any])
    except UNREADABLE as error:
        raise damaged(path, f"its head: {type(error).__name__}: {error}") from None
    return head, _aligned(_FIXED.size + length)


def _view(mapped: mmap.mmap, first: int, place: _Place) -> Column:
    return np.frombuffer(mapped, place.dtype, math.prod(place.shape), first + place.begin).reshape(place.shape)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _aligned(place: int) -> int:
    return place + -place % ALIGNMENT
