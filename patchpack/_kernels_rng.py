"""The random generator Philox4x32-10 as compiled kernels, used for many random draws of few keys.

The kernels use arrays and integers only. They neither allocate nor raise.
"""

from __future__ import annotations

import numpy as np

from patchpack._arrays import Float64Array, IndexArray, Int64Array, UInt64Array
from patchpack._jit import njit

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_11, _21, _32 = np.uint64(11), np.uint64(21), np.uint64(32)


@njit
def _block(seed: np.uint64, epoch: np.uint64, hashed: np.uint64, last: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the two random draws of one Philox block, each 53 bits in a uint64.

    Args:
        seed: seed of the random draws.
        epoch: number of the epoch, on which the random draws depend.
        hashed: hash of the key.
        last: fourth word of the counter. It holds the stage and the number of the block.
    """
    c0, c1 = hashed & _LOW, hashed >> _32
    c2, c3 = epoch, last
    k0, k1 = seed & _LOW, seed >> _32
    for _ in range(10):
        product0, product1 = c0 * _M0, c2 * _M1
        c0, c2 = (product1 >> _32) ^ c1 ^ k0, (product0 >> _32) ^ c3 ^ k1
        c1, c3 = product1 & _LOW, product0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return (c0 << _21) | (c1 >> _11), (c2 << _21) | (c3 >> _11)


@njit
def uniforms(seed: np.uint64, epoch: np.uint64, stage: np.uint64, hashes: UInt64Array, out: Float64Array) -> None:
    """Write the result of `patchpack.rng.uniforms` to an array.

    Args:
        seed: seed of the random draws.
        epoch: number of the epoch, on which the random draws depend.
        stage: purpose of the random draws, shifted left by 24 bits.
        hashes: uint64 ``[m]``, the hashes of the keys.
        out: float64 ``[m, n]``, output: the result.
    """
    n = out.shape[1]
    for i in range(len(hashes)):
        for block in range((n + 1) // 2):
            first, second = _block(seed, epoch, hashes[i], stage | np.uint64(block))
            out[i, 2 * block] = np.float64(first) * 2.0**-53
            if 2 * block + 1 < n:
                out[i, 2 * block + 1] = np.float64(second) * 2.0**-53


@njit
def select(draws: UInt64Array, counts: Int64Array, out: IndexArray) -> None:
    """Write the positions of the k smallest draws to `out`, in ascending order. Of equal draws, the first counts as smaller.

    Args:
        draws: uint64 ``[n]``, draws of 53 bits, n >= k.
        counts: int64 zeros, working memory. Its length is a power of two. A length of about n is fastest.
        out: int64 ``[k]``, output: the result.
    """
    n, k = len(draws), len(out)
    shift, most = np.uint64(53), len(counts)
    while most > 1:
        shift, most = shift - np.uint64(1), most >> 1
    for i in range(n):
        counts[draws[i] >> shift] += 1
    below, bucket = 0, np.uint64(0)  # number of draws in the buckets before the last kept draw's
    while below + counts[bucket] < k:
        below, bucket = below + counts[bucket], bucket + np.uint64(1)
    last, place = bucket << shift, -1  # the last kept draw so far, and its position
    for _ in range(k - below):
        least, where = (bucket + np.uint64(1)) << shift, -1
        for i in range(n):
            if draws[i] < least and (draws[i] > last or (draws[i] == last and i > place)):
                least, where = draws[i], i
        last, place = least, where
    at = 0
    for i in range(n):
        if draws[i] < last or (draws[i] == last and i <= place):
            out[at] = i
            at += 1


@njit
def smallest(
    seed: np.uint64,
    epoch: np.uint64,
    stage: np.uint64,
    hashes: UInt64Array,
    n: Int64Array,
    k: Int64Array,
    draws: UInt64Array,
    counts: Int64Array,
    out: IndexArray,
) -> None:
    """Write the result of `patchpack.rng.smallest` to an array.

    Args:
        seed: seed of the random draws.
        epoch: number of the epoch, on which the random draws depend.
        stage: purpose of the random draws, shifted left by 24 bits.
        hashes: uint64 ``[m]``, the hashes of the keys.
        n: int64 ``[m]``, number of draws of each key.
        k: int64 ``[m]``, number of smallest draws to find for each key.
        draws: uint64 ``[>= max(n)]``, working memory.
        counts: int64 ``[>= max(n)]``, working memory. Its length is a power of two.
        out: int64 ``[sum(k)]``, output: the positions of the smallest draws, key after key.
    """
    end = 0
    for i in range(len(hashes)):
        begin, end = end, end + k[i]
        if k[i] == n[i]:
            for j in range(n[i]):
                out[begin + j] = j
            continue
        for block in range((n[i] + 1) // 2):
            first, second = _block(seed, epoch, hashes[i], stage | np.uint64(block))
            draws[2 * block] = first
            if 2 * block + 1 < n[i]:
                draws[2 * block + 1] = second
        buckets = 1
        while buckets < n[i]:
            buckets *= 2
        counts[:buckets] = 0
        select(draws[: n[i]], counts[:buckets], out[begin:end])
