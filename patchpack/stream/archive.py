"""The members of a tar file, one after another, from any file object; what a broken one loses is named.

The standard library takes its time over a header, so it is asked once for all headers that differ only in name, size, date and
checksum: what they share is remembered, and the rest is read here. So are pax headers that only date their file (webdataset's
own writer puts one before every member) or name it, and GNU's long names. A test compares the members with the standard
library's.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zlib import adler32

from patchpack.stream.tape import BLOCK, CHUNK, Tape

UNREADABLE = (OSError, EOFError, tarfile.TarError)
HELD_BYTES = 1 << 30  # largest member whose bytes are kept: 16 bytes for each of 64 million pixels

_END = bytes(BLOCK)
_HEADER_BYTES = 1 << 16  # largest header, with its records and long names
_RECORDS_BYTES = 1 << 12  # largest pax header read here
_SHAPES = 64  # kinds of headers remembered

_DIGITS = re.compile(rb"[0-9]{1025}").search  # in no name of a file; older Pythons take 15 s over 64 kB of them (CVE-2024-6232)
_DATED = re.compile(rb"(([0-9]{2}) mtime=[0-9.]+\n)\0*").fullmatch
_RECORD = re.compile(rb"([0-9]{1,5}) ([^=\n]+)=").match
_NO_MATTER = {b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname", b"comment"}


_NOT_FILES = {
    tarfile.LNKTYPE: "a hard link to {}, which is not followed (tar --hard-dereference stores the file)",
    tarfile.SYMTYPE: "a symbolic link to {}, which is not followed (tar --dereference stores the file)",
    tarfile.CHRTYPE: "a device, which is not read",
    tarfile.BLKTYPE: "a device, which is not read",
    tarfile.FIFOTYPE: "a pipe, which is not read",
}


class Member(NamedTuple):
    """One member of a tar that is no folder: a regular file, or what stands in a file's place and has a fault."""

    name: str
    where: tuple[int, int]  # offset, length
    data: bytes | None = None  # held only where the file cannot seek
    fault: str = ""  # why its bytes cannot be had


class CutError(tarfile.ReadError):
    """The file ends inside a member."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"ends inside {name} ({why})")
        self.name = name


def read_members(tape: Tape, held: Callable[[str, int], bool] | None = None) -> Iterator[Member]:
    """The members of a tar in order, until its end marker. Folders are passed over; links, devices and the like have a fault.

    Args:
        tape: where it is read from.
        held: of which (name, bytes) `Member.data` is wanted; None for none at all.

    Raises:
        CutError: the file ends inside a member, which is named.
        tarfile.ReadError: a block that is no header, an end without an end marker, or something behind it, by its offset.
        OSError, EOFError: the file cannot be read on.
    """
    read = tape.read
    shapes: dict[bytes, _Shape] = {}
    shared: dict[str, str] = {}  # what pax headers said of all that follows
    front, before = b"", None
    at = 0
    while (block := read(at, BLOCK)) != _END:
        fault, begin, known = "", at + BLOCK, block
        if shared:
            parsed = None
        elif block == front:  # pax headers repeat to the byte where their records are of one length
            parsed = before
        else:
            parsed = _parse(block, shapes)
        if parsed is not None and parsed[0] not in b"0\0":
            front, before = block, parsed
            more = _behind(read, begin, parsed[2])
            known, begin = block + more, begin + len(more)
            parsed = _named(parsed, more, shapes)
        if parsed is not None:
            _, name, size = parsed
            regular, stop = True, begin + size
            following = stop + -size % BLOCK
        else:
            info, following = _unusual(read, at, known, shared)
            name, begin, size, regular = info.name, info.offset_data, info.size, info.isreg()
            stop = begin + size if regular else following
            if info.issparse():
                fault, stop = f"{name} is stored with holes (a sparse file), which is not read", following
            elif not regular and not info.isdir():
                what = _NOT_FILES.get(info.type, f"of a kind that is not read ({info.type!r})")
                fault = f"{name} is {what.format(info.linkname)}"
        data = None
        if held is not None and regular and not fault and held(name, size):
            if size > HELD_BYTES:
                fault = f"{name} has {size} bytes, at most {HELD_BYTES} are read from a stream"
            else:
                data = _data(read, name, begin, size)
        if data is None and stop > tape.end:
            _pass(tape, name, size, stop)
        if regular or fault:
            yield Member(name, (begin, size), data, fault)
        at = following
    _check_rest(read, at + BLOCK)


def _data(read: Callable[[int, int], bytes], name: str, begin: int, size: int) -> bytes:
    try:
        data = read(begin, size)
    except UNREADABLE as error:
        raise CutError(name, str(error)) from None
    if len(data) != size:
        raise CutError(name, f"it announces {size} bytes, {len(data)} are there")
    return data


def _pass(tape: Tape, name: str, size: int, stop: int) -> None:
    try:
        there = size - (stop - tape.reach(stop))
    except UNREADABLE as error:
        raise CutError(name, str(error)) from None
    if there != size:
        raise CutError(name, f"it announces {size} bytes, {max(0, there)} are there")


def _check_rest(read: Callable[[int, int], bytes], at: int) -> None:
    """Nothing but zeros may stand behind the end marker."""
    begin = at
    while chunk := read(at, CHUNK):
        if chunk != bytes(len(chunk)):
            raise tarfile.ReadError(
                f"goes on after its end marker at byte {begin - BLOCK} (tar files put together?), what follows was not read"
            )
        at += len(chunk)


class _Shape(NamedTuple):
    """What headers of one kind share."""

    type: bytes
    prefix: str  # of the name
    rest: int  # sum of the bytes from the type on, and of the checksum's own place


_Parsed = tuple[bytes, str, int]  # type, name, size


def _behind(read: Callable[[int, int], bytes], at: int, size: int) -> bytes:
    """The records or the long name behind a header, and the header behind them."""
    return read(at, size + -size % BLOCK + BLOCK) if size <= _RECORDS_BYTES else b""


def _named(before: _Parsed, more: bytes, shapes: dict[bytes, _Shape]) -> _Parsed | None:
    """A file's header with what stands before it, if both are ordinary; see `_behind`."""
    kind, _, size = before
    own = _parse(more[-BLOCK:], shapes)
    if own is None or own[0] not in b"0\0":
        return None
    path = _pax_path(more[:-BLOCK], size) if kind == b"x" else _long_name(more[:-BLOCK])
    if path is None:
        return None
    return own[0], path or own[1], own[2]


