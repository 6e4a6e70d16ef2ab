"""Headers of tar members. Common headers are read here, all other headers by the standard library."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import adler32

from typing_extensions import Self

from patchpack.stream.tar.byte_reader import BLOCK

_HEADER_BYTES = 1 << 16  # largest header, with its records and long names
_RECORDS_BYTES = 1 << 12  # largest pax header read here
_SHAPES = 64  # kinds of headers remembered
_DIGITS = re.compile(rb"[0-9]{1025}").search  # in no file name; older Pythons take 15 s over 64 kB of them (CVE-2024-6232)
_DATED = re.compile(rb"(([0-9]{2}) mtime=[0-9.]+\n)\0*").fullmatch
_RECORD = re.compile(rb"([0-9]{1,5}) ([^=\n]+)=").match
_NO_MATTER = {b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname", b"comment"}


class Shape(NamedTuple):
    """The bytes that all headers of one kind have in common."""

    type: bytes
    prefix: str  # of the name
    rest: int  # sum of the bytes from the type on, and of the checksum field as spaces


_Parsed = tuple[bytes, str, int]  # type, name, size


def behind(read: Callable[[int, int], bytes], at: int, size: int) -> bytes:
    """Read the records or the long name after a header, and the next header.

    Args:
        read: a function from (offset, length) to bytes of the file.
        at: offset of the first byte after the header.
        size: number of bytes of the records or of the long name.
    """
    return read(at, size + -size % BLOCK + BLOCK) if size <= _RECORDS_BYTES else b""


def named(before: _Parsed, more: bytes, shapes: dict[bytes, Shape]) -> _Parsed | None:
    """Return the header of a file, with the name that the header before it gives. Return None unless both headers are common.

    Args:
        before: (type, name, size) of the header before the file's header.
        more: the bytes that `behind` returned.
        shapes: kinds of headers met so far.
    """
    kind, _, size = before
    own = parse(more[-BLOCK:], shapes)
    if own is None or own[0] not in b"0\0":
        return None
    path = _pax_path(more[:-BLOCK], size) if kind == b"x" else _long_name(more[:-BLOCK])
    if path is None:
        return None
    return own[0], path or own[1], own[2]


def parse(block: bytes, shapes: dict[bytes, Shape]) -> _Parsed | None:
    """Return (type, name, size) of a header of a common kind, or None if the standard library has to read the header."""
    shape = shapes.get(block[100:124] + block[154:])
    if shape is None:
        shape = _learn(block, shapes)
        if shape is None:
            return None
    kind, prefix, rest = shape
    # the low half of Adler-32 is 1 + the sum of the bytes, exact up to 256 bytes; a sum in Python takes 4 times as long
    if b"%06o" % ((adler32(block[:148]) & 0xFFFF) - 1 + rest) != block[148:154]:
        return None
    numbers = block[124:135] + block[136:147]  # size and date: a header without a valid date is not valid
    if not numbers.isdigit() or block[135] not in b"\0 " or block[147] not in b"\0 ":
        return None
    try:
        size = int(numbers, 8) >> 33  # 11 octal digits are 33 bits
    except ValueError:
        return None
    name = prefix + block[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    if name[-1:] in ("", "/"):  # a folder, in the oldest archives
        return None
    return kind, name, size


def _learn(block: bytes, shapes: dict[bytes, Shape]) -> Shape | None:
    """Store in `shapes` the bytes that all headers of one kind share, and return them as a `Shape`.

    Return None if this module does not read headers of this kind.
    """
    try:
        kind = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").type
    except (tarfile.TarError, ValueError):
        return None
    if kind not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME) or block[156:157] != kind:
        return None
    if block[154:156].strip(b"\0 "):  # digits of the checksum
        return None
    prefix = block[345:500].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    shape = Shape(kind, prefix and prefix + "/", sum(block[156:]) + 8 * ord(" "))
    if len(shapes) >= _SHAPES:
        shapes.clear()
    shapes[block[100:124] + block[154:]] = shape
    return shape


def _pax_path(records: bytes, size: int) -> str | None:
    """Return the name in a pax header. Return "" if there is no name, and None if the header has other or damaged records."""
    dated = _DATED(records)
    if dated is not None and int(dated[2]) == size == len(dated[1]):
        return ""
    if b"hdrcharset" in records or records.count(0, size) != len(records) - size:
        return None
    path, at = "", 0
    while at < size:
        record = _RECORD(records, at, size)
        if record is None:
            return None
        length, keyword = record.groups()
        begin, stop = record.end(), at + int(length)
        if not begin < stop <= size or records[stop - 1] != ord("\n"):
            return None
        if keyword == b"path":
            try:
                path = records[begin : stop - 1].decode()
            except UnicodeDecodeError:
                return None
            if not path or path.endswith("/"):
                return None
        elif keyword not in _NO_MATTER:
            return None
        at = stop
    return path


def _long_name(buffer: bytes) -> str | None:
    name = buffer.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return name if name and not name.endswith("/") else None


def unusual(read: Callable[[int, int], bytes], at: int, known: bytes, shared: dict[str, str]) -> tuple[tarfile.TarInfo, int]:
    """Return a header that the standard library reads, and the position of the next header.

    Args:
        read: a function from (offset, length) to bytes of the file.
        at: offset of the header.
        known: bytes from `at` on that are read already.
        shared: records of pax headers that hold for all later members.
    """
    file: Any = _Ahead(read, at, known)
    tar = tarfile.TarFile(fileobj=file, tarinfo=_TarHeader, encoding="utf-8", pax_headers=shared)
    info = tar.next()
    if info is None or tar.offset <= at:  # a step back would never end
        raise tarfile.ReadError(f"no valid header at byte {at} (its size is negative), the rest was not read")
    return info, tar.offset


class _TarHeader(tarfile.TarInfo):
    """A tar header, read by the standard library. Invalid bytes raise `tarfile.ReadError` with the reason.

    Without this class, the standard library would read an invalid header as the end of the archive and raise no error.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        begin = tar.offset
        try:
            _require_records(tar.fileobj)
            info = super().fromtarfile(tar)
        except (tarfile.EOFHeaderError, tarfile.ReadError, OSError, EOFError):  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            lost = f"no end marker at byte {begin}, so members after it are lost" if begin else "it is empty"
            raise tarfile.ReadError(lost) from None
        except Exception as error:
            raise tarfile.ReadError(f"no valid header at byte {begin} ({error}), the rest was not read") from None
        if info.size < 0:
            raise tarfile.ReadError(f"the header of {info.name} says {info.size} bytes, the rest was not read")
        return info


