"""The members of a tar file, one after another, from any file object; what a broken one loses is named.

Headers of ordinary files are read here: a regular expression and a checksum, a tenth of what the standard library takes. So
are pax headers that only date their file (webdataset's own writer puts one before every member) or name it, and GNU's long
names. Every other header is the standard library's to read, and both read the same (a test compares).
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol
from zlib import adler32

UNREADABLE = (OSError, EOFError, tarfile.TarError)
HELD_BYTES = 1 << 30  # largest member whose bytes are kept: 16 bytes for each of 64 million pixels

_BLOCK = 512
_END = bytes(_BLOCK)
_CHUNK = 1 << 20
_HEADER_BYTES = 1 << 16  # largest header, with its records and long names
_RECORDS_BYTES = 1 << 12  # largest pax header read here
_STREAM_BUFFER = 1 << 16

# what tar writers put into a number field: digits, and NUL or space behind them; anything else goes to the standard library
_NUMBER = rb"[0-7]{6}[0-7 ][ \0]"
_HEADER = re.compile(
    rb"(?s)(?=([^\0]{1,100})).{100}"  # name
    + 3 * _NUMBER  # mode, uid, gid
    + rb"([0-7]{11})[ \0]"  # size
    + rb"[0-7]{11}[ \0]"  # mtime
    + rb"([0-7]{6})[ \0]{2}"  # checksum
    + rb"([0\0xL])"  # type: regular file (new and old), pax header, GNU long name
    + rb".{172}"  # link name, magic, names of owners
    + rb"(?:%b|\0{8}){2}" % _NUMBER  # device
    + rb"([^\0]{0,155})"  # prefix of the name
).match
_RECORD = re.compile(rb"([0-9]{1,4}) ([^=\n]+)=").match
_NO_MATTER = {b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname", b"comment"}


class Member(NamedTuple):
    """One regular file of a tar."""

    name: str
    where: tuple[int, int]  # offset, length
    data: bytes | None = None  # held only where the file cannot seek
    fault: str = ""  # why its bytes cannot be had


class CutError(tarfile.ReadError):
    """The file ends inside a member."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"ends inside {name} ({why})")
        self.name = name


class Tape(Protocol):
    """A tar file as it is read: forwards."""

    def read(self, at: int, count: int) -> bytes:
        """`count` bytes at offset `at`, fewer only where the file ends."""
        ...

    def missing(self, at: int) -> int:
        """Bytes that the file lacks to reach offset `at`, 0 if none."""
        ...


class SeekableTape:
    """A file that can be read anywhere. Reading it elsewhere in between does no harm."""

    def __init__(self, file: BinaryIO) -> None:
        self._end = file.seek(0, io.SEEK_END)
        self._seek, self._read = file.seek, file.read

    def read(self, at: int, count: int) -> bytes:
        """See `Tape`."""
        self._seek(at)
        return self._read(count)

    def missing(self, at: int) -> int:
        """See `Tape`."""
        return max(0, at - self._end)


class StreamTape:
    """A file read once from its beginning; gzip, bzip2 and xz are known by their first bytes."""

    def __init__(self, file: Any) -> None:
        self._read = _decompressed(file).read
        self._at = 0

    def read(self, at: int, count: int) -> bytes:
        """See `Tape`. `at` must not lie behind the end of the last read."""
        gap = at - self._at
        if gap < 0:
            raise ValueError(f"a stream at byte {self._at} cannot be read at {at}")
        if gap >= _BLOCK:
            if self.missing(at):
                return b""
            gap = 0
        count += gap
        data = self._pull(count) if count <= _CHUNK else self._pull_parts(count)
        self._at += len(data)
        return data[gap:] if gap else data

    def missing(self, at: int) -> int:
        """See `Tape`. Reads up to there."""
        while at > self._at:
            part = self._pull(min(_CHUNK, at - self._at))
            if not part:
                break
            self._at += len(part)
        return max(0, at - self._at)

    def _pull_parts(self, count: int) -> bytes:  # announced is not there: memory is taken as it comes
        parts = []
        while count and (part := self._pull(min(count, _CHUNK))):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _pull(self, count: int) -> bytes:
        try:
            data: bytes = self._read(count)
            return data
        except (OSError, EOFError):
            raise
        except Exception as error:  # zlib.error, lzma.LZMAError
            raise tarfile.ReadError(f"{type(error).__name__}: {error}") from None


