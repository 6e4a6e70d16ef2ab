"""Philox4x32-10 by the draw, for many draws of few keys; compiled on first use. Arrays and integers only, no allocation."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchpack._jit import njit

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_11, _21, _32 = np.uint64(11), np.uint64(21), np.uint64(32)


@njit
def uniforms(seed: Any, epoch: Any, stage: Any, hashes: Any, out: Any) -> None:
    """What `patchpack.rng.uniforms` returns, into out, float64 ``[m, n]``.

    seed, epoch: uint64. stage: uint64, already shifted to the top of its 32-bit word. hashes: uint64 ``[m]``.
    """
    n = out.shape[1]
    for i in range(len(hashes)):
        for block in range((n + 1) // 2):
            c0, c1 = hashes[i] & _LOW, hashes[i] >> _32
            c2, c3 = epoch, stage | np.uint64(block)
            k0, k1 = seed & _LOW, seed >> _32
            for _ in range(10):
                product0, product1 = c0 * _M0, c2 * _M1
                c0, c2 = (product1 >> _32) ^ c1 ^ k0, (product0 >> _32) ^ c3 ^ k1
                c1, c3 = product1 & _LOW, product0 & _LOW
                k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
            out[i, 2 * block] = np.float64((c0 << _21) | (c1 >> _11)) * 2.0**-53
            if 2 * block + 1 < n:
                out[i, 2 * block + 1] = np.float64((c2 << _21) | (c3 >> _11)) * 2.0**-53
