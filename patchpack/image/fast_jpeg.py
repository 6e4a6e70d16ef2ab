"""Fast decoding of common JPEG files to the canvas of a thread (see `patchpack.image.canvas`), without a Pillow image.

The decoder is Pillow's or simplejpeg's (``pip install patchpack[simplejpeg]``). Both use libjpeg-turbo and give equal pixels.
If a file is unusual, not upright or not complete, the result is None. The file is then decoded with Pillow in the usual way, so
results and errors do not depend on the decoder.
"""

from __future__ import annotations

from PIL import Image

from patchpack._foreign.pillow import decode_jpeg
from patchpack.image.canvas import Pixels, canvas
from patchpack.image.jpeg import jpeg_head


def decode_fast_jpeg(data: bytes, max_pixels: int, *, simplejpeg: bool = False, tagged: bool = True) -> Pixels | None:
    """Return the pixels of a colour JPEG that is upright and has no fault. Return None for any other file.

    Args:
        data: the bytes of a complete file.
        max_pixels: limit on the pixels of an image. The result is None for a larger image.
        simplejpeg: True decodes with simplejpeg, which must be installed. False decodes with Pillow. Default False.
        tagged: True also decodes a JPEG with a colour profile, without converting its colours. False returns None
            for such a JPEG. Default True.

    Returns:
        uint8 ``[H, W, 4]``: red, green, blue and an unused byte. The next image that this thread decodes overwrites the array.
    """
    head = jpeg_head(data)
    if head is None or head.layers != 3 or not head.upright or (head.tagged and not tagged):
        return None
    height, width = head.size
    if height * width > min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels):
        return None
    pixels = canvas(head.size)
    whole = _by_simplejpeg(data, pixels) if simplejpeg else decode_jpeg(data, pixels)
    return pixels if whole else None


def _by_simplejpeg(data: bytes, pixels: Pixels) -> bool:
    import simplejpeg  # its presence was checked when the recipe was made

    try:  # simplejpeg is strict by default: warnings of libjpeg-turbo are errors, too
        found = simplejpeg.decode_jpeg(data, "RGBX", buffer=pixels.reshape(-1))
    except ValueError:
        return False
    return bool(found.shape == pixels.shape)
