"""Randomness by address: a draw is a function of (seed, epoch, key, stage) and of nothing else.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), vectorised over keys in numpy.
Ten million images and one image get their numbers from the same formula, so neither order, worker, rank nor resume can
move them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError

U64 = npt.NDArray[np.uint64]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)
MAX_DRAWS = 1 << 24


class Stage(IntEnum):
    """What a draw is for. Append only: a new stage must not move the numbers of the old ones."""

    RESIZE = 0
    DROP = 1
    KEEP = 2
    PATCH_SIZE = 3
    SHARDS = 4
    HEADERS = 5
    BALANCE = 6


def key_hash(keys: Iterable[str]) -> U64:
    """Hash of each key, uint64 ``[n]``: the first eight bytes (little endian) of BLAKE2b of its UTF-8 form.

    A file name that is not UTF-8 counts with its own bytes.
    """
    digests = b"".join(hashlib.blake2b(_bytes(key), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


def _bytes(key: str) -> bytes:
    try:
        return key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that no file name decodes to
        return key.encode("utf-8", "surrogatepass")


def uniforms(seed: int, epoch: int, hashes: U64, stage: int, n: int) -> npt.NDArray[np.float64]:
    """n uniforms in [0, 1) for each key.

    Args:
        seed: 0 … 2**64 − 1, the recipe's seed.
        epoch: 0 … 2**32 − 1.
        hashes: uint64 ``[m]``, see `key_hash`.
        stage: what the draw is for, 0 … 255, see `Stage`.
        n: draws per key, 0 … 2**24.

    Returns:
        float64 ``[m, n]``, multiples of 2**-53. Draws 2b and 2b + 1 come from the block with counter
        ``(hash low, hash high, epoch, stage << 24 | b)`` under the key ``(seed low, seed high)``.

    Raises:
        ConfigError: a number out of its range.
    """
    for name, value, limit in (
        ("seed", seed, 1 << 64), ("epoch", epoch, 1 << 32), ("stage", stage, 1 << 8), ("n", n, MAX_DRAWS + 1),
    ):  # fmt: skip
        if not 0 <= value < limit:
            raise ConfigError(f"{name} must be in 0 … {limit - 1}, got {value}")
    hashes = np.asarray(hashes, dtype=np.uint64)
    blocks = (n + 1) // 2
    shape = (len(hashes), blocks)
    counter = (
        np.broadcast_to((hashes & _LOW)[:, None], shape),
        np.broadcast_to((hashes >> _SHIFT32)[:, None], shape),
        np.broadcast_to(np.uint64(epoch), shape),
        np.broadcast_to(np.uint64(stage << 24) | np.arange(blocks, dtype=np.uint64)[None, :], shape),
    )
    words = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))
    out = np.empty((len(hashes), blocks, 2), dtype=np.float64)
    for half in (0, 1):
        high, low = words[2 * half], words[2 * half + 1]
        out[:, :, half] = ((high << np.uint64(21)) | (low >> np.uint64(11))) * 2.0**-53
    return out.reshape(len(hashes), 2 * blocks)[:, :n]


def philox4x32(counter: tuple[U64, U64, U64, U64], key: tuple[int, int]) -> tuple[U64, U64, U64, U64]:
    """Ten Philox rounds: four 32-bit words (held in uint64 arrays) per counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT32) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _SHIFT32) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3
