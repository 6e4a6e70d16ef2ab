"""Resampling, cutting and dropping in one pass: only pixels of kept patches are computed, directly from Pillow's memory.

Bilinear and bicubic with 8 bits per channel are equal to the bit to Pillow's ``Image.resize``: 22-bit fixed-point weights made
in float64, two passes, each rounded to 8 bits. The order of the passes changes the result, and Pillow's order has changed. Up
to version 12 the horizontal pass is first. From 13 on the vertical one is first if ``th < h and 2 * (w - tw) < h - th``, as
Pillow's results show.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from patchpack._arrays import Float32Array, Float64Array, IndexArray, Int64Array, UInt8Array, UInt32Array
from patchpack._foreign.pillow import memory_of
from patchpack.types import Grid

Order = Literal["pillow", "horizontal_first"]

RADIUS = {"bilinear": 1.0, "bicubic": 2.0}
BAND_BYTES = 1 << 20  # for an image whose memory is not in one piece: a copied band of this size stays in the cache
_NO_NUMBERS = np.empty(0, dtype=np.uint8)
_MIN_WIDTH = 8  # pixels: one vector of the vertical pass


class Cut(NamedTuple):
    """The target of the pixels.

    Attributes:
        places: int64 ``[rows, cols]`` of the grid: the row of the output for each patch, −1 if it is dropped.
        tall: height of a patch in pixels.
        wide: width of a patch in pixels.
        mirrored: True if the image is mirrored left to right after resampling. Default False.
    """

    places: Int64Array
    tall: int
    wide: int
    mirrored: bool = False


def resize(picture: Image.Image, size: tuple[int, int], kernel: str, *, order: Order = "pillow") -> UInt8Array:
    """Resize a whole image.

    Args:
        picture: mode RGB, its pixels loaded.
        size: (height, width), >= 1.
        kernel: bilinear or bicubic, antialiased.
        order: "pillow" (default) for the order of the two passes in the installed Pillow; "horizontal_first" for the same
            pixels with every version of it.

    Returns:
        uint8 ``[height, width, 3]``; with "pillow" equal to ``np.asarray(picture.resize(size[::-1], FILTERS[kernel]))``.
    """
    out = np.empty((1, size[0] * size[1] * 3), dtype=np.uint8)
    whole = Cut(np.zeros((1, 1), dtype=np.int64), *size)
    paint_patches(picture, (0, 0, picture.height, picture.width), size, whole, kernel, out, order=order)
    return out.reshape(*size, 3)


def places(grid: Grid, kept: IndexArray) -> Int64Array:
    """Return the number of each patch of a grid among the kept, ascending ones: int64 ``[rows, cols]``, −1 if dropped."""
    n = grid.num_patches
    if len(kept) == n:
        return np.arange(n, dtype=np.int64).reshape(grid)
    answer = np.full(n, -1, dtype=np.int64)
    answer[kept] = np.arange(len(kept))
    return answer.reshape(grid)


def resize_numbers(
    pixels: UInt8Array, numbers: Float32Array, size: tuple[int, int], kernel: str, *, order: Order = "pillow"
) -> Float32Array:
    """Resample ``numbers[pixels]`` like Pillow's mode F: sums in float64, each pass rounded to float32.

    Args:
        pixels: uint8 ``[h, w, 3]``.
        numbers: float32 ``[256]``.
        size: (height, width).
        kernel: bilinear or bicubic.
        order: order of the two passes, see `resize`. Default "pillow".

    Returns:
        float32 ``[height, width, 3]``.
    """
    from patchpack.paint import _kernels_float as kernels

    (h, w), (height, width) = pixels.shape[:2], size
    vertical_first = order == "pillow" and _vertical_goes_first((h, w), size)
    between = np.empty((1, w, 3) if vertical_first else (h, width, 3), dtype=np.float32)
    out = np.empty((height, width, 3), dtype=np.float32)
    resample = kernels.vertical_first if vertical_first else kernels.horizontal_first
    resample(pixels, numbers, *weights_of(w, width, kernel), *weights_of(h, height, kernel), between, out)
    return out


def paint_patches(
    picture: Image.Image | UInt8Array,
    box: tuple[int, int, int, int],
    target: tuple[int, int],
    cut: Cut,
    kernel: str,
    out: np.ndarray,
    *,
    numbers: np.ndarray | None = None,
    order: Order = "pillow",
) -> None:
    """Resample a box of an image and write the kept patches.

    Args:
        picture: mode RGB, its pixels loaded; or uint8 ``[H, W, 4]``, contiguous, of red, green, blue and a filler.
        box: (top, left, height, width) in its pixels. Pixels outside are not read.
        target: (height, width) that the box is resampled to. Pixels of the grid beyond it are 0.
        cut: the target of each patch.
        kernel: bilinear or bicubic.
        out: ``[kept, tall * wide * 3]``, contiguous: row, column, channel inside a patch.
        numbers: the output of a pixel, ``[256, 3]`` by value and channel, of out's dtype, which has 2 or 4 bytes. For float32
            the additional rows of `resample.number_table` may follow. None (default) if out is uint8.
        order: order of the two passes, see `resize`. Default "pillow".
    """
    vertical_first = order == "pillow" and _vertical_goes_first(box[2:], target)
    _paint(picture, box, target, cut, kernel, numbers, out, vertical_first)


def _paint(
    picture: Image.Image | UInt8Array,
    box: tuple[int, int, int, int],
    target: tuple[int, int],
    cut: Cut,
    kernel: str,
    numbers: np.ndarray | None,
    out: np.ndarray,
    vertical_first: bool,
) -> None:
    from patchpack.paint import _kernels_resample as kernels  # numba costs 0.15 s to import

    top, left, height, width = box
    x_taps, x_table, y_taps, y_starts, y_table = tables(height, width, (target[0], target[1]), kernel)
    places, tall, wide, mirrored = cut
    rows, cols = places.shape
    if mirrored:
        places = np.ascontiguousarray(places[:, ::-1])
    narrowest = max(x_taps, _MIN_WIDTH)  # the kernels read at least this many pixels of a row
    width = max(width, narrowest)
    if vertical_first:
        resample, between = kernels.vertical_first, 4 * (width + x_taps) + kernels.CHUNK
    else:
        resample, between = kernels.horizontal_first, (y_taps + 2) * (3 * target[1] + kernels.CHUNK)
    arguments = (
        target[1], x_taps, x_table, y_starts, y_table, places, tall, wide, mirrored,
        np.empty(y_taps, dtype=np.int64), np.empty(between, dtype=np.uint8), np.empty(cols, dtype=np.uint8),
        np.empty(3 * cols * wide + kernels.CHUNK, dtype=np.uint8),
        _NO_NUMBERS if numbers is None else numbers.view(np.uint8).reshape(-1), out.itemsize,
        out.view(np.uint8).reshape(-1),
    )  # fmt: skip
    if isinstance(picture, np.ndarray) and box[3] < narrowest:
        picture = as_picture(picture)
    pixels = memory(picture) if box[3] >= narrowest else None
    if pixels is not None:
        pitch = 4 * (picture.shape[1] if isinstance(picture, np.ndarray) else picture.width)
        resample(pixels, top * pitch + 4 * left, pitch, width, 0, rows * tall, 0, height - 1, *arguments)
        return
    assert isinstance(picture, Image.Image)  # an array always has its memory in one piece
    first = done = 0
    while first < rows * tall:  # band by band, each copied into one piece
        begin = max(done, int(y_starts[min(first, len(y_starts) - 1)]))
        end = begin + max(y_taps * (4 if vertical_first else 1), BAND_BYTES // (4 * width))
        stop = max(first + 1, int(np.searchsorted(y_starts, end - y_taps, side="right")))
        if stop >= len(y_starts):
            stop = rows * tall
        else:
            end = int(y_starts[stop - 1]) + y_taps
        end = min(end, height)
        if (places[first // tall : -(-stop // tall)] >= 0).any():
            part = picture.crop((left, top + begin, left + box[3], top + end))
            pixels = memory(part) if box[3] >= narrowest else None
            if pixels is None:
                pixels = _copied(part, narrowest)
            done = resample(pixels, -begin * 4 * width, 4 * width, width, first, stop, done, end - 1, *arguments)
        first = stop


@lru_cache(maxsize=64)  # many photographs have the same size
def tables(
    height: int, width: int, target: tuple[int, int], kernel: str
) -> tuple[int, UInt32Array, int, Int64Array, UInt32Array]:
    """Return the taps and weights of a resize, for the kernels.

    Args:
        height: of the source in pixels.
        width: of the source in pixels.
        target: (height, width) of the result.
        kernel: bilinear or bicubic.

    Returns:
        Number of horizontal taps and their table; number of vertical taps, the first one of each output row, and their table.
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
    """Return the first tap of each output pixel, int64 ``[out_size]``, and weights, float64 ``[out_size, taps]``.

    Args:
        in_size: pixels of the source along one side.
        out_size: pixels of the result along that side.
        kernel: bilinear or bicubic.
    """
    from patchpack.paint import _kernels_weights as kernels

    starts = np.empty(out_size, dtype=np.int64)
    weights = np.empty((out_size, kernels.most_taps(in_size, out_size, in_size / out_size, RADIUS[kernel])), dtype=np.float64)
    kernels.weigh_all(in_size, out_size, RADIUS[kernel], kernel == "bicubic", starts, weights.reshape(-1))
    return starts, weights


