"""In which order the samples of an index come in one epoch: shards permuted, then samples within blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack.errors import ConfigError
from patchpack.rng import Stage

MOST_SAMPLES = 1 << 40
SHUFFLE_BLOCK = 1024
"""Headers permuted at a time under ``shuffle=True``, where a source is not permuted as a whole."""

_TOGETHER = 1 << 16  # samples of small blocks that are permuted at a time


def require_shuffle(shuffle: Any) -> None:
    """Raise `ConfigError` for what is no number of samples permuted at a time."""
    if isinstance(shuffle, bool) or not isinstance(shuffle, (int, np.integer)) or not 0 <= shuffle <= MOST_SAMPLES:
        raise ConfigError(
            f"shuffle is the number of samples permuted at a time, 0 … {MOST_SAMPLES} (0 for none), got {shuffle!r}"
        )


def block_of(shuffle: Any, whole: int = SHUFFLE_BLOCK) -> int:
    """How many samples are permuted at a time, of what a user gives for ``shuffle``.

    Args:
        shuffle: True, False (0), or the number itself.
        whole: what True means.

    Raises:
        ConfigError: anything else.
    """
    if isinstance(shuffle, (bool, np.bool_)):
        return max(1, whole) if shuffle else 0
    if not isinstance(shuffle, (int, np.integer)):
        raise ConfigError(f"shuffle is True, False, or the number of samples permuted at a time (0 for none), got {shuffle!r}")
    return int(shuffle)


def shuffled_lines(starts: npt.NDArray[np.int64], *, seed: int, epoch: int, shuffle: int, number: int = 0) -> npt.NDArray[Any]:
    """Return the lines of an index in the order of one pass, the same as of a source without rejections.

    Args:
        starts: int64 ``[shards + 1]``; the samples of shard s are the lines ``starts[s]:starts[s + 1]``.
        seed, epoch: of the draws.
        shuffle: 0 for the order of the index; else shards are permuted, and samples in blocks of this many.
        number: of the pass within the epoch.

    Returns:
        int32 ``[n]`` (int64 from 2**31 lines on), each of ``0 … n − 1`` once.
    """
    n = int(starts[-1])
    dtype = np.int32 if n < 1 << 31 else np.int64
    if not shuffle:
        return np.arange(n, dtype=dtype)
    first = number << 40
    shards = rng.permutation(seed, epoch, Stage.SHARDS, first, len(starts) - 1)
    counts = np.diff(starts)[shards]
    shift = starts[:-1][shards] - (np.cumsum(counts) - counts)
    lines = np.repeat(shift.astype(dtype), counts)
    lines += np.arange(n, dtype=dtype)
    together = shuffle * max(1, _TOGETHER // shuffle)
    for start in range(0, n, together):
        part = lines[start : start + together]
        part[:] = part[rng.permutation(seed, epoch, Stage.HEADERS, first + start, len(part), block=shuffle)]
    return lines
