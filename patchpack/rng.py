"""Random numbers, called draws. The draws of a key depend on (seed, epoch, key, stage) alone.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), vectorised over keys
in numpy. Therefore the draws of an image do not depend on the order of images, on the worker or rank, or on a resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError

U64 = npt.NDArray[np.uint64]

_ROUNDS = 10
# arrays without an axis: numpy computes with them in half the time that its scalars take
_MULTIPLIERS = (np.array(0xD2511F53, dtype=np.uint64), np.array(0xCD9E8D57, dtype=np.uint64))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.array(0xFFFFFFFF, dtype=np.uint64)
_SHIFT32, _SHIFT21, _SHIFT11 = (np.array(bits, dtype=np.uint64) for bits in (32, 21, 11))
MAX_DRAWS = 1 << 24
_CACHED = 1 << 13  # most draws for which the cache holds the words
_MANY = 16  # draws per key, as for every patch of an image. Sizes and rates take one or two draws


class Stage(IntEnum):
    """The purpose of a random draw. Add a new stage at the end only, so that existing stages keep their numbers."""

    RESIZE = 0
    DROP = 1
    KEEP = 2
    PATCH_SIZE = 3
    SHARDS = 4
    HEADERS = 5
    BALANCE = 6
    CROP = 7
    FLIP = 8
    AUGMENT = 9
    WORKERS = 10


def key_hash(keys: Iterable[str]) -> U64:
    """Return the hash of each key, uint64 ``[n]``: the first eight bytes (little endian) of BLAKE2b of the key in UTF-8.

    For a file name that is not UTF-8, the bytes of the name are hashed.
    """
    digests = b"".join(hashlib.blake2b(_bytes(key), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


def _bytes(key: str) -> bytes:
    try:
        return key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that no file name decodes to
        return key.encode("utf-8", "surrogatepass")


def uniforms(seed: int, epoch: int, hashes: U64, stage: int, n: int) -> npt.NDArray[np.float64]:
    """Return `n` uniform draws in [0, 1) for each key.

    Args:
        seed: the recipe's seed, 0 … 2**64 − 1.
        epoch: number of the epoch, on which the draws depend, 0 … 2**32 − 1.
        hashes: uint64 ``[m]``, the hashes of the keys (see `key_hash`).
        stage: purpose of the draws, 0 … 255, one of `Stage`.
        n: number of draws per key, 0 … 2**24.

    Returns:
        float64 ``[m, n]``, multiples of 2**-53. Draws 2b and 2b + 1 come from the Philox block with the counter
        ``(hash low, hash high, epoch, stage << 24 | b)`` and the key ``(seed low, seed high)``. In both, low and high stand for
        32 bits each.

    Raises:
        ConfigError: an argument is out of its range.
    """
    _require(seed, epoch, stage, n)
    hashes = np.asarray(hashes, dtype=np.uint64)
    if n >= _MANY:
        return _many(seed, epoch, hashes, stage, n)
    blocks = (n + 1) // 2
    counter = np.empty((4, len(hashes), blocks), dtype=np.uint64)
    counter[0] = (hashes & _LOW)[:, None]
    counter[1] = (hashes >> _SHIFT32)[:, None]
    counter[2] = epoch
    counter[3] = np.uint64(stage << 24) | np.arange(blocks, dtype=np.uint64)
    words = philox4x32((counter[0], counter[1], counter[2], counter[3]), (seed & 0xFFFFFFFF, seed >> 32))
    out = np.empty((len(hashes), blocks, 2), dtype=np.float64)
    for half in range(min(n, 2)):  # a single draw needs only the first half
        high, low = words[2 * half], words[2 * half + 1]
        out[:, :, half] = ((high << _SHIFT21) | (low >> _SHIFT11)) * 2.0**-53
    return out.reshape(len(hashes), 2 * blocks)[:, :n]


def _require(seed: int, epoch: int, stage: int, n: int) -> None:
    if 0 <= seed < 1 << 64 and 0 <= epoch < 1 << 32 and 0 <= stage < 1 << 8 and 0 <= n <= MAX_DRAWS:
        return
    for name, value, limit in (
        ("seed", seed, 1 << 64), ("epoch", epoch, 1 << 32), ("stage", stage, 1 << 8), ("n", n, MAX_DRAWS + 1),
    ):  # fmt: skip
        if not 0 <= value < limit:
            raise ConfigError(f"{name} must be in 0 … {limit - 1}, got {value}")


def permutation(seed: int, epoch: int, stage: int, start: int, n: int, *, block: int | None = None) -> npt.NDArray[np.intp]:
    """Return the positions ``0 … n − 1`` in random order. Each position has a random draw, and positions are sorted by draw.

    Position i has the draw of key ``start + i``.

    Args:
        seed: the recipe's seed, 0 … 2**64 − 1.
        epoch: number of the epoch, on which the draws depend, 0 … 2**32 − 1.
        stage: purpose of the draws, 0 … 255, one of `Stage`.
        start: key of the draw of position 0, 0 … 2**64 − n.
        n: number of positions, >= 0.
        block: length of a block. Positions stay within their block. Default None, all positions in one block.

    Returns:
        intp ``[n]``, the positions. The sort is stable.
    """
    u = np.empty(n, dtype=np.float64)
    for i in range(0, n, _CACHED):
        where = np.arange(start + i, start + min(i + _CACHED, n), dtype=np.uint64)
        u[i : i + _CACHED] = uniforms(seed, epoch, where, stage, 1)[:, 0]
    size = block or max(n, 1)
    whole = n - n % size
    order = np.empty(n, dtype=np.intp)
    order[:whole] = np.argsort(u[:whole].reshape(-1, size), axis=1, kind="stable").ravel()
    order[whole:] = np.argsort(u[whole:], kind="stable")
    order += np.arange(n) // size * size
    return order


def _many(seed: int, epoch: int, hashes: U64, stage: int, n: int) -> npt.NDArray[np.float64]:
    from patchpack import _kernels_rng as kernels  # numba takes 0.15 s to import, and planning does not need it

    many = np.empty((len(hashes), n), dtype=np.float64)
    hashes = np.array(hashes)  # contiguous and writable: the kernel is compiled for one kind of array
    kernels.uniforms(np.uint64(seed), np.uint64(epoch), np.uint64(stage << 24), hashes, many)
    return many


def smallest(seed: int, epoch: int, hashes: U64, stage: int, n: npt.ArrayLike, k: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Return a random subset of ``0 … n − 1`` for each key. All subsets of size `k` are equally likely.

    The subset has the indices of the `k` smallest of the key's `n` uniform draws.

    Args:
        seed: the recipe's seed, 0 … 2**64 − 1.
        epoch: number of the epoch, on which the draws depend, 0 … 2**32 − 1.
        hashes: uint64 ``[m]``, the hashes of the keys (see `key_hash`).
        stage: purpose of the draws, 0 … 255, one of `Stage`.
        n: integers ``[m]``, number of draws of each key, 1 … 2**24.
        k: integers ``[m]``, size of each key's subset, 1 … n. If `k` equals `n`, nothing is drawn.

    Returns:
        intp ``[sum(k)]``, the subsets, key after key. The indices of a key ascend. Of equal draws the first counts as smaller.

    Raises:
        ConfigError: an argument is out of its range.
    """
    from patchpack import _kernels_rng as kernels

    n, k = (np.array(numbers, dtype=np.int64) for numbers in (n, k))
    most = int(n.max(initial=1))
    _require(seed, epoch, stage, most)
    if (k < 1).any() or (k > n).any():
        i = int(np.argmax((k < 1) | (k > n)))
        raise ConfigError(f"k must be in 1 … n={n[i]}, got {k[i]}")
    out = np.empty(k.sum(), dtype=np.intp)
    draws, counts = np.empty(most, dtype=np.uint64), np.empty(1 << (most - 1).bit_length(), dtype=np.int64)
    address = np.uint64(seed), np.uint64(epoch), np.uint64(stage << 24), np.array(hashes, dtype=np.uint64)
    kernels.smallest(*address, n, k, draws, counts, out)
    return out


