"""The weights of an antialiased resampling kernel, in float64 and in fixed point.

The float64 weights are computed with the same operations as in Pillow. A fixed-point weight w is 2**22 times the float64
weight, rounded (half away from zero). It is stored as two numbers, ``w = 65536 * high + low``, with ``low`` in −32768 … 32767.
A tap is an input pixel that contributes to an output pixel. The tables have the memory layout that the vector instructions of
`_kernels_resample` need.
"""

from __future__ import annotations

from patchpack._arrays import Float64Array, Int64Array, UInt32Array
from patchpack._jit import njit

# `_kernels_resample` is compiled with these constants too, but numba's cache watches one file only: change both files.
HEAD = 2  # words before the horizontal weights of a pixel: the position of its first tap in bytes, and an unused word
QUAD = 6  # words of four horizontal weights: two pairs of lows, then two pairs of highs, each twice
PAIR = 2  # words of two vertical weights: the lows, the highs


@njit
def tables(
    width: int, out_width: int, height: int, out_height: int, radius: float, cubic: bool,
    weights: Float64Array, x_table: UInt32Array, y_starts: Int64Array, y_table: UInt32Array,
) -> tuple[int, int]:  # fmt: skip
    """Make the tables of fixed-point weights for a resize.

    Args:
        width: width of the source in pixels.
        out_width: width of the result in pixels.
        height: height of the source in pixels.
        out_height: height of the result in pixels.
        radius: reach of the kernel to either side, in pixels of the source when enlarging, and of the result when reducing.
        cubic: True for bicubic, False for bilinear.
        weights: float64 ``[>= max(x_taps, y_taps)]``, working memory.
        x_table: uint32, output: the table of horizontal weights, ``HEAD + QUAD * x_taps / 4`` words per output column.
        y_starts: int64 ``[out_height]``, output: the first tap of each output row.
        y_table: uint32, output: the table of vertical weights, ``PAIR * y_taps / 2`` words per output row.

    Returns:
        Two numbers: `x_taps`, the number of horizontal taps, which is a multiple of four, and `y_taps`, the number of vertical
        taps, which is even.
    """
    x_scale, y_scale = width / out_width, height / out_height
    x_taps = (most_taps(width, out_width, x_scale, radius) + 3) // 4 * 4
    at = 0
    for i in range(out_width):
        x_table[at], x_table[at + 1] = 4 * weigh(width, x_scale, radius, cubic, i, x_taps, weights, 0), 0
        at += HEAD
        for k in range(0, x_taps, 4):
            for pair in range(2):
                first, second = _fixed(weights[k + 2 * pair]), _fixed(weights[k + 2 * pair + 1])
                x_table[at + pair] = _lows(first, second)
                x_table[at + 2 + 2 * pair] = x_table[at + 3 + 2 * pair] = _highs(first, second) * 65537
            at += QUAD
    y_taps = (most_taps(height, out_height, y_scale, radius) + 1) // 2 * 2
    at = 0
    for i in range(out_height):
        y_starts[i] = weigh(height, y_scale, radius, cubic, i, y_taps, weights, 0)
        for k in range(0, y_taps, 2):
            first, second = _fixed(weights[k]), _fixed(weights[k + 1])
            y_table[at], y_table[at + 1] = _lows(first, second), _highs(first, second)
            at += PAIR
    return x_taps, y_taps


@njit
def most_taps(in_size: int, out_size: int, scale: float, radius: float) -> int:
    """Return the largest number of taps that an output pixel has. `scale` is ``in_size / out_size``."""
    most = 0
    for i in range(out_size):
        start, stop = _span(in_size, scale, radius, i)
        most = max(most, stop - start)
    return most


@njit
def weigh_all(in_size: int, out_size: int, radius: float, cubic: bool, starts: Int64Array, weights: Float64Array) -> None:
    """Write the first tap of each output pixel to `starts`, int64 ``[out_size]``, and the weights of all taps to `weights`.

    `weights` is float64 ``[out_size * taps]``. The number of taps is computed from the length of `weights`.
    """
    taps = len(weights) // out_size
    for i in range(out_size):
        starts[i] = weigh(in_size, in_size / out_size, radius, cubic, i, taps, weights, i * taps)


@njit
def weigh(in_size: int, scale: float, radius: float, cubic: bool, i: int, taps: int, weights: Float64Array, at: int) -> int:
    """Write the weights of output pixel `i` to ``weights[at : at + taps]``, and return the first tap of this pixel.

    The sum of the weights is 1. Taps outside the kernel have weight 0. Near the end of the input the first tap is moved back,
    so that all taps are within the input.
    """
    step = 1.0 / max(scale, 1.0)
    centre = (i + 0.5) * scale
    start, stop = _span(in_size, scale, radius, i)
    first = max(0, min(start, in_size - taps))
    total = 0.0
    for k in range(taps):  # the same number for every pixel, so that branches are predictable
        x = abs((k + first - centre + 0.5) * step)
        if cubic:  # Keys, a = −1/2
            near, far = (1.5 * x - 2.5) * x * x + 1.0, (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
            w = near if x < 1.0 else (far if x < 2.0 else 0.0)
        else:
            w = 1.0 - x if x < 1.0 else 0.0
        w = w if start <= k + first < stop else 0.0
        weights[at + k] = w
        total += w
    if total != 0.0:
        for k in range(at, at + taps):
            weights[k] /= total
    return first


@njit
def _span(in_size: int, scale: float, radius: float, i: int) -> tuple[int, int]:
    reach = radius * max(scale, 1.0)
    centre = (i + 0.5) * scale
    return max(0, int(centre - reach + 0.5)), min(in_size, int(centre + reach + 0.5))


@njit
def _fixed(weight: float) -> int:
    return int(weight * 4194304.0 + (-0.5 if weight < 0 else 0.5))


@njit
def _lows(first: int, second: int) -> int:
    return first & 65535 | (second & 65535) << 16


@njit
def _highs(first: int, second: int) -> int:
    return (first + 32768) >> 16 & 255 | ((second + 32768) >> 16 & 255) << 8
