"""Decoding at a half, a quarter or an eighth of the size, if the target is that much smaller: not exact, but much faster.

A JPEG stores 8 x 8 blocks by frequency. From the lowest frequencies libjpeg makes 4, 2 or 1 pixels per side of a block. The
others are read but never computed (Pillow: ``Image.draft``). The resulting image has at least twice the target's pixels per
side, and the normal antialiased resampling then makes the target from it.
"""

from __future__ import annotations

from PIL import Image
from PIL.Image import Transpose
from PIL.JpegImagePlugin import JpegImageFile

from patchpack.errors import DecodeError
from patchpack.image.decode import Colour, first_frame, turn_of
from patchpack.image.formats import DEFAULT, Reading
from patchpack.types import Size

Box = tuple[int, int, int, int]

MARGIN = 2  # least pixels of the drafted image per pixel of the target
_SCALES = (8, 4, 2)
# transposes that put the last stored pixel first
_ROWS_BACK = {Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM, Transpose.TRANSVERSE, Transpose.ROTATE_90}
_COLS_BACK = {Transpose.ROTATE_180, Transpose.FLIP_LEFT_RIGHT, Transpose.TRANSVERSE, Transpose.ROTATE_270}


def scale_for(box: Box, target: tuple[int, int]) -> int:
    """Return how many times smaller an image may be decoded: the largest of 8, 4, 2 and 1 that leaves `MARGIN` targets."""
    room = min(box[2] // (MARGIN * target[0]), box[3] // (MARGIN * target[1]))
    return next((scale for scale in _SCALES if scale <= room), 1)


def scaled_box(box: Box, size: Size, scale: int, turn: Transpose | None) -> Box:
    """Scale a box of an oriented image to the pixels of its drafted image.

    Every edge is rounded to the nearest, so it is at most half a pixel off. That holds at the far edge of the image too, where
    the drafted image may have a pixel that is mostly beyond the image.

    Args:
        box: (top, left, height, width), oriented.
        size: of the whole image, oriented.
        scale: how many times smaller it was decoded. Blocks count from the corner where the stored pixels begin.
        turn: the transpose that made the drafted image upright, or None.
    """
    top, left, height, width = box
    top, bottom = (_edge(at, size.height, scale, turn in _ROWS_BACK) for at in (top, top + height))
    left, right = (_edge(at, size.width, scale, turn in _COLS_BACK) for at in (left, left + width))
    return top, left, bottom - top, right - left


def draft(
    image: Image.Image, size: Size, box: Box, target: tuple[int, int], background: Colour, reading: Reading = DEFAULT
) -> tuple[Image.Image, Box] | None:
    """Decode an opened image as small as the target allows. Return an upright RGB image, and the box in its pixels.

    Return None for a file that cannot be decoded smaller, such as a lossless JPEG, or not at all. It must then be opened and
    decoded again.

    Args:
        image: opened by `open_image`, not loaded. Any format but JPEG is decoded in full.
        size: of the whole image, oriented.
        box: (top, left, height, width) within it.
        target: (height, width) that the box will be resampled to.
        background: (red, green, blue) that shows through transparency.
        reading: scaling of deep images, and handling of colour profiles.

    Raises:
        DecodeError: like `decode`.
    """
    full = Size(image.height, image.width)
    scale = scale_for(box, target) if isinstance(image, JpegImageFile) else 1
    if scale == 1 or image.draft(None, (full.width // scale, full.height // scale)) is None:
        return first_frame(image, background=background, full=full, reading=reading), box
    box = scaled_box(box, size, scale, turn_of(image))
    try:
        return first_frame(image, background=background, full=full, reading=reading), box
    except DecodeError:
        return None


def _edge(at: int, end: int, scale: int, back: bool) -> int:
    if back:
        return -(-end // scale) - _edge(end - at, end, scale, False)
    return (2 * at + scale) // (2 * scale)