def philox4x32(counter: tuple[U64, U64, U64, U64], key: tuple[int, int]) -> tuple[U64, U64, U64, U64]:
    """Apply ten Philox rounds to each counter, which consists of four 32-bit words. A word is stored in a uint64 array."""
    c0, c1, c2, c3 = (np.array(word, dtype=np.uint64) for word in counter)
    high, low = np.empty_like(c0), np.empty_like(c0)  # the only allocation: for a few keys, allocation is most of the cost
    for k0, k1 in _round_keys(*key):
        np.multiply(c0, _MULTIPLIERS[0], out=high)
        np.multiply(c2, _MULTIPLIERS[1], out=low)
        np.right_shift(low, _SHIFT32, out=c0)
        np.right_shift(high, _SHIFT32, out=c2)
        c0 ^= c1
        c0 ^= k0
        c2 ^= c3
        c2 ^= k1
        low &= _LOW
        high &= _LOW
        c1, c3, low, high = low, high, c1, c3
    return c0, c1, c2, c3


@lru_cache(maxsize=64)
def _round_keys(k0: int, k1: int) -> list[tuple[U64, U64]]:
    """Return the key of each round. Each half of the key grows by its Weyl constant per round, modulo 2**32."""
    keys = [((k0 + i * _WEYL[0]) & 0xFFFFFFFF, (k1 + i * _WEYL[1]) & 0xFFFFFFFF) for i in range(_ROUNDS)]
    return [(np.array(first, dtype=np.uint64), np.array(second, dtype=np.uint64)) for first, second in keys]
