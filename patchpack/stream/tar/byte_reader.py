"""Byte readers that read tar files forwards: from a file that can seek, or from any object with ``read``, compressed or not."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

BLOCK = 512
MAGIC_BYTES = 10  # a compression is recognised by its first 10 bytes
CHUNK = 1 << 20  # largest single read, even if a header announces more
_BUFFER = 1 << 16


class ByteReader(Protocol):
    """An object from which `patchpack.stream.tar.members.read_members` reads the bytes of a tar file."""

    end: int  # the file is known to have at least this many bytes

    def read(self, at: int, count: int) -> bytes:
        """Read `count` bytes at offset `at`. Fewer bytes are returned only if the file ends."""
        ...

    def reach(self, at: int) -> int:
        """Return `at`, or the size of the file if that is smaller. Only the bytes up to `at` are examined."""
        ...


class SeekableReader:
    """A byte reader of a file that can seek. Other code may also read the file between two reads."""

    def __init__(self, file: BinaryIO) -> None:
        self.end = file.seek(0, io.SEEK_END)
        self._seek, self._read = file.seek, file.read

    def read(self, at: int, count: int) -> bytes:
        """Read `count` bytes at offset `at`, see `ByteReader`."""
        self._seek(at)
        return self._read(count)

    def reach(self, at: int) -> int:
        """Return the smaller of `at` and the end, see `ByteReader`."""
        return min(at, self.end)


class StreamReader:
    """A byte reader that reads a file once from its beginning. gzip, bzip2 and xz are recognised by their first bytes."""

    end = 0

    def __init__(self, file: BinaryIO) -> None:
        self._read = getattr(file, "stream", file).read  # gopen's pipe checks the command at every read; closing does it too
        self._at = 0
        self._start = b""
        start = self._pull(BLOCK)
        unpacked = _decompressed(start, self._read)
        if unpacked is None:
            self._start = start
        else:
            self._read = unpacked.read

    def read(self, at: int, count: int) -> bytes:
        """Read `count` bytes at offset `at`, see `ByteReader`. `at` must not lie before the end of the last read."""
        gap = at - self._at
        if gap >= BLOCK:
            if self.reach(at) < at:
                return b""
            gap = 0
        data = self._pull(gap + count) if gap + count <= CHUNK else self._pull_parts(gap + count)
        self._at += len(data)
        return data[gap:] if gap else data

    def reach(self, at: int) -> int:
        """Read up to offset `at`. Return `at`, or the size of the file if that is smaller. See `ByteReader`."""
        while self._at < at and (part := self._pull(min(CHUNK, at - self._at))):
            self._at += len(part)
        return self._at

    def _pull_parts(self, count: int) -> bytes:  # the announced bytes may be missing: memory is taken as they arrive
        parts = []
        while count and (part := self._pull(min(count, CHUNK))):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _pull(self, count: int) -> bytes:
        if self._start:
            start, self._start = self._start, b""  # the first block, which is always read first
            return start
        try:
            data: bytes = self._read(count)
            if len(data) < count:
                data += self._rest(count - len(data))
        except (OSError, EOFError):
            raise
        except Exception as error:  # zlib.error, lzma.LZMAError
            raise tarfile.ReadError(f"{type(error).__name__}: {error}") from None
        return data

    def _rest(self, count: int) -> bytes:  # after a read that gave fewer bytes than requested: the end, or a socket
        parts = []
        while count and (part := self._read(count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def compression_of(start: bytes) -> str:
    """Return the extension of a compressed file, from its first bytes. Return "" for any other file."""
    if start[:3] == b"\x1f\x8b\x08":
        return "gz"
    if start[:3] == b"BZh" and start[4:10] == b"1AY&SY":
        return "bz2"
    return "xz" if start[:6] == b"\xfd7zXZ\0" or start[:4] == b"\x5d\0\0\x80" else ""


def _decompressed(start: bytes, read: Callable[[int], bytes]) -> io.BufferedIOBase | None:
    """Return a file of the decompressed bytes of a stream. Return None if the first bytes, `start`, show no compression."""
    raw, kind = _Raw(start, read), compression_of(start)
    try:
        if kind == "gz":
            from gzip import GzipFile

            return GzipFile(fileobj=io.BufferedReader(raw, _BUFFER))
        if kind == "bz2":
            from bz2 import BZ2File

            return BZ2File(io.BufferedReader(raw, _BUFFER))
        if kind == "xz":
            from lzma import LZMAFile

            return LZMAFile(io.BufferedReader(raw, _BUFFER))
    except ImportError as error:
        raise tarfile.ReadError(f"has a compression that this build of Python does not support ({error})") from None
    return None


class _Raw(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, start: bytes, read: Callable[[int], bytes]) -> None:
        self._start, self._read = start, read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self._start = self._start or self._read(len(buffer)), b""
        buffer[: len(data)] = data
        return len(data)
