"""The canvas: memory that a thread reuses for each image that it decodes, so that the memory stays mapped and in the cache.

Each thread has one canvas. A thread must finish with the pixels of an image before it decodes the next image.
"""

from __future__ import annotations

from threading import local

import numpy as np
import numpy.typing as npt

from patchpack._arrays import UInt8Array
from patchpack.types import Size

Pixels = npt.NDArray[np.uint8]

HELD_BYTES = 1 << 26  # most memory that a thread keeps: 16 megapixels
_STEP = 1 << 20


class _Thread(local):
    memory: Pixels = np.empty(0, dtype=np.uint8)


_thread = _Thread()


def canvas(size: Size) -> Pixels:
    """Return an uninitialised contiguous array, uint8 ``[H, W, 4]``. The next call in this thread reuses its memory."""
    num_bytes = 4 * size.height * size.width
    if num_bytes > HELD_BYTES:
        memory = np.empty(num_bytes, dtype=np.uint8)
    else:
        if len(_thread.memory) < num_bytes:
            _thread.memory = np.empty(-(-num_bytes // _STEP) * _STEP, dtype=np.uint8)
        memory = _thread.memory[:num_bytes]
    return memory.reshape(*size, 4)


def widened(pixels: UInt8Array) -> Pixels:
    """Copy uint8 pixels ``[H, W, 3]`` onto the canvas, as ``[H, W, 4]``: red, green, blue and an unused byte."""
    from patchpack.image import _kernels_canvas as kernels

    out = canvas(Size(*pixels.shape[:2]))
    kernels.widen(np.ascontiguousarray(pixels).reshape(-1), out.reshape(-1).view(np.uint32))
    return out
