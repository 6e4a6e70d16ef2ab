"""The kernel that writes patches in Qwen's order. It takes only arrays and integers, allocates nothing and raises nothing.

`tests/helpers/naive_adapters.py` has a slow reference implementation.
"""

from __future__ import annotations

import numpy as np

from patchpack._arrays import Float32Array, Int64Array
from patchpack._jit import njit


@njit
def reorder(
    patches: np.ndarray,
    starts: Int64Array,
    grids: Int64Array,
    merge: int,
    temporal: int,
    table: Float32Array,
    out: Float32Array,
) -> None:
    """Write the patches of all images block by block, with channel as first axis. Copy each patch to all its frames.

    Args:
        patches: uint8 or float32 ``[tokens * D]``, one patch after the other. The values of a patch have the order (y, x,
            channel).
        starts: int64 ``[N]``, number of the first patch of each image. The other patches of the image follow in raster order.
        grids: int64 ``[N, 2]``, (rows, cols) of each image, multiples of `merge`.
        merge: number of patches per side of a block.
        temporal: number of frames per patch.
        table: float32 ``[256 * 3]``, the normalised value of a uint8 pixel, by value and channel. The table is empty if
            the patches are float.
        out: float32 ``[T * temporal * D]``, the array for the result. The values of a patch have the order (channel, frame, y,
            x).
    """
    tokens = 0
    for i in range(len(starts)):
        tokens += grids[i, 0] * grids[i, 1]
    if tokens == 0:
        return
    frame = len(out) // (3 * temporal * tokens)  # pixels of a patch
    at, tabled = 0, len(table) > 0
    for i in range(len(starts)):
        cols = grids[i, 1]
        for block_row in range(0, grids[i, 0], merge):
            for block_col in range(0, cols, merge):
                for row in range(block_row, block_row + merge):
                    for col in range(block_col, block_col + merge):
                        begin = (starts[i] + row * cols + col) * 3 * frame
                        for channel in range(3):
                            if tabled:
                                for pixel in range(frame):
                                    out[at + pixel] = table[3 * int(patches[begin + 3 * pixel + channel]) + channel]
                            else:
                                for pixel in range(frame):
                                    out[at + pixel] = patches[begin + 3 * pixel + channel]
                            for again in range(1, temporal):
                                for pixel in range(frame):
                                    out[at + again * frame + pixel] = out[at + pixel]
                            at += temporal * frame
