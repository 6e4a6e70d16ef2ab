"""The draws of one image, for the painter: Philox4x32-10 as in `patchpack.rng`, a loop instead of arrays over keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchpack._jit import njit

_M0, _M1, _W0, _W1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57), np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _S11, _S21, _S32 = np.uint64(0xFFFFFFFF), np.uint64(11), np.uint64(21), np.uint64(32)


@njit
def uniforms(seed: Any, epoch: Any, key_hash: Any, stage: Any, out: Any) -> None:
    """Draws of one key into out, float64 ``[n]``; seed, epoch, key_hash and stage: uint64."""
    n = len(out)
    for block in range((n + 1) // 2):
        c0, c1, c2 = key_hash & _LOW, key_hash >> _S32, epoch
        c3 = stage << np.uint64(24) | np.uint64(block)
        k0, k1 = seed & _LOW, seed >> _S32
        for _ in range(10):
            product0, product1 = c0 * _M0, c2 * _M1
            c0, c1, c2, c3 = (product1 >> _S32) ^ c1 ^ k0, product1 & _LOW, (product0 >> _S32) ^ c3 ^ k1, product0 & _LOW
            k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
        out[2 * block] = ((c0 << _S21) | (c1 >> _S11)) * 2.0**-53
        if 2 * block + 1 < n:
            out[2 * block + 1] = ((c2 << _S21) | (c3 >> _S11)) * 2.0**-53
