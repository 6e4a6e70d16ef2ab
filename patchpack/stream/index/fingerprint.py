"""The check that a shard has not changed since it was indexed. Only a few blocks of the shard are read.

The first check asks the file system once for the size and the version of the shard. The version of a local file is the time of
its last change. The version of a remote file is an ETag or another value that its file system reports. If size and version are
both equal, the shard counts as unchanged. make and rsync use the same rule. If only the version differs, as after copying, a
hash of a few blocks decides. So `changed` does not notice an edit that keeps the size and changes only other blocks.

When an index is updated, the function `unchanged` is called, which also requires an equal version.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from patchpack.errors import SourceError
from patchpack.stream.tar.remote import RemoteFile
from patchpack.stream.tar.urls import is_local

_PARTS = 8
_PART_BYTES = 4096
_TAIL_BYTES = 12 * 1024  # tar files end in up to 10 kB of zeros
_AT_A_TIME = 16  # requests to the servers of remote shards at the same time

Answer = TypeVar("Answer")


class Fingerprint(NamedTuple):
    """The fingerprint of a shard.

    Attributes:
        num_bytes: size of the file.
        version: for a local file the time of its last change in ns, for a remote file the version that its file system reports.
            See `patchpack.stream.tar.remote.Status`.
        digest: hexadecimal BLAKE2b of the first 4 kB of the file, the last 12 kB, and 4 kB at each of seven evenly spaced
            positions between these.
    """

    num_bytes: int
    version: int | str
    digest: str


def status_of(url: str) -> tuple[int, int | str]:
    """Request the current size and version of a file. Raises `OSError` or `SourceError` if there is no answer."""
    if not is_local(url):
        return RemoteFile(url).status()
    status = os.stat(url)
    return status.st_size, status.st_mtime_ns


def fingerprint(url: str) -> Fingerprint:
    """Return the current fingerprint of a file. Raises `SourceError` if it cannot be read."""
    try:
        if not is_local(url):
            remote = RemoteFile(url)
            num_bytes, version = remote.status()
            return Fingerprint(num_bytes, version, _hashed(remote.read(*part) for part in _parts(num_bytes)))
        with open(url, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())

            def read(begin: int, count: int) -> bytes:
                file.seek(begin)
                return file.read(count)

            digest = _hashed(read(*part) for part in _parts(status.st_size))
    except OSError as error:
        raise SourceError(f"{url} cannot be read: {type(error).__name__}: {error}") from None
    return Fingerprint(status.st_size, status.st_mtime_ns, digest)


def _hashed(pieces: Iterable[bytes]) -> str:
    hashed = blake2b(digest_size=16)
    for piece in pieces:
        hashed.update(piece)
    return hashed.hexdigest()


def _parts(num_bytes: int) -> list[tuple[int, int]]:
    if num_bytes <= _PARTS * _PART_BYTES + _TAIL_BYTES:
        return [(0, num_bytes)]
    tail = num_bytes - _TAIL_BYTES
    return [(i * tail // _PARTS, _PART_BYTES) for i in range(_PARTS)] + [(tail, _TAIL_BYTES)]


def changed(url: str, known: Fingerprint) -> str:
    """Return how a file differs from its fingerprint, as text. Return "" if there is no difference."""
    try:
        num_bytes, version = status_of(url)
        if num_bytes != known.num_bytes:
            return f"has {num_bytes:,} bytes, but had {known.num_bytes:,}"
        if (version != "" and version == known.version) or fingerprint(url).digest == known.digest:
            return ""
    except FileNotFoundError:
        return "is missing"
    except (OSError, SourceError) as error:
        return f"cannot be read ({error})"
    return "has other contents"


def unchanged(url: str, known: Fingerprint) -> bool:
    """Return True if the contents and the version of a file are unchanged.

    An update of an index need not read such a file again.

    Raises:
        SourceError: the file cannot be read.
    """
    if is_local(url):
        return fingerprint(url) == known
    try:  # a version that identifies the contents needs no second check
        return (status := status_of(url)) == known[:2] and status[1] != ""
    except FileNotFoundError:
        return False


def ask_each(question: Callable[[str, Fingerprint], Answer], shards: Sequence[tuple[str, Fingerprint]]) -> list[Answer]:
    """Call `question` for each shard and return the answers in order. Several requests to remote shards run at a time."""
    if all(is_local(url) for url, _ in shards):
        return [question(url, known) for url, known in shards]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(question, *zip(*shards, strict=True)))