def _parse(block: bytes, shapes: dict[bytes, _Shape]) -> _Parsed | None:
    """(type, name, size) of a header as most are; None where the standard library has to look."""
    shape = shapes.get(block[100:124] + block[154:])
    if shape is None:
        shape = _learn(block, shapes)
        if shape is None:
            return None
    kind, prefix, rest = shape
    # the low half of Adler-32 is 1 + the sum of the bytes, exact for as many as 256; their sum in Python takes 4 times as long
    if b"%06o" % ((adler32(block[:148]) & 0xFFFF) - 1 + rest) != block[148:154]:
        return None
    numbers = block[124:135] + block[136:147]  # size, and a date, as one that is none makes no header
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


def _learn(block: bytes, shapes: dict[bytes, _Shape]) -> _Shape | None:
    """Remember what a header shares with others of its kind, if it is of a kind that is read here."""
    try:
        kind = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").type
    except (tarfile.TarError, ValueError):
        return None
    if kind not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME) or block[156:157] != kind:
        return None
    if block[154:156].strip(b"\0 "):  # digits of the checksum
        return None
    prefix = block[345:500].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    shape = _Shape(kind, prefix and prefix + "/", sum(block[156:]) + 8 * ord(" "))
    if len(shapes) >= _SHAPES:
        shapes.clear()
    shapes[block[100:124] + block[154:]] = shape
    return shape


def _pax_path(records: bytes, size: int) -> str | None:
    """The name that a pax header gives, "" for none; None where it says more, or is not written as it should be."""
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


def _unusual(read: Callable[[int, int], bytes], at: int, known: bytes, shared: dict[str, str]) -> tuple[tarfile.TarInfo, int]:
    """A header as the standard library reads it, and where the next one begins."""
    file: Any = _Ahead(read, at, known)
    tar = tarfile.TarFile(fileobj=file, tarinfo=_TarHeader, encoding="utf-8", pax_headers=shared)
    info = tar.next()
    if info is None or tar.offset <= at:  # a step back would never end
        raise tarfile.ReadError(f"no valid header at byte {at} (it announces less than nothing), what follows was not read")
    return info, tar.offset


class _TarHeader(tarfile.TarInfo):
    """A tar header, or a `tarfile.ReadError` that says why there is none.

    The standard library takes every block that is no header for the end of the archive, in silence.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        begin = tar.offset
        try:
            _require_records(tar.fileobj)
            info = super().fromtarfile(tar)
        except (tarfile.EOFHeaderError, tarfile.ReadError, OSError, EOFError):  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            lost = f"no end marker at byte {begin}, what followed is lost" if begin else "it is empty"
            raise tarfile.ReadError(lost) from None
        except Exception as error:
            raise tarfile.ReadError(f"no valid header at byte {begin} ({error}), what follows was not read") from None
        if info.size < 0:
            raise tarfile.ReadError(f"{info.name} announces {info.size} bytes, what follows was not read")
        return info


def _require_records(file: Any) -> None:
    """Raise `ValueError` where the next header is of pax and its records are none: many a Python passes over the rest of them.

    A name may stand there, and without it the member would go by another one.
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
            raise ValueError(f"its records announce {records[record.end() : stop - 1]!r} bytes")
        at = stop


class _Ahead:
    """A header's bytes as a file for the standard library: what is known of them, then what the tape holds; not endless."""

    def __init__(self, read: Callable[[int, int], bytes], at: int, known: bytes) -> None:
        self._read_at, self._at, self._known = read, at, known
        self._limit = at + _HEADER_BYTES

    def tell(self) -> int:
        return self._at

    def peek(self, count: int) -> bytes:
        if not 0 <= count <= self._limit - self._at:
            raise ValueError(f"it takes {count} bytes more, a header has at most {_HEADER_BYTES}")
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
