"""Decoding of image files to upright 8-bit RGB: formats, orientation, and conversion of colours.

The formats are JPEG (with MPO), PNG (with APNG), WebP, GIF, BMP, TIFF and AVIF, if the installed Pillow supports them. If a
file holds several images, pages or frames, the first is decoded. Further formats are tried only if a recipe names them in
`Recipe.formats`. A Pillow plugin for a format is not enough.

Pillow raises errors of many classes for broken files. All these errors become a `DecodeError`. Only `MemoryError` is raised
unchanged, and so is an exception that is no subclass of `Exception`, such as `KeyboardInterrupt`. Warnings of Pillow are
recorded (see `patchpack.image.pillow_warnings`).
"""

from __future__ import annotations

import io
from contextlib import nullcontext
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from patchpack._foreign.libtiff import SilentLibtiff
from patchpack._foreign.pillow import has_unread_exif
from patchpack.errors import DecodeError
from patchpack.image import depth, profile
from patchpack.image.formats import DEFAULT, FORMATS, MAX_PIXELS, Reading, require_readable
from patchpack.image.pillow_warnings import SEVERAL_FRAMES, CapturedWarnings, note
from patchpack.image.png import match_key_to_pixels, read_late_chunks
from patchpack.types import Size

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)


_ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 0x0112, 0x0142, 0x0143
# EXIF orientation → the transpose that makes the image upright, as in ImageOps.exif_transpose
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}
_PLACES_OF_TAGS = {"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"}  # in `Image.info`


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    background: Colour = WHITE,
    deep: str = "header",
    icc: str = "ignore",
    formats: tuple[str, ...] = (),
) -> npt.NDArray[np.uint8]:
    """Decode an image file to upright RGB pixels without transparency.

    Grey, palette, CMYK, LAB and YCbCr images are converted to RGB. Grey images with more than 8 bits are scaled so that white
    becomes 255. The header decides which value is white:

    * 16 bits: white is 65535, or 32767 for signed integers.
    * 12 bits: white is 4095. A TIFF states its 12 bits in a tag. A PNG counts as 12 bits if its sBIT chunk states 12 bits and
      its values use only the low bits.
    * 32-bit integers: white is 65535, or the largest value of the image if this value is above 65535.
    * floats: white is 1 if all values are in [0, 1], or 255 if all are in [0, 255]. Values slightly outside are clipped. NaN
      and infinity count as 0.
    * other floats, and integers with negative values: the image is scaled from its minimum to its maximum.

    If the header says that white is stored as 0, the result is inverted. Pillow reads only the upper 8 bits of 16-bit colours.

    Args:
        data: the bytes of a complete image file.
        max_pixels: limit on the pixels of an image. A larger image is refused after its header is read, before a pixel is
            decoded. Default 64 million. Pillow's own limit of 2 * ``Image.MAX_IMAGE_PIXELS`` (179 million) applies as well.
        background: (red, green, blue), 0 … 255, the colour behind transparent pixels. Default white.
        deep: scaling of images with more than 8 bits. ``"header"`` (default) scales as described above. ``"range"`` scales from
            the image's smallest value to its largest.
        icc: treatment of a colour profile. ``"ignore"`` (default) uses the stored colours, ``"srgb"`` converts them to sRGB.
        formats: names of further formats, as in `Recipe.formats`. Default none.

    Returns:
        uint8 ``[H, W, 3]``, oriented as displayed: the EXIF or XMP orientation is applied.

    Raises:
        DecodeError: `data` is not a readable image of a known format, or has too many pixels.
        ConfigError: Pillow has no plugin for one of `formats`, or cannot convert colour profiles.
    """
    reading = Reading(deep, icc, formats)
    require_readable(reading)
    return np.array(decode_image(data, max_pixels=max_pixels, background=background, reading=reading))


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, background: Colour = WHITE, reading: Reading = DEFAULT
) -> Image.Image:
    """Decode an image file to a Pillow image of mode RGB, in the same way as `decode`. An upright RGB image is not copied.

    Args:
        data: the bytes of a complete image file.
        max_pixels: limit on the pixels of an image. A larger image is refused. Default 64 million.
        background: (red, green, blue), 0 … 255, the colour behind transparent pixels. Default white.
        reading: options for reading files. Default: as in a default `Recipe`.
    """
    image = open_image(data, max_pixels=max_pixels, formats=reading.formats)
    return first_frame(image, background=background, reading=reading)


def first_frame(
    image: Image.Image, *, background: Colour = WHITE, full: Size | None = None, reading: Reading = DEFAULT
) -> Image.Image:
    """Convert an opened image to RGB with `to_rgb`. If the file has more than one frame, record a warning.

    Args:
        image: a Pillow image from `open_image`.
        background: (red, green, blue), 0 … 255, the colour behind transparent pixels. Default white.
        full: height and width of the image in the file, for error messages. Default None, the size of `image`.
        reading: options for reading files. Default: as in a default `Recipe`.
    """
    picture = to_rgb(image, background=background, full=full, reading=reading)
    try:
        with CapturedWarnings():
            if getattr(image, "is_animated", False):  # a GIF searches its next frame only now
                note(SEVERAL_FRAMES)
    except MemoryError:
        raise
    except Exception:  # an error in later frames does not matter
        pass
    return picture


def require_bytes(num_bytes: int, max_bytes: int) -> None:
    """Raise `DecodeError` if a file has more than `max_bytes` bytes."""
    if num_bytes > max_bytes:
        raise DecodeError(too_many_bytes(num_bytes, max_bytes))