def read_members(tape: Tape, held: Callable[[str], bool] | None = None) -> Iterator[Member]:
    """The regular files of a tar in order, until its end marker; folders, links and devices are passed over.

    Args:
        tape: where it is read from.
        held: of which names `Member.data` is wanted; None for no name at all.

    Raises:
        CutError: the file ends inside a member, which is named.
        tarfile.ReadError: a block that is no header, an end without an end marker, or something behind it, by its offset.
        OSError, EOFError: the file cannot be read on.
    """
    read, missing = tape.read, tape.missing
    shared: dict[str, str] = {}  # what pax headers said of all that follows
    at = 0
    while (block := read(at, _BLOCK)) != _END:
        fault = ""
        ordinary, known = (None, block) if shared else _ordinary(read, at, block)
        if ordinary is not None:
            name, begin, size = ordinary
            regular, stop = True, begin + size
            following = stop + -size % _BLOCK
        else:
            info, following = _unusual(read, at, known, shared)
            name, begin, size, regular = info.name, info.offset_data, info.size, info.isreg()
            stop = begin + size if regular else following
            if info.issparse():
                fault, stop = f"{name} is stored with holes (a sparse file), which is not read", following
        data = None
        if regular and not fault and held is not None and held(name):
            if size > HELD_BYTES:
                fault = f"{name} has {size} bytes, at most {HELD_BYTES} are read from a stream"
            else:
                data = _data(read, name, begin, size)
        if data is None:
            try:
                lack = missing(stop)
            except UNREADABLE as error:
                raise CutError(name, str(error)) from None
            if lack:
                raise CutError(name, f"it announces {size} bytes, {max(0, size - lack)} are there")
        if regular:
            yield Member(name, (begin, size), data, fault)
        at = following
    _check_rest(read, at + _BLOCK)


def _data(read: Callable[[int, int], bytes], name: str, begin: int, size: int) -> bytes:
    try:
        data = read(begin, size)
    except UNREADABLE as error:
        raise CutError(name, str(error)) from None
    if len(data) != size:
        raise CutError(name, f"it announces {size} bytes, {len(data)} are there")
    return data


def _check_rest(read: Callable[[int, int], bytes], at: int) -> None:
    """Nothing but zeros may stand behind the end marker."""
    begin = at
    while chunk := read(at, _CHUNK):
        if chunk != bytes(len(chunk)):
            raise tarfile.ReadError(
                f"goes on after its end marker at byte {begin - _BLOCK} (tar files put together?), what follows was not read"
            )
        at += len(chunk)


def _ordinary(read: Callable[[int, int], bytes], at: int, block: bytes) -> tuple[tuple[str, int, int] | None, bytes]:
    """(name, offset, size) of an ordinary file, None for anything else; and what was read of its header."""
    parsed = _parse(block)
    if parsed is None:
        return None, block
    kind, name, size = parsed
    begin = at + _BLOCK
    if kind in b"0\0":
        return (name, begin, size), block
    if size > _RECORDS_BYTES:
        return None, block
    padded = size + -size % _BLOCK
    more = read(begin, padded + _BLOCK)
    path = _pax_path(more[:padded], size) if kind == b"x" else _long_name(more[:padded])
    parsed = _parse(more[padded:]) if path is not None else None
    if parsed is None or parsed[0] not in b"0\0":
        return None, block + more
    return (path or parsed[1], begin + len(more), parsed[2]), block


def _parse(block: bytes) -> tuple[bytes, str, int] | None:
    """(type, name, size) of a header as most are; None where the standard library has to look."""
    found = _HEADER(block)
    if found is None or len(block) != _BLOCK:
        return None
    name, size, checksum, kind, prefix = found.groups()
    # the low half of Adler-32 is 1 + the sum of the bytes, exact for as many as 256; their sum in Python takes 4 times as long
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    if int(checksum, 8) != total - sum(block[148:156]) + 8 * 32:
        return None
    text = name.decode("utf-8", "surrogateescape")
    if prefix:
        text = prefix.decode("utf-8", "surrogateescape") + "/" + text
    if text.endswith("/"):  # a folder, in the oldest archives
        return None
    return kind, text, int(size, 8)


def _pax_path(records: bytes, size: int) -> str | None:
    """The name that a pax header gives, "" for none; None where it says more, or is not written as it should be."""
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


class _Ahead:
    """A header's bytes as a file for the standard library: what is known of them, then what the tape holds; not endless."""

    def __init__(self, read: Callable[[int, int], bytes], at: int, known: bytes) -> None:
        self._read_at, self._at, self._known = read, at, known
        self._limit = at + _HEADER_BYTES

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._limit - self._at:
            raise ValueError(f"it takes {count} bytes more, a header has at most {_HEADER_BYTES}")
        data, self._known = self._known[:count], self._known[count:]
        if len(data) < count:
            data += self._read_at(self._at + len(data), count - len(data))
        self._at += len(data)
        return data


def _decompressed(file: Any) -> Any:
    """A stream of tar blocks; whole reads whatever the object does, in C."""
    file = io.BufferedReader(_Raw(file), _STREAM_BUFFER)
    start = file.peek(10)[:10]
    try:
        if start[:3] == b"\x1f\x8b\x08":
            from gzip import GzipFile

            return GzipFile(fileobj=file)
        if start[:3] == b"BZh" and start[4:10] == b"1AY&SY":
            from bz2 import BZ2File

            return BZ2File(file)
        if start[:6] == b"\xfd7zXZ\0" or start[:4] == b"\x5d\0\0\x80":
            from lzma import LZMAFile

            return LZMAFile(file)
    except ImportError as error:
        raise tarfile.ReadError(f"is compressed in a way that this Python was built without ({error})") from None
    return file


class _Raw(io.RawIOBase):
    """Any object with a ``read``, as the standard library wants it."""

    def __init__(self, file: Any) -> None:
        self._read = getattr(file, "stream", file).read  # gopen's pipe asks for the command's state at every read; closing does

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        done = 0
        while done < len(buffer) and (data := self._read(len(buffer) - done)):
            buffer[done : done + len(data)] = data
            done += len(data)
        return done
