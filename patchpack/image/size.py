"""Bytes to `Size` without decoding a pixel: what the planner needs to know of an image.

The answer is the shape that `patchpack.image.decode.decode` gives, so orientation counts; a file may still turn out
broken when its pixels are decoded. Ordinary JPEG files are walked by `patchpack.image.jpeg`, in a ninth of the time
that Pillow takes to open one; all others, and all refusals, are Pillow's.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from patchpack.errors import DecodeError
from patchpack.image.decode import open_image, oriented_size, require_bytes
from patchpack.image.formats import MAX_BYTES, MAX_PIXELS
from patchpack.image.jpeg import jpeg_size
from patchpack.image.picture import held_size
from patchpack.types import Size

_read = io.BytesIO.read

START_BYTES = 4 * 1024  # the header of most JPEG files
PREFIX_BYTES = 32 * 1024  # the header of a photograph, its EXIF thumbnail included


def picture_size(
    image: Any, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, formats: tuple[str, ...] = ()
) -> Size:
    """Oriented height and width of what a sample holds; decodes no pixels. The formats are further ones, see `Recipe`.

    Raises:
        DecodeError: what no sample may hold, bytes of no known format, or an image over a limit.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        require_bytes(memoryview(image).nbytes, max_bytes)
        return read_size(bytes(image), max_pixels=max_pixels, formats=formats)
    return held_size(image, max_pixels=max_pixels)


def read_size(data: bytes, *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = ()) -> Size:
    """Oriented height and width of an image file.

    Raises:
        DecodeError: if `data` is not an image of a known format, or has more than `max_pixels`.
    """
    return _jpeg_size(data, max_pixels) or oriented_size(open_image(data, max_pixels=max_pixels, formats=formats))


def read_size_at(
    read: Callable[[int, int], bytes],
    length: int,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    formats: tuple[str, ...] = (),
) -> Size:
    """`read_size` of a file that is fetched in parts: its start, and the rest only where that does not settle it.

    The start settles most JPEG, GIF and BMP files. WebP, AVIF and PNG may carry an orientation behind the pixels, TIFF
    its whole directory.

    Args:
        read: ``read(offset, count)`` gives `count` bytes of the file. Its errors pass through.
        length: bytes in the file.
        max_pixels: as in `read_size`.
        max_bytes: of a longer file nothing is read.
        formats: further ones, see `Recipe`.

    Raises:
        DecodeError: as `read_size` on the whole file, or one over the limit.
    """
    if length > max_bytes:  # looked at here, as it is for every header
        require_bytes(length, max_bytes)
    prefix = read(0, min(length, START_BYTES))
    size = _jpeg_size(prefix, max_pixels)
    if size is None and length > START_BYTES:
        prefix += read(START_BYTES, min(length, PREFIX_BYTES) - START_BYTES)
        size = _jpeg_size(prefix, max_pixels)
    if size is not None:
        return size
    if length <= PREFIX_BYTES:
        return oriented_size(open_image(prefix, max_pixels=max_pixels, formats=formats))
    start = _Start(prefix, length)
    try:
        size = oriented_size(open_image(start, max_pixels=max_pixels, formats=formats))
    except DecodeError:
        if not start.overrun:
            raise
    else:
        if not start.overrun:
            return size
    return read_size(prefix + read(len(prefix), length - len(prefix)), max_pixels=max_pixels, formats=formats)


def _jpeg_size(data: bytes, max_pixels: int) -> Size | None:
    """`jpeg_size`, but none over a limit, ours or Pillow's: the refusal is Pillow's to word."""
    size = jpeg_size(data)
    if size is None or size.height * size.width > min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels):
        return None
    return size


class _Start(io.BytesIO):
    """The start of a file: knows its whole length, and remembers when a reader wanted more than is there.

    Remembers, and does not raise: Pillow would take the exception for a broken file in some places, for its end in others.
    """

    def __init__(self, data: bytes, length: int) -> None:
        super().__init__(data)
        self.length = length
        self.overrun = False

    def read(self, size: int | None = -1, /) -> bytes:
        part = _read(self, size)
        if len(part) != size:  # also of None and -1, "all there is"
            self.overrun = True
        return part

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            return super().seek(self.length + offset)
        return super().seek(offset, whence)
