"""Files behind URLs, read by ranges: what fsspec's file systems (S3, GCS, HTTP, …) are asked for, and nothing more.

fsspec is imported where a URL is to be read by offset, and not before: local shards need none of it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from patchpack.errors import ConfigError, SourceError

FIRST_BYTES = 1 << 14
"""Asked for at least: labels, the header of the next image and its start lie together."""

MOST_BYTES = 1 << 20
"""Asked for at most ahead of what is wanted, where samples are so small that everything is read."""

_SKIPPED_BYTES = 1 << 15  # fewer are read along: a request costs more than they do
_WINDOWS = 8  # the start of an image is looked at once its sample is whole, behind the members that follow it

# what file systems call the version of a file's contents, the surest first; without case, - and _
_VERSIONS = (
    "etag", "contentmd5", "md5hash", "md5checksum", "sha256", "md5", "crc32c", "blobid", "generation", "versionid",
    "lastmodified", "mtime", "modified", "updated", "modifiedtime", "modificationtime", "created",
)  # fmt: skip


class Status(NamedTuple):
    """What a file system says of a file.

    Attributes:
        num_bytes: its size.
        version: of its contents, as ``etag=…``, ``mtime=…``; "" if nothing is said. fsspec's own ``ukey`` will not do: for HTTP
            it is a hash of the URL, for most others one of everything that is said, whatever it is about.
    """

    num_bytes: int
    version: str


class RemoteFile:
    """A file behind a URL. Threads may share it; a process that is forked makes a file system of its own.

    Args:
        url: anything fsspec opens.

    Raises:
        ConfigError: fsspec is not installed, or not what it needs for this URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._of: tuple[int, Any, str] = (os.getpid(), *_file_system(url))

    def status(self) -> Status:
        """Asks anew every time.

        Raises:
            FileNotFoundError: it is not there.
            SourceError: the file system cannot say, or does not know the size.
        """
        fs, path = self._here()
        with _named(self._url, missing=True):
            fs.invalidate_cache(path)  # what a listing said earlier
            info = fs.info(path)
        size = info.get("size")
        if info.get("type") == "directory" or size is None:
            what = "is a folder" if size is not None else "has no size that its server tells"
            raise SourceError(f"{self._url} {what}: only a file that can be read by offset will do")
        said = {name.lower().replace("-", "").replace("_", ""): value for name, value in info.items()}
        found = next((name for name in _VERSIONS if said.get(name)), None)
        return Status(int(size), f"{found}={said[found]}" if found else "")

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``, in one request. Raises `SourceError` if they cannot be had."""
        if not length:
            return b""
        fs, path = self._here()
        with _named(self._url):
            data: bytes = fs.cat_file(path, start=offset, end=offset + length)
        if len(data) > length:
            raise SourceError(
                f"{self._url}: its server sent {len(data)} bytes where {length} were asked for: it knows no ranges"
            )
        if len(data) < length:
            raise SourceError(f"{self._url} has changed: {len(data)} of {length} bytes at {offset}")
        return data

    def _here(self) -> tuple[Any, str]:
        pid, fs, path = self._of
        if pid != os.getpid():  # its connections and its thread are the parent's
            self._of = (os.getpid(), *_file_system(self._url))
            _, fs, path = self._of
        return fs, path


class RangeReader:
    """A `patchpack.stream.tar.byte_reader.ByteReader` over ranges: windows, of which the latest are kept.

    Behind a member that is skipped a window is `FIRST_BYTES`. Where little is skipped, the next one begins where the last one
    ends, is twice as long, up to `MOST_BYTES`, and takes the end of the last one along, so that no byte is asked for twice.

    Args:
        fetch: ``(offset, length)`` to exactly that many bytes.
        num_bytes: of the file.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], num_bytes: int) -> None:
        self.end = num_bytes
        self._fetch = fetch
        self._front: tuple[int, bytes] = (0, b"")  # the furthest window
        self._behind: deque[tuple[int, bytes]] = deque(maxlen=_WINDOWS)
        self._ahead = FIRST_BYTES

    def read(self, at: int, count: int) -> bytes:
        """See `ByteReader`."""
        count = min(count, self.end - at)
        if count <= 0:
            return b""
        for begin, data in (self._front, *self._behind):
            if begin <= at and at + count <= begin + len(data):
                return data[at - begin : at - begin + count]
        last, known = self._front
        reached = last + len(known)
        if at < last:  # a look back moves nothing
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
        if len(data) <= 2 * MOST_BYTES:  # a whole picture is looked at once
            self._behind.append(self._front)
            self._front = (begin, data)
        return data[at - begin : at - begin + count]

    def reach(self, at: int) -> int:
        """See `ByteReader`."""
        return min(at, self.end)


def expand(pattern: str) -> list[str]:
    """The URLs that a pattern with ``*`` matches, sorted; a URL without one as it is.

    Raises:
        SourceError: none does, or the folder cannot be listed.
        ConfigError: as `RemoteFile`.
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
    """The file system and the path in it. fsspec keeps one for each process and its options."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ConfigError(f"{url}: reading URLs by offset needs fsspec: pip install 'patchpack[remote]'") from None
    try:
        fs, path = url_to_fs(url)
    except (ImportError, ValueError) as error:  # the package of this kind is missing, or there is no such kind
        raise ConfigError(f"{url}: fsspec cannot open it: {error}") from None
    return fs, path


@contextmanager
def _named(url: str, missing: bool = False) -> Iterator[None]:
    """File systems raise whatever their libraries do: an account needs one kind, and the URL."""
    try:
        yield
    except FileNotFoundError as error:
        if missing:
            raise
        raise SourceError(f"{url} cannot be read: {type(error).__name__}: {error}") from error
    except Exception as error:
        raise SourceError(f"{url} cannot be read: {type(error).__name__}: {error}") from error