def too_many_bytes(num_bytes: int, max_bytes: int) -> str:
    """Return the reason for refusing a file with too many bytes."""
    return f"expected a file of at most max_bytes={max_bytes} bytes, got {num_bytes}"


def to_rgb(
    image: Image.Image, *, background: Colour = WHITE, full: Size | None = None, reading: Reading = DEFAULT
) -> Image.Image:
    """Convert a Pillow image to an upright RGB image, by the same rules as `decode`. If nothing must change, return `image`.

    Args:
        image: a Pillow image, loaded or not.
        background: (red, green, blue), 0 … 255, the colour behind transparent pixels. Default white.
        full: height and width of the image in the file, for error messages. Default None, the size of `image`.
        reading: options for reading files. Default: as in a default `Recipe`.
    """
    with CapturedWarnings(), _Refusing(image, full or Size(image.height, image.width)):
        match_key_to_pixels(image)
        scale = depth.of(image)  # before loading: afterwards a PNG's chunks are gone with its file
        with SilentLibtiff() if hasattr(image, "tag_v2") else nullcontext():
            image.load()
        turn = turn_of(image)  # before conversion, which may lose the tag
        tagged = image.info.get("icc_profile") if reading.icc == "srgb" else None
        if scale is not None:
            image = depth.eight_bits(image, scale, stretch=reading.deep == "range")
        if tagged:
            image = profile.to_srgb(image, tagged)
        if image.mode != "RGB" or "transparency" in image.info:
            image = _flatten(image, background)
        return image if turn is None else turned(image, turn)


def turned(image: Image.Image, turn: Image.Transpose) -> Image.Image:
    """Return the image with a transpose applied, and without the tag that requires the transpose."""
    image = image.transpose(turn)
    image.info = {}  # else the tag would turn the image once more
    return image


def open_image(data: bytes | IO[bytes], *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = ()) -> Image.Image:
    """Open an image file, and check its format and its size, without decoding a pixel.

    Args:
        data: the bytes of a file, or a file object.
        max_pixels: limit on the pixels of an image. A larger image is refused. Default 64 million.
        formats: names of formats besides `FORMATS`. Default none.

    Raises:
        DecodeError: the file is not an image of a known format, its header is broken, or it has too many pixels.
    """
    file = io.BytesIO(data) if isinstance(data, (bytes, bytearray, memoryview)) else data
    try:
        with CapturedWarnings():
            image = Image.open(file, formats=(*FORMATS, *formats))
            tile = _tile(image)
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which is checked before ours
        raise DecodeError(f"expected at most {max_pixels} pixels, got: {error}") from error
    except Exception as error:
        raise DecodeError(_not_an_image(file, error, formats)) from error
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError(f"expected at most {max_pixels} pixels, got {height} x {width} (height x width) = {height * width}")
    if tile.height * tile.width > max_pixels:
        raise DecodeError(
            f"expected at most {max_pixels} pixels, got an image in tiles of {tile.height} x {tile.width} (height x width)"
        )
    return image


def _tile(image: Image.Image) -> Size:
    """Return height and width of a TIFF's tiles, or (1, 1) if it has no tiles. A tile may be much larger than the image."""
    tags = getattr(image, "tag_v2", {})
    height, width = tags.get(_TILE_HEIGHT), tags.get(_TILE_WIDTH)
    return Size(height, width) if isinstance(height, int) and isinstance(width, int) else Size(1, 1)


def oriented_size(image: Image.Image) -> Size:
    """Return height and width of an image after orientation, without decoding a pixel."""
    width, height = image.size
    if _ORIENTATION in getattr(image, "tag_v2", ()):  # Pillow's TIFF reader has swapped the sides already
        return Size(height, width)
    with CapturedWarnings():
        if isinstance(image, PngImagePlugin.PngImageFile):
            read_late_chunks(image)
        return Size(width, height) if turn_of(image) in _SIDEWAYS else Size(height, width)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return the transpose that makes an image upright, or None if the image is upright or has no valid orientation tag."""
    if _PLACES_OF_TAGS.isdisjoint(image.info) and has_unread_exif(image) and not hasattr(image, "tag_v2"):
        return None  # the common case: no tag, and no tag was read or set
    try:
        with CapturedWarnings():
            # not PngImageFile's own, which decodes all pixels to find tags behind them
            return _TURNS.get(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # a broken tag must not reject an image
        return None


def _flatten(image: Image.Image, background: Colour) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # cannot be converted to RGBA directly: Pillow would drop the alpha
        image = image.convert("LA")
    image = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=image)
    return canvas


class _Refusing:
    """A context for decoding an image's pixels. Every error inside the context becomes a `DecodeError`."""

    def __init__(self, image: Image.Image, size: Size) -> None:
        self.format, self.size = image.format, size

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, MemoryError):
            height, width = self.size
            got = f"{type(error).__name__}: {error}"
            if (isinstance(error, AssertionError) and not str(error)) or "closed file" in str(error):  # Pillow's only hint
                got = "a file that was closed before its pixels were read (call load() before it is closed)"
            raise DecodeError(
                f"expected a complete {self.format or 'image'} of {height} x {width} pixels (height x width), got {got}"
            ) from error


def _not_an_image(file: IO[bytes], error: Exception, further: tuple[str, ...]) -> str:
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(12)
    why = "" if isinstance(error, UnidentifiedImageError) else f" ({type(error).__name__}: {error})"
    absent = [name for name in further if name not in Image.OPEN]  # possible in a spawned process
    why += f"; Pillow has no plugin for {absent[0]!r} in this process" if absent else ""
    known = (*FORMATS, *further)
    return f"expected a readable {', '.join(known[:-1])} or {known[-1]} file, got {length} bytes that start with {start!r}{why}"
