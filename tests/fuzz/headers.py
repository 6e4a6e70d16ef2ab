"""Image headers: ways to a size that must be one."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from PIL import AvifImagePlugin, Image, ImageCms, WebPImagePlugin
from PIL.PngImagePlugin import PngInfo

from patchpack.errors import DecodeError
from patchpack.image import size as header
from patchpack.image.decode import open_image, oriented_size, turn_of
from patchpack.image.formats import MAX_PIXELS
from patchpack.image.jpeg import jpeg_head, jpeg_size
from patchpack.types import Size

from .target import Target

STARTS = ((header.START_BYTES, header.PREFIX_BYTES), (64, 256), (256, 1024))  # small files are read in parts too


def check_jpeg(file: bytes) -> None:
    """An answer from the segments of a JPEG is Pillow's answer."""
    head = jpeg_head(file)
    assert jpeg_size(file) == (head and head.size)
    if head is None:
        return
    if head.size.height * head.size.width > MAX_PIXELS:  # the segments know no limit
        assert size_of(lambda: header.read_size(file)) is None
        return
    image = open_image(file)
    assert head.size == oriented_size(image)
    assert head.layers == len(image.getbands())
    assert head.upright == (turn_of(image) is None)
    assert header.read_size(file) == head.size


def check_header(data: bytes) -> None:
    """First byte: how much is fetched at first; the rest is the file.

    A file fetched in parts has the size of the whole one, and no byte is asked for that is not there.
    """
    if not data:
        return
    (first, prefix), file = STARTS[data[0] % len(STARTS)], data[1:]
    whole = size_of(lambda: header.read_size(file))

    def read(at: int, count: int) -> bytes:
        assert at >= 0
        assert 0 <= count <= len(file) - at
        return file[at : at + count]

    usual = header.START_BYTES, header.PREFIX_BYTES
    header.START_BYTES, header.PREFIX_BYTES = first, prefix
    try:
        parts = size_of(lambda: header.read_size_at(read, len(file)))
    finally:
        header.START_BYTES, header.PREFIX_BYTES = usual
    assert parts == whole, (parts, whole)


def size_of(read: Any) -> Size | None:
    """None where the file is refused."""
    try:
        size: Size = read()
    except DecodeError:
        return None
    assert min(size) > 0
    return size


def in_parts() -> list[bytes]:
    """Every file, three times."""
    return [bytes([start]) + file for start in range(len(STARTS)) for file in files()]


def jpegs() -> list[bytes]:
    """Those that begin as a JPEG."""
    return [file for file in files() if file[:2] == b"\xff\xd8"]


def files() -> list[bytes]:
    """A file of every format and of every kind of JPEG."""
    pixels = np.random.default_rng(5).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    made: list[bytes] = []
    for format, mode, options in (
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"progressive": True, "comment": b"a comment", "dpi": (300, 300)}),
        ("JPEG", "RGB", {"exif": exif("<", 6)}),
        ("JPEG", "RGB", {"exif": exif(">", 8), "xmp": xmp}),
        ("JPEG", "RGB", {"icc_profile": icc[:80], "xmp": xmp}),
        ("PNG", "RGB", {"exif": exif("<", 6)}),
        ("PNG", "P", {"pnginfo": text}),
        ("WEBP", "RGB", {"exif": exif("<", 6), "lossless": True}),
        ("GIF", "P", {"comment": b"c"}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"tiffinfo": {0x0112: 6}}),
        ("TIFF", "L", {"compression": "tiff_deflate"}),
        ("AVIF", "RGB", {"exif": exif("<", 6)}),
    ):
        if {"WEBP": WebPImagePlugin.SUPPORTED, "AVIF": AvifImagePlugin.SUPPORTED}.get(format, True):
            file = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(file, format, **options)
            made.append(file.getvalue())
    plain = made[0]
    made.append(plain[:20] + b"\xff\xed\0\x2aPhotoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x0cabcdefghijkl\0\0" + plain[20:])
    made.append(plain[:20] + b"\xff\xe2\0\x10MPF\0II*\0\x08\0\0\0\0\0" + plain[20:])
    made.append(plain[:20] + b"\xff\xfe" + struct.pack(">H", 402) + bytes(400) + plain[20:])
    return made


def exif(endian: str, orientation: int) -> bytes:
    """A block as cameras write it."""
    tags = Image.Exif()
    tags.endian = endian
    for tag, value in {0x0112: orientation, 0x010F: "maker", 0x011A: 300.0, 0x0128: 2}.items():
        tags[tag] = value
    return tags.tobytes()


JPEG = Target("jpeg", check_jpeg, jpegs, 2048)
HEADER = Target("header", check_header, in_parts, 4096)
