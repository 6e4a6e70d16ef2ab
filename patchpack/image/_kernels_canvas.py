"""Three bytes a pixel to four. Arrays and integers only, no allocation, no exceptions."""

from __future__ import annotations

from typing import Any

import numpy as np

from patchpack._jit import njit

_8, _16, _24 = np.uint32(8), np.uint32(16), np.uint32(24)


@njit
def widen(pixels: Any, out: Any) -> None:
    """pixels: uint8 ``[3 n]``, red, green, blue. out: uint32 ``[n]``, these from the lowest byte on, the highest 0."""
    for i in range(len(out)):
        red, green, blue = np.uint32(pixels[3 * i]), np.uint32(pixels[3 * i + 1]), np.uint32(pixels[3 * i + 2])
        out[i] = red | (green << _8) | (blue << _16)
