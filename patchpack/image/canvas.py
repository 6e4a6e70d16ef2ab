"""Memory for decoded images, which is used again for each one, so that its pages are mapped and in the cache.

Each thread has one canvas. An image must be painted before the next one is decoded.
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
    """Return uint8 ``[H, W, 4]`` with any content, contiguous. It shares memory with the result of this thread's last call."""
    num_bytes = 4 * size.height * size.width
    if num_bytes > HELD_BYTES:
        memory = np.empty(num_bytes, dtype=np.uint8)
    else:
        if len(_thread.memory) < num_bytes:
            _thread.memory = np.empty(-(-num_bytes // _STEP) * _STEP, dtype=np.uint8)
        memory = _thread.memory[:num_bytes]
    return memory.reshape(*size, 4)


def widened(pixels: UInt8Array) -> Pixels:
    """Return uint8 ``[H, W, 3]`` as ``[H, W, 4]`` on the canvas: red, green, blue and a filler."""
    from patchpack.image import _kernels_canvas as kernels

    out = canvas(Size(*pixels.shape[:2]))
    kernels.widen(np.ascontiguousarray(pixels).reshape(-1), out.reshape(-1).view(np.uint32))
    return out