# -------------------------------------------------------------------------------------------------------------- memory


def as_picture(pixels: UInt8Array) -> Image.Image:
    """Return uint8 ``[H, W, 4]`` of red, green, blue and a filler as an image of mode RGB: a copy."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))


def memory(picture: Image.Image | UInt8Array) -> UInt8Array | None:
    """Return the memory of a loaded RGB image, uint8 ``[height * width * 4]``, red, green, blue and a filler.

    It is valid as long as the image. Return None if it is not in one piece: Pillow allocates by blocks of 16 MiB.
    """
    return picture.reshape(-1) if isinstance(picture, np.ndarray) else memory_of(picture)


def _copied(picture: Image.Image, narrowest: int) -> UInt8Array:
    pixels = np.zeros((picture.height, max(picture.width, narrowest), 4), dtype=np.uint8)
    pixels[:, : picture.width, :3] = np.asarray(picture)
    return pixels.reshape(-1)


# --------------------------------------------------------------------------------------------------------------- order


@lru_cache(maxsize=2)
def compile_kernels(numbers: bool) -> None:
    """Compile, or load from disk, all kernels of painting, with numbers also those of `resize_numbers`."""
    pillow_order()
    if numbers:
        pixels = np.zeros((9, 2, 3), dtype=np.uint8)
        for order in ("pillow", "horizontal_first"):
            resize_numbers(pixels, np.zeros(256, dtype=np.float32), (4, 2), "bilinear", order=order)


def _vertical_goes_first(size: tuple[int, int], target: tuple[int, int]) -> bool:
    (height, width), (tall, wide) = size, target
    return tall < height and 2 * (width - wide) < height - tall and pillow_order() == "by size"


@lru_cache(maxsize=1)
def pillow_order() -> Literal["by size", "horizontal first"] | None:
    """Return the order of passes in the installed Pillow, found by comparing results to the bit; None if neither order fits.

    With None no kernel here replaces Pillow's resize, and all images must be resized by it. None is also the result with a
    numba that lacks what the kernels are made of.
    """
    try:
        from patchpack.paint import _kernels_resample  # noqa: F401
    except (AttributeError, ImportError):
        return None
    pixels = np.random.default_rng(0).integers(0, 256, (23, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    agree = {"by size": True, "horizontal first": True}
    for size in ((7, 4), (7, 2), (5, 12), (7, 1), (40, 3)):  # vertical first from 13 on: the first and the third
        for kernel in RADIUS:
            theirs = np.asarray(picture.resize(size[::-1], Image.Resampling[kernel.upper()]))
            vertical = size[0] < 23 and 2 * (9 - size[1]) < 23 - size[0]
            for name in agree:
                ours = _resized(picture, size, kernel, vertical_first=vertical and name == "by size")
                agree[name] &= np.array_equal(ours, theirs)
    return "by size" if agree["by size"] else "horizontal first" if agree["horizontal first"] else None


def _resized(picture: Image.Image, size: tuple[int, int], kernel: str, vertical_first: bool) -> UInt8Array:
    out = np.empty((1, size[0] * size[1] * 3), dtype=np.uint8)
    whole = Cut(np.zeros((1, 1), dtype=np.int64), *size)
    _paint(picture, (0, 0, picture.height, picture.width), size, whole, kernel, None, out, vertical_first)
    return out.reshape(*size, 3)
