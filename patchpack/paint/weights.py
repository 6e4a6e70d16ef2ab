"""The weights of a resize: how much each pixel of the source contributes to a pixel of the result."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from patchpack._arrays import Float64Array, Int64Array, UInt32Array

RADIUS = {"bilinear": 1.0, "bicubic": 2.0}  # reach of each kernel, in pixels


@lru_cache(maxsize=64)  # many photographs have the same size
def tables(
    height: int, width: int, target: tuple[int, int], kernel: str
) -> tuple[int, UInt32Array, int, Int64Array, UInt32Array]:
    """Return the fixed-point weights of a resize, for the compiled kernels.

    A tap is an input pixel that contributes to an output pixel.

    Args:
        height: height of the source in pixels.
        width: width of the source in pixels.
        target: (height, width) of the result in pixels.
        kernel: ``"bilinear"`` or ``"bicubic"``.

    Returns:
        Five values: the number of horizontal taps, the table of horizontal weights, the number of vertical taps, the first
        vertical tap of each output row, and the table of vertical weights. `_kernels_weights` describes the tables.
    """
    from patchpack.paint import _kernels_weights as kernels

    radius, (out_height, out_width) = RADIUS[kernel], target
    x_most, y_most = (int(2 * radius * max(size / out, 1)) + 5 for size, out in ((width, out_width), (height, out_height)))
    x_table = np.empty(out_width * (kernels.HEAD + -(-x_most // 4) * kernels.QUAD), dtype=np.uint32)
    y_table = np.empty(out_height * (y_most + 1) // 2 * kernels.PAIR, dtype=np.uint32)
    y_starts, weights = np.empty(out_height, dtype=np.int64), np.empty(max(x_most, y_most) + 3)
    cubic = kernel == "bicubic"
    x_taps, y_taps = kernels.tables(width, out_width, height, out_height, radius, cubic, weights, x_table, y_starts, y_table)
    return x_taps, x_table, y_taps, y_starts, y_table


def weights_of(in_size: int, out_size: int, kernel: str) -> tuple[Int64Array, Float64Array]:
    """Return the weights of a resize along one side.

    A tap is an input pixel that contributes to an output pixel.

    Args:
        in_size: pixels of the source along the side.
        out_size: pixels of the result along the side.
        kernel: ``"bilinear"`` or ``"bicubic"``.

    Returns:
        The first tap of each output pixel, int64 ``[out_size]``, and the weights of all taps, float64 ``[out_size, taps]``.
    """
    from patchpack.paint import _kernels_weights as kernels

    starts = np.empty(out_size, dtype=np.int64)
    weights = np.empty((out_size, kernels.most_taps(in_size, out_size, in_size / out_size, RADIUS[kernel])), dtype=np.float64)
    kernels.weigh_all(in_size, out_size, RADIUS[kernel], kernel == "bicubic", starts, weights.reshape(-1))
    return starts, weights
