"""Whether a shard is still the one that was indexed, without reading all of it.

Its size and its version (when it was changed last; behind a URL an ETag, or what else the file system has) are one question to
the file system, and where both are as they were the shard is taken for unchanged, as make and rsync do. A copy elsewhere has
another version: there its size and a hash of a few of its blocks decide. An edit that keeps the size, misses these blocks and
comes with another version looks like such a copy to `changed`; `Fingerprint` itself holds the version, and updating an index
compares that too.
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

_SPOTS = 8
_SPOT_BYTES = 4096
_TAIL_BYTES = 12 * 1024  # tar files end in up to 10 kB of zeros
_AT_A_TIME = 16  # questions to the servers of remote shards

Answer = TypeVar("Answer")


class Fingerprint(NamedTuple):
    """Of a shard.

    Attributes:
        num_bytes: size of the file.
        version: of a local file when it was changed last, in ns; of a remote one what its file system says, see
            `patchpack.stream.tar.remote.Status`.
        digest: hexadecimal BLAKE2b of its first 4 kB, its last 12 kB and 4 kB at seven places evenly between.
    """

    num_bytes: int
    version: int | str
    digest: str


def status_of(url: str) -> tuple[int, int | str]:
    """Size and version now, one question. Raises `OSError` or `SourceError` where there is no answer."""
    if not is_local(url):
        return RemoteFile(url).status()
    status = os.stat(url)
    return status.st_size, status.st_mtime_ns


def fingerprint(url: str) -> Fingerprint:
    """Of a file as it is now. Raises `SourceError` if it cannot be read."""
    try:
        if not is_local(url):
            remote = RemoteFile(url)
            num_bytes, version = remote.status()
            return Fingerprint(num_bytes, version, _hashed(remote.read(*spot) for spot in _spots(num_bytes)))
        with open(url, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())

            def read(begin: int, count: int) -> bytes:
                file.seek(begin)
                return file.read(count)

            digest = _hashed(read(*spot) for spot in _spots(status.st_size))
    except OSError as error:
        raise SourceError(f"{url} cannot be read: {type(error).__name__}: {error}") from None
    return Fingerprint(status.st_size, status.st_mtime_ns, digest)


def _hashed(pieces: Iterable[bytes]) -> str:
    hashed = blake2b(digest_size=16)
    for piece in pieces:
        hashed.update(piece)
    return hashed.hexdigest()


def _spots(num_bytes: int) -> list[tuple[int, int]]:
    if num_bytes <= _SPOTS * _SPOT_BYTES + _TAIL_BYTES:
        return [(0, num_bytes)]
    tail = num_bytes - _TAIL_BYTES
    return [(i * tail // _SPOTS, _SPOT_BYTES) for i in range(_SPOTS)] + [(tail, _TAIL_BYTES)]


def changed(url: str, known: Fingerprint) -> str:
    """What is different about a file, "" for nothing."""
    try:
        num_bytes, version = status_of(url)
        if num_bytes != known.num_bytes:
            return f"has {num_bytes:,} bytes and had {known.num_bytes:,}"
        if (version != "" and version == known.version) or fingerprint(url).digest == known.digest:
            return ""
    except FileNotFoundError:
        return "is missing"
    except (OSError, SourceError) as error:
        return f"cannot be read ({error})"
    return "has other contents"


def unchanged(url: str, known: Fingerprint) -> bool:
    """True where an update need not read a file again: nothing is different, its version neither.

    Raises:
        SourceError: it cannot be read.
    """
    if is_local(url):
        return fingerprint(url) == known
    try:  # what names its contents needs no second look
        return (status := status_of(url)) == known[:2] and status[1] != ""
    except FileNotFoundError:
        return False


def ask_each(question: Callable[[str, Fingerprint], Answer], shards: Sequence[tuple[str, Fingerprint]]) -> list[Answer]:
    """`changed` or `unchanged` of each, in order. Remote ones are asked several at a time: an answer is mostly waiting."""
    if all(is_local(url) for url, _ in shards):
        return [question(url, known) for url, known in shards]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(question, *zip(*shards, strict=True)))
