"""The kernel that widens pixels from three bytes to four. It uses arrays and integers only. It neither allocates nor raises."""

from __future__ import annotations

import numpy as np

from patchpack._arrays import UInt8Array, UInt32Array
from patchpack._jit import njit

_8, _16, _24 = np.uint32(8), np.uint32(16), np.uint32(24)


@njit
def widen(pixels: UInt8Array, out: UInt32Array) -> None:
    """Widen n pixels from three bytes to four.

    Args:
        pixels: uint8 ``[3 * n]``, red, green and blue of each pixel.
        out: uint32 ``[n]``, the result. Red is in the lowest byte of a pixel, and the highest byte is 0.
    """
    for i in range(len(out)):
        red, green, blue = np.uint32(pixels[3 * i]), np.uint32(pixels[3 * i + 1]), np.uint32(pixels[3 * i + 2])
        out[i] = red | (green << _8) | (blue << _16)
