"""Antialiased resampling of real numbers, like Pillow's mode F. Sums are in float64. Each pass is rounded to float32."""

from __future__ import annotations

from patchpack._arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from patchpack._jit import njit


@njit
def horizontal_first(
    src: UInt8Array,
    values: Float32Array,
    x_starts: Int64Array,
    x_weights: Float64Array,
    y_starts: Int64Array,
    y_weights: Float64Array,
    between: Float32Array,
    out: Float32Array,
) -> None:
    """Resample ``values[src]``, with the horizontal pass first.

    A tap is an input pixel that contributes to an output pixel.

    Args:
        src: uint8 ``[h, w, >= 3]``, the source image.
        values: float32 ``[256]``, the number that replaces each pixel value.
        x_starts: int64 ``[width]``, the first tap of each output column.
        x_weights: float64 ``[width, taps]``, the weights of a column's taps. Taps beyond the source are not read.
        y_starts: int64 ``[height]``, the first tap of each output row.
        y_weights: float64 ``[height, taps]``, the weights of a row's taps. Taps beyond the source are not read.
        between: float32 ``[h, width, 3]``, working memory.
        out: float32 ``[height, width, 3]``, the result.
    """
    height, width = out.shape[:2]
    for r in range(y_starts[0], min(y_starts[height - 1] + y_weights.shape[1], src.shape[0])):
        for x in range(width):
            red = green = blue = 0.0
            for k in range(min(x_weights.shape[1], src.shape[1] - x_starts[x])):
                at, w = x_starts[x] + k, x_weights[x, k]
                red += values[src[r, at, 0]] * w
                green += values[src[r, at, 1]] * w
                blue += values[src[r, at, 2]] * w
            between[r, x, 0], between[r, x, 1], between[r, x, 2] = red, green, blue
    for y in range(height):
        for x in range(width):
            red = green = blue = 0.0
            for k in range(min(y_weights.shape[1], src.shape[0] - y_starts[y])):
                at, w = y_starts[y] + k, y_weights[y, k]
                red += between[at, x, 0] * w
                green += between[at, x, 1] * w
                blue += between[at, x, 2] * w
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = red, green, blue


@njit
def vertical_first(
    src: UInt8Array,
    values: Float32Array,
    x_starts: Int64Array,
    x_weights: Float64Array,
    y_starts: Int64Array,
    y_weights: Float64Array,
    between: Float32Array,
    out: Float32Array,
) -> None:
    """Resample like `horizontal_first`, but with the vertical pass first. `between` is float32 ``[1, w, 3]``."""
    height, width = out.shape[:2]
    for y in range(height):
        for x in range(src.shape[1]):
            red = green = blue = 0.0
            for k in range(min(y_weights.shape[1], src.shape[0] - y_starts[y])):
                at, w = y_starts[y] + k, y_weights[y, k]
                red += values[src[at, x, 0]] * w
                green += values[src[at, x, 1]] * w
                blue += values[src[at, x, 2]] * w
            between[0, x, 0], between[0, x, 1], between[0, x, 2] = red, green, blue
        for x in range(width):
            red = green = blue = 0.0
            for k in range(min(x_weights.shape[1], src.shape[1] - x_starts[x])):
                at, w = x_starts[x] + k, x_weights[x, k]
                red += between[0, at, 0] * w
                green += between[0, at, 1] * w
                blue += between[0, at, 2] * w
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = red, green, blue
