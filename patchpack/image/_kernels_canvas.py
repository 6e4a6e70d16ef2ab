"""Pixels of three bytes to pixels of four. Only arrays and integers, no allocation, no exceptions."""

from __future__ import annotations

import numpy as np

from patchpack._arrays import UInt8Array, UInt32Array
from patchpack._jit import njit

_8, _16, _24 = np.uint32(8), np.uint32(16), np.uint32(24)


@njit
def widen(pixels: UInt8Array, out: UInt32Array) -> None:
    """Write pixels of three bytes, uint8 ``[3 n]``, as uint32 ``[n]`` with red in the lowest byte and 0 in the highest."""
    for i in range(len(out)):
        red, green, blue = np.uint32(pixels[3 * i]), np.uint32(pixels[3 * i + 1]), np.uint32(pixels[3 * i + 2])
        out[i] = red | (green << _8) | (blue << _16)
