"""Remote files, read in ranges of bytes with fsspec's file systems (S3, GCS, HTTP, …).

fsspec is imported only when a URL is read by offset. Local shards do not need it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from patchpack.errors import ConfigError, SourceError

FIRST_BYTES = 1 << 14
"""Least bytes of a request: labels, the header of the next image and its start lie together."""

MOST_BYTES = 1 << 20
"""Most bytes that are read ahead, if samples are so small that everything is read."""

_SKIPPED_BYTES = 1 << 15  # fewer unneeded bytes are read along, because a request costs more
_WINDOWS = 8  # the start of an image is read once its sample is complete, after the members that follow it

# names of the version of a file's contents in different file systems, the most reliable first; without case, - and _
_VERSIONS = (
    "etag", "contentmd5", "md5hash", "md5checksum", "sha256", "md5", "crc32c", "blobid", "generation", "versionid",
    "lastmodified", "mtime", "modified", "updated", "modifiedtime", "modificationtime", "created",
)  # fmt: skip


class Status(NamedTuple):
    """The size and version that a file system reports for a file.

    Attributes:
        num_bytes: size in bytes.
        version: version of the contents, as ``etag=…`` or ``mtime=…``. It is "" if the file system reports neither. fsspec's
            own ``ukey`` is not used: for HTTP it is a hash of the URL, and for most other file systems a hash of all reported
            values, which may change although the contents do not.
    """

    num_bytes: int
    version: str


class RemoteFile:
    """A file at a URL. Threads may share the object. A forked process makes its own file system object.

    Args:
        url: a URL that fsspec opens.

    Raises:
        ConfigError: fsspec, or a package that it needs for this URL, is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._of: tuple[int, Any, str] = (os.getpid(), *_file_system(url))

    def status(self) -> Status:
        """Request the size and version of the file. Every call is a new request.

        Raises:
            FileNotFoundError: the file does not exist.
            SourceError: the request failed, or the size is not known.
        """
        fs, path = self._here()
        with _named(self._url, missing=True):
            fs.invalidate_cache(path)  # forgets earlier listings
            info = fs.info(path)
        size = info.get("size")
        if info.get("type") == "directory" or size is None:
            what = "is a folder" if size is not None else "has a server that does not report its size"
            raise SourceError(f"{self._url} {what}: expected a file that can be read by offset")
        said = {name.lower().replace("-", "").replace("_", ""): value for name, value in info.items()}
        found = next((name for name in _VERSIONS if said.get(name)), None)
        return Status(int(size), f"{found}={said[found]}" if found else "")

    def read(self, offset: int, length: int) -> bytes:
        """Read ``length`` bytes at ``offset`` in one request. Raises `SourceError` if the request fails."""
        if not length:
            return b""
        fs, path = self._here()
        with _named(self._url):
            data: bytes = fs.cat_file(path, start=offset, end=offset + length)
        if len(data) > length:
            raise SourceError(
                f"{self._url}: the server sent {len(data)} bytes for a request of {length}: it does not support range requests"
            )
        if len(data) < length:
            raise SourceError(f"{self._url} has changed: it has only {len(data)} of {length} bytes at {offset}")
        return data

    def _here(self) -> tuple[Any, str]:
        pid, fs, path = self._of
        if pid != os.getpid():  # its connections and its thread belong to the parent
            self._of = (os.getpid(), *_file_system(self._url))
            _, fs, path = self._of
        return fs, path


class RangeReader:
    """A `patchpack.stream.tar.byte_reader.ByteReader` that requests windows: ranges of bytes larger than the single reads.

    The latest windows are kept. After a large skipped member, a window has `FIRST_BYTES` bytes. If little is skipped, the next
    window begins at the end of the last window and is twice as long, up to `MOST_BYTES`. The new window also keeps the last
    bytes of the old window, so that no byte is requested twice.

    Args:
        fetch: a function from ``(offset, length)`` to exactly `length` bytes.
        num_bytes: size of the file in bytes.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], num_bytes: int) -> None:
        self.end = num_bytes
        self._fetch = fetch
        self._front: tuple[int, bytes] = (0, b"")  # the furthest window
        self._behind: deque[tuple[int, bytes]] = deque(maxlen=_WINDOWS)
        self._ahead = FIRST_BYTES

    def read(self, at: int, count: int) -> bytes:
        """Read `count` bytes at offset `at`, see `ByteReader`."""
        count = min(count, self.end - at)
        if count <= 0:
            return b""
        for begin, data in (self._front, *self._behind):
            if begin <= at and at + count <= begin + len(data):
                return data[at - begin : at - begin + count]
        last, known = self._front
        reached = last + len(known)
        if at < last:  # an earlier read does not move the window
            data = self._fetch(at, min(max(count, FIRST_BYTES), self.end - at))
            self._behind.append((at, data))
            return data[:count]
        if at <= reached + _SKIPPED_BYTES:
            self._ahead = min(2 * self._ahead, MOST_BYTES)
            begin = min(at, max(last, reached - FIRST_BYTES))
            known = known[begin - last :]
        else:
            self._ahead, begin, reached, known = FIRST_BYTES, at, at, b""
        data = known + self._fetch(reached, min(max(at + count, reached + self._ahead), self.end) - reached)
        if len(data) <= 2 * MOST_BYTES:  # a complete image is read once
            self._behind.append(self._front)
            self._front = (begin, data)
        return data[at - begin : at - begin + count]

    def reach(self, at: int) -> int:
        """Return the smaller of `at` and the end, see `ByteReader`."""
        return min(at, self.end)


def expand(pattern: str) -> list[str]:
    """Return the URLs that match a pattern with ``*``, sorted. A URL without ``*`` is returned unchanged.

    Raises:
        SourceError: no file matches, or the folder cannot be listed.
        ConfigError: fsspec, or a package that it needs, is not installed.
    """
    if "*" not in pattern:
        return [pattern]
    fs, path = _file_system(pattern)
    with _named(pattern):
        found = sorted(fs.unstrip_protocol(name) for name in fs.glob(path))
    if not found:
        raise SourceError(f"no file matches {pattern}")
    return found


def _file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it. fsspec keeps one file system for each process and set of options."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ConfigError(f"{url}: reading URLs by offset needs fsspec: pip install 'patchpack[remote]'") from None
    try:
        fs, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # the package of this kind is missing, or the kind is unknown
        raise ConfigError(f"{url}: fsspec cannot open it: {error}") from None
    return fs, path


@contextmanager
def _named(url: str, missing: bool = False) -> Iterator[None]:
    """Raise a `SourceError` that names the URL in place of any error that a file system library raises."""
    try:
        yield
    except FileNotFoundError as error:
        if missing:
            raise
        raise SourceError(f"{url} cannot be read: {type(error).__name__}: {error}") from error
    except Exception as error:
        raise SourceError(f"{url} cannot be read: {type(error).__name__}: {error}") from error
