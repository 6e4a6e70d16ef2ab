"""Decoding of a JPEG at 1/2, 1/4 or 1/8 of its size, if the target size is much smaller. This is faster, but not exact.

A JPEG stores blocks of 8 x 8 pixels as frequencies. libjpeg can make 4, 2 or 1 pixels per side of a block from the lowest
frequencies alone (Pillow: ``Image.draft``). The other frequencies are read, but not used. The result is
called the drafted image. It has at least twice as many pixels per side as the target. The target is the size to which the
drafted image is then resampled.
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
    """Return the factor by which an image may be decoded smaller: 8, 4, 2 or 1.

    It is the largest factor that leaves at least `MARGIN` * `target` pixels per side of the box.
    """
    room = min(box[2] // (MARGIN * target[0]), box[3] // (MARGIN * target[1]))
    return next((scale for scale in _SCALES if scale <= room), 1)


def scaled_box(box: Box, size: Size, scale: int, turn: Transpose | None) -> Box:
    """Scale a box of an oriented image to the pixels of its drafted image.

    Every edge of the box is rounded to the nearest pixel, so the edge is at most half a pixel off. This also holds at the far
    edge of the image, where the last pixel of the drafted image may lie mostly outside the image.

    Args:
        box: (top, left, height, width) in pixels of the oriented image.
        size: height and width of the whole oriented image.
        scale: factor by which the drafted image was decoded smaller. Pixels of the drafted image are counted from the corner
            where the stored pixels begin.
        turn: the transpose that made the drafted image upright, or None.
    """
    top, left, height, width = box
    top, bottom = (_edge(at, size.height, scale, turn in _ROWS_BACK) for at in (top, top + height))
    left, right = (_edge(at, size.width, scale, turn in _COLS_BACK) for at in (left, left + width))
    return top, left, bottom - top, right - left


def draft(
    image: Image.Image, size: Size, box: Box, target: tuple[int, int], background: Colour, reading: Reading = DEFAULT
) -> tuple[Image.Image, Box] | None:
    """Decode an opened image as small as the target allows. Return an upright RGB image, and the box in pixels of this image.

    Return None if decoding at a smaller size fails, for example for a lossless JPEG. The caller must then open the file again
    and decode it in full.

    Args:
        image: a Pillow image from `open_image`, not loaded. An image that is not a JPEG is decoded in full.
        size: height and width of the whole oriented image.
        box: (top, left, height, width) of the part that is used, in pixels of the oriented image.
        target: (height, width) in pixels that the box will be resampled to.
        background: (red, green, blue), 0 … 255, the colour behind transparent pixels.
        reading: options for reading files. Default: as in a default `Recipe`.

    Raises:
        DecodeError: the image is decoded in full, and decoding fails.
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
