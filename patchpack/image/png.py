"""Two properties of PNG files that Pillow does not handle: tags after the pixels, and the depth of the transparent colour."""

from __future__ import annotations

from PIL import Image, PngImagePlugin

# layout of grey pixels of less than 8 bits → the factor that Pillow multiplies them with, and their largest value before that
_GREY_STEPS = {"1": (255, 1), "L;2": (85, 3), "L;4": (17, 15)}


def read_late_chunks(image: PngImagePlugin.PngImageFile) -> None:
    """Read the tags that a PNG file has after its pixels, and put them into `image.info`.

    Pillow also reads these tags when it loads the image.
    """
    if not image.tile or image.fp is None:  # loaded already
        return
    file, place = image.fp, image.fp.tell()
    stream = PngImagePlugin.PngStream(file)
    stream.im_info = image.info
    file.seek(image.tile[0][2] - 8)  # header of the first chunk of pixels
    try:
        while True:
            name, start, length = stream.read()
            if name == b"IEND" or (name == b"fcTL" and image.is_animated):
                break
            if name in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                stream.call(name, start, length)
            file.seek(start + length + 4)
    except MemoryError:
        raise
    except Exception:  # the file ends early or a chunk is broken: decoding reports it, or stops reading here as well
        pass
    finally:
        file.seek(place)


def match_key_to_pixels(image: Image.Image) -> None:
    """Scale the transparent colour of a PNG to 8 bits. Pillow scales pixels of other depths to 8 bits, but not this colour."""
    key = image.info.get("transparency")
    if key is None or not isinstance(image, PngImagePlugin.PngImageFile) or not image.tile:
        return
    layout = image.tile[0][3]
    if layout == "RGB;16B" and isinstance(key, tuple) and max(key) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in key)
    elif layout in _GREY_STEPS and key <= _GREY_STEPS[layout][1]:
        image.info["transparency"] = key * _GREY_STEPS[layout][0]