def _require_records(file: Any) -> None:
    """Raise `ValueError` if the next header is a pax header with damaged records.

    After a damaged record, many versions of Python skip the rest of the records. If the name of the member is among these, the
    member would get another name.
    """
    block = file.peek(BLOCK)
    if block[156:157] not in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
        return
    size = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size
    records = file.peek(BLOCK + size)[BLOCK:]
    at = 0
    while at < len(records) == size and records[at]:
        record = _RECORD(records, at)
        stop = at + int(record[1]) if record else 0
        if record is None or not record.end() < stop <= size or records[stop - 1] != ord("\n"):
            raise ValueError(f"its records are damaged: {records[at : at + 40]!r}")
        if record[2] == b"size" and not records[record.end() : stop - 1].isdigit():
            raise ValueError(f"its records say {records[record.end() : stop - 1]!r} bytes")
        at = stop


class _Ahead:
    """A file from which the standard library reads a header. Bytes come from memory first, then from the byte reader."""

    def __init__(self, read: Callable[[int, int], bytes], at: int, known: bytes) -> None:
        self._read_at, self._at, self._known = read, at, known
        self._limit = at + _HEADER_BYTES

    def tell(self) -> int:
        return self._at

    def peek(self, count: int) -> bytes:
        if not 0 <= count <= self._limit - self._at:
            raise ValueError(f"it has {count} more bytes, but a header may have {_HEADER_BYTES} at most")
        if len(self._known) < count:
            self._known += self._read_at(self._at + len(self._known), count - len(self._known))
        return self._known[:count]

    def read(self, count: int) -> bytes:
        data = self.peek(count)
        self._known = self._known[len(data) :]
        self._at += len(data)
        if _DIGITS(data):
            raise ValueError("it has more than 1024 digits in a row")
        return data
