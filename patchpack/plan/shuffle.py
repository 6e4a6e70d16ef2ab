"""The order of an index's samples in one epoch: the shards are permuted, then the samples within blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack._arrays import LineArray
from patchpack.errors import ConfigError
from patchpack.rng import Stage

MOST_SAMPLES = 1 << 40
SHUFFLE_BLOCK = 1024
"""Number of samples permuted at a time with ``shuffle=True``, if a source is not permuted as a whole."""

_TOGETHER = 1 << 16  # number of samples that one call permutes if blocks are small


def require_shuffle(shuffle: object) -> None:
    """Raise `ConfigError` unless `shuffle` is a valid number of samples to permute at a time."""
    if isinstance(shuffle, bool) or not isinstance(shuffle, (int, np.integer)) or not 0 <= shuffle <= MOST_SAMPLES:
        raise ConfigError(
            f"shuffle must be in 0 … {MOST_SAMPLES}, the samples permuted at a time (0: in order), got {shuffle!r}"
        )


def block_of(shuffle: object, whole: int = SHUFFLE_BLOCK) -> int:
    """Return the number of samples that are permuted at a time, for a user's value of `shuffle`.

    Args:
        shuffle: True, False (which means 0), or the number of samples.
        whole: number of samples that True means. Default 1024.

    Raises:
        ConfigError: `shuffle` is neither a bool nor an integer.
    """
    if isinstance(shuffle, (bool, np.bool_)):
        return max(1, whole) if shuffle else 0
    if not isinstance(shuffle, (int, np.integer)):
        raise ConfigError(
            f"shuffle must be True, False, or the number of samples permuted at a time (0: in order), got {shuffle!r}"
        )
    return int(shuffle)


def shuffled_lines(starts: npt.NDArray[np.int64], *, seed: int, epoch: int, shuffle: int, number: int = 0) -> LineArray:
    """Return the lines of an index in the order of one pass. If no sample is rejected, samples are delivered in this order.

    Args:
        starts: int64 ``[shards + 1]``, begin and end of each shard. Shard s has the lines ``starts[s]:starts[s + 1]``.
        seed: seed of the random draws, 0 … 2**64 − 1.
        epoch: number of the epoch, on which the random draws depend, 0 … 2**32 − 1.
        shuffle: number of samples that are permuted at a time, after the shards are permuted. 0 keeps the order of the index.
        number: number of the pass within the epoch, from 0. Default 0.

    Returns:
        int32 ``[n]`` (int64 from 2**31 lines on), each of the lines ``0 … n − 1`` once.
    """
    n = int(starts[-1])
    dtype: npt.DTypeLike = np.int32 if n < 1 << 31 else np.int64
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
