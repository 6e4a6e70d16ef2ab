"""Whether a shard is still the one that was indexed, without reading all of it.

Size and time of the last change are one question to the file system, and where both are as they were the shard is taken for
unchanged, as make and rsync do. A copy on another machine has another time: there its size and a hash of a few of its blocks
decide. An edit that keeps the size, misses these blocks and comes with another time looks like such a copy to `changed`;
`Fingerprint` itself holds the time, and updating an index compares all of it.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import NamedTuple

from patchpack.errors import SourceError

_SPOTS = 8
_SPOT_BYTES = 4096
_TAIL_BYTES = 12 * 1024  # tar files end in up to 10 kB of zeros


class Fingerprint(NamedTuple):
    """Of a shard.

    Attributes:
        num_bytes: size of the file.
        mtime_ns: when it was changed last.
        digest: hexadecimal BLAKE2b of its first 4 kB, its last 12 kB and 4 kB at seven places evenly between.
    """

    num_bytes: int
    mtime_ns: int
    digest: str


def fingerprint(path: str) -> Fingerprint:
    """Of a file as it is now. Raises `SourceError` if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            hashed = blake2b(digest_size=16)
            for begin, count in _spots(status.st_size):
                file.seek(begin)
                hashed.update(file.read(count))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
    return Fingerprint(status.st_size, status.st_mtime_ns, hashed.hexdigest())


def _spots(num_bytes: int) -> list[tuple[int, int]]:
    if num_bytes <= _SPOTS * _SPOT_BYTES + _TAIL_BYTES:
        return [(0, num_bytes)]
    tail = num_bytes - _TAIL_BYTES
    return [(i * tail // _SPOTS, _SPOT_BYTES) for i in range(_SPOTS)] + [(tail, _TAIL_BYTES)]


def changed(path: str, known: Fingerprint) -> str:
    """What is different about a file, "" for nothing."""
    try:
        status = os.stat(path)
        if status.st_size != known.num_bytes:
            return f"has {status.st_size:,} bytes and had {known.num_bytes:,}"
        if status.st_mtime_ns == known.mtime_ns or fingerprint(path).digest == known.digest:
            return ""
    except FileNotFoundError:
        return "is missing"
    except (OSError, SourceError) as error:
        return f"cannot be read ({error})"
    return "has other contents"
