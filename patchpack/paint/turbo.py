"""Ordinary JPEG files through simplejpeg (``pip install patchpack[turbo]``): the pixels that Pillow gives, in less time.

Both sit on libjpeg-turbo. This way makes no picture object: the resampler reads the decoded pixels where they lie. What is
not ordinary, or upright, or whole gets no answer: it is Pillow's to decode or to refuse, so that neither results nor errors
depend on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from patchpack.paint.jpeg import jpeg_head


def decode_ordinary(data: bytes, max_pixels: int) -> npt.NDArray[np.uint8] | None:
    """Pixels of an upright colour JPEG without a fault, uint8 ``[H, W, 4]``, red, green, blue, filler; None for all else."""
    import simplejpeg  # asked for when the recipe was made

    head = jpeg_head(data)
    if head is None or head.layers != 3 or not head.upright:
        return None
    if head.size.height * head.size.width > min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels):
        return None
    try:
        pixels: Any = simplejpeg.decode_jpeg(data, "RGBX")  # strict: what libjpeg-turbo warns of is an error, too
    except ValueError:
        return None
    return pixels if pixels.shape == (*head.size, 4) else None
