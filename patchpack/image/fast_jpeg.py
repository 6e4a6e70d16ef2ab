"""Ordinary JPEG files without a picture object: decoded onto the canvas, where the resampler reads them.

The decoder is Pillow's own, or simplejpeg's (``pip install patchpack[turbo]``); both sit on libjpeg-turbo and give the same
pixels. What is not ordinary, or upright, or whole gets no answer: it is for Pillow to open or to refuse, so that neither
results nor errors depend on the way.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from patchpack.image.canvas import Pixels, canvas
from patchpack.image.jpeg import jpeg_head

_core: Any = vars(Image)["core"]  # what `Image.load` itself calls


def decode_fast_jpeg(data: bytes, max_pixels: int, *, turbo: bool = False, tagged: bool = True) -> Pixels | None:
    """Pixels of an upright colour JPEG without a fault; None for all else.

    Args:
        data: a whole file.
        max_pixels: a larger picture gets no answer.
        turbo: by simplejpeg, which must be there.
        tagged: also of a JPEG with a colour profile, whose colours are taken as they are.

    Returns:
        uint8 ``[H, W, 4]``, red, green, blue, filler; on the `canvas`, so until the next picture.
    """
    head = jpeg_head(data)
    if head is None or head.layers != 3 or not head.upright or (head.tagged and not tagged):
        return None
    height, width = head.size
    if height * width > min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels):
        return None
    pixels = canvas(head.size)
    whole = _by_simplejpeg(data, pixels) if turbo else _by_pillow(data, pixels)
    return pixels if whole else None


def _by_pillow(data: bytes, pixels: Pixels) -> bool:
    height, width, _ = pixels.shape
    try:
        image = _core.map_buffer(pixels, (width, height), "raw", 0, ("RGB", 4 * width, 1))
        decoder = _core.jpeg_decoder("RGB", "RGB", "")
        decoder.setimage(image, (0, 0, width, height))
        end, error = decoder.decode(data)
    except (AttributeError, TypeError, ValueError):  # a Pillow that has them otherwise
        return False
    return bool(end == -1 and error == 0)


def _by_simplejpeg(data: bytes, pixels: Pixels) -> bool:
    import simplejpeg  # asked for when the recipe was made

    try:  # strict, as it is: what libjpeg-turbo warns of is an error, too
        found = simplejpeg.decode_jpeg(data, "RGBX", buffer=pixels.reshape(-1))
    except ValueError:
        return False
    return bool(found.shape == pixels.shape)
