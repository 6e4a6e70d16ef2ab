"""Resampling and cutting into patches in one step. Only the pixels of kept patches are computed.

The source is read directly from Pillow's memory. For bilinear and bicubic resampling with 8 bits per channel, the results equal
those of Pillow's ``Image.resize`` to the bit. The fixed-point weights of 22 bits are computed in float64, and each of the two
passes is rounded to 8 bits.

The order of the passes changes the result. Up to version 12 of Pillow the horizontal pass is first. From version 13 on, the
vertical pass is first if ``th < h and 2 * (w - tw) < h - th``, for a source of h x w and a result of th x tw pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from patchpack._arrays import Float32Array, IndexArray, Int64Array, UInt8Array
from patchpack._foreign.pillow import memory_of
from patchpack.paint.weights import RADIUS, tables, weights_of
from patchpack.types import Grid

Order = Literal["pillow", "horizontal_first"]

BAND_BYTES = 1 << 20  # for an image whose memory is not in one piece: a copied band of this size stays in the cache
_NO_NUMBERS = np.empty(0, dtype=np.uint8)
_MIN_WIDTH = 8  # pixels: one vector of the vertical pass


class Cut(NamedTuple):
    """The division of the resampled pixels into patches.

    Attributes:
        places: int64 ``[rows, cols]``, the output row of each patch of the grid, −1 for a dropped patch.
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
        picture: a loaded image of mode RGB.
        size: (height, width) of the result in pixels, >= 1.
        kernel: antialiased kernel, ``"bilinear"`` or ``"bicubic"``.
        order: order of the two passes. ``"pillow"`` (default) is the order of the installed Pillow. ``"horizontal_first"``
            gives the same pixels with every version of Pillow.

    Returns:
        uint8 ``[height, width, 3]``. With ``order="pillow"`` it equals
        ``np.asarray(picture.resize(size[::-1], FILTERS[kernel]))``.
    """
    out = np.empty((1, size[0] * size[1] * 3), dtype=np.uint8)
    whole = Cut(np.zeros((1, 1), dtype=np.int64), *size)
    paint_patches(picture, (0, 0, picture.height, picture.width), size, whole, kernel, out, order=order)
    return out.reshape(*size, 3)


def places(grid: Grid, kept: IndexArray) -> Int64Array:
    """Return the number of each patch among the kept patches, int64 ``[rows, cols]``, −1 for a dropped patch.

    Args:
        grid: rows and columns of patches.
        kept: ascending numbers of the kept patches, in raster order.
    """
    n = grid.num_patches
    if len(kept) == n:
        return np.arange(n, dtype=np.int64).reshape(grid)
    answer = np.full(n, -1, dtype=np.int64)
    answer[kept] = np.arange(len(kept))
    return answer.reshape(grid)


def resize_numbers(
    pixels: UInt8Array, numbers: Float32Array, size: tuple[int, int], kernel: str, *, order: Order = "pillow"
) -> Float32Array:
    """Resample ``numbers[pixels]`` as Pillow resamples images of mode F.

    Sums are in float64, and each pass is rounded to float32.

    Args:
        pixels: uint8 ``[h, w, 3]``, the source image.
        numbers: float32 ``[256]``, the number that replaces each pixel value.
        size: (height, width) of the result in pixels.
        kernel: antialiased kernel, ``"bilinear"`` or ``"bicubic"``.
        order: order of the two passes, as in `resize`. Default ``"pillow"``.

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
        picture: a loaded image of mode RGB, or a contiguous uint8 array ``[H, W, 4]`` of red, green, blue and an unused byte.
        box: (top, left, height, width) in pixels of `picture`. Pixels outside the box are not read.
        target: (height, width) in pixels that the box is resampled to. Pixels of the grid beyond this size are 0.
        cut: division of the resampled pixels into patches.
        kernel: antialiased kernel, ``"bilinear"`` or ``"bicubic"``.
        out: contiguous array ``[kept, tall * wide * 3]``. The function writes into this array. A patch is in (row, column,
            channel) order.
        numbers: ``[256, 3]``, the output number of each pixel value and channel. Its dtype is the dtype of `out`, of 2 or 4
            bytes. For float32, the further rows that `resample.number_table` adds may follow. Default None, for uint8 output.
        order: order of the two passes, as in `resize`. Default ``"pillow"``.
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


# -------------------------------------------------------------------------------------------------------------- memory


def as_picture(pixels: UInt8Array) -> Image.Image:
    """Copy uint8 ``[H, W, 4]`` (red, green, blue and an unused byte) to an image of mode RGB."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3]))


def memory(picture: Image.Image | UInt8Array) -> UInt8Array | None:
    """Return the memory of a loaded RGB image, uint8 ``[height * width * 4]``: red, green, blue and an unused byte per pixel.

    The memory is valid as long as the image exists. Return None if the memory is not in one piece: Pillow allocates memory in
    blocks of 16 MiB.
    """
    return picture.reshape(-1) if isinstance(picture, np.ndarray) else memory_of(picture)


def _copied(picture: Image.Image, narrowest: int) -> UInt8Array:
    pixels = np.zeros((picture.height, max(picture.width, narrowest), 4), dtype=np.uint8)
    pixels[:, : picture.width, :3] = np.asarray(picture)
    return pixels.reshape(-1)


# --------------------------------------------------------------------------------------------------------------- order


@lru_cache(maxsize=2)
def compile_kernels(numbers: bool) -> None:
    """Compile the resampling kernels, or load them from disk. If `numbers` is True, include the kernels of `resize_numbers`."""
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
    """Return the order of the two passes in the installed Pillow. Results are compared to find it.

    Return None if neither order gives Pillow's results, or if the installed numba cannot compile the kernels. After None, all
    images must be resized with Pillow.
    """
    try:
        from patchpack.paint import _kernels_resample  # noqa: F401
    except (AttributeError, ImportError):
        return None
    pixels = np.random.default_rng(0).integers(0, 256, (23, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    agree = {"by size": True, "horizontal first": True}
    for size in ((7, 4), (7, 2), (5, 12), (7, 1), (40, 3)):  # from Pillow 13 on the vertical pass is first for three of them
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
