"""The sizes of images, read from the headers of their files without decoding a pixel. A plan needs only these sizes.

The size is the height and width that `patchpack.image.decode.decode` gives, after orientation. A file whose size is known may
still have broken pixels. For a common JPEG file, `patchpack.image.jpeg` takes a ninth of the time that Pillow takes to open the
file. Pillow opens all other files, and all errors come from Pillow.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import BinaryIO

from PIL import Image

from patchpack._shown import said
from patchpack.errors import DecodeError, SourceError
from patchpack.image.decode import open_image, oriented_size, require_bytes
from patchpack.image.formats import MAX_BYTES, MAX_PIXELS
from patchpack.image.jpeg import jpeg_size
from patchpack.image.paths import ImageFile, is_text, located
from patchpack.image.picture import held_size
from patchpack.types import Size

_read = io.BytesIO.read

START_BYTES = 4 * 1024  # the header of most JPEG files
PREFIX_BYTES = 32 * 1024  # the header of a photograph, including its EXIF thumbnail


def picture_size(
    image: object, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, formats: tuple[str, ...] = ()
) -> Size:
    """Return the oriented height and width of a sample's image, without decoding pixels.

    Args:
        image: any value of `Sample.image` for a single image. Of a file only the header is read.
        max_pixels: limit on the pixels of an image. Default 64 million.
        max_bytes: limit on the bytes of an image file. Default 512 MiB.
        formats: names of further formats, as in `Recipe.formats`. Default none.

    Raises:
        DecodeError: `image` has another type or an unknown format, or is over a limit.
        SourceError: the file that `image` names cannot be read.
    """
    if not isinstance(image, bytes) and is_text(image):
        image = located(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        require_bytes(memoryview(image).nbytes, max_bytes)
        return read_size(bytes(image), max_pixels=max_pixels, formats=formats)
    if isinstance(image, ImageFile):
        with image.open() as file:
            try:
                return read_size_in(file, max_pixels=max_pixels, max_bytes=max_bytes, formats=formats)
            except OSError as error:
                raise SourceError(f"{said(error)} for {image.path!r}") from None
    return held_size(image, max_pixels=max_pixels)


def read_size(data: bytes, *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = ()) -> Size:
    """Return the oriented height and width of an image file.

    Args:
        data: the bytes of a complete file.
        max_pixels: limit on the pixels of an image. Default 64 million.
        formats: names of further formats, as in `Recipe.formats`. Default none.

    Raises:
        DecodeError: `data` is not an image of a known format, or has more than `max_pixels` pixels.
    """
    return _jpeg_size(data, max_pixels) or oriented_size(open_image(data, max_pixels=max_pixels, formats=formats))


def read_size_in(
    file: BinaryIO, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES, formats: tuple[str, ...] = ()
) -> Size:
    """Return the oriented height and width of an open image file, see `read_size_at`.

    Args:
        file: a file object of bytes that can be read from any position. Errors of the file are raised unchanged.
        max_pixels: limit on the pixels of an image. Default 64 million.
        max_bytes: limit on the bytes of a file. Default 512 MiB.
        formats: names of further formats, as in `Recipe.formats`. Default none.
    """

    def read(offset: int, count: int) -> bytes:
        file.seek(offset)
        return file.read(count)

    return read_size_at(read, file.seek(0, os.SEEK_END), max_pixels=max_pixels, max_bytes=max_bytes, formats=formats)


def read_size_at(
    read: Callable[[int, int], bytes],
    length: int,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    formats: tuple[str, ...] = (),
) -> Size:
    """Return the oriented height and width of an image file, reading as little of the file as possible.

    The function reads the start of the file, and the rest only if necessary. The start is enough for most JPEG, GIF and BMP
    files. WebP, AVIF and PNG files may have an orientation after the pixels. TIFF files may have all their tags after the
    pixels.

    Args:
        read: a function from (offset, count) to `count` bytes of the file. Errors of `read` are raised unchanged.
        length: number of bytes in the file.
        max_pixels: limit on the pixels of an image. Default 64 million.
        max_bytes: limit on the bytes of a file. Default 512 MiB. No byte of a longer file is read.
        formats: names of further formats, as in `Recipe.formats`. Default none.

    Raises:
        DecodeError: the file is not an image of a known format, or is over a limit.
    """
    if length > max_bytes:  # compared here first, because this runs for every header
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
    """Return the result of `jpeg_size`, or None for an image over a limit. Pillow then opens the file and raises the error."""
    size = jpeg_size(data)
    if size is None or size.height * size.width > min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels):
        return None
    return size


class _Start(io.BytesIO):
    """A file object that holds only the start of a file, and knows the length of the whole file.

    `overrun` becomes True when a reader requests bytes beyond the start. No exception is raised then, because Pillow would take
    an exception for a broken file, or for the end of the file.
    """

    def __init__(self, data: bytes, length: int) -> None:
        super().__init__(data)
        self.length = length
        self.overrun = False

    def read(self, size: int | None = -1, /) -> bytes:
        part = _read(self, size)
        if len(part) != size:  # also for None and -1, "to the end"
            self.overrun = True
        return part

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            return super().seek(self.length + offset)
        return super().seek(offset, whence)
