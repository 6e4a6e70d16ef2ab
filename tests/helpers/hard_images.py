"""Difficult image files that any version of Pillow can make, the expected outcome of each, and shards of such files."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from patchpack.image.formats import FORMATS
from patchpack.image.pillow_warnings import SEVERAL_FRAMES

ORIENTATION = 0x0112
EXTENSIONS = "jpg;png;webp;gif;bmp;tif;avif"


class Hard(NamedTuple):
    """One file.

    Attributes:
        name: with one of `EXTENSIONS`.
        data: the file.
        size: (height, width) as one looks at it; None where it is to be refused.
        deep: more than 8 bits and not of one colour.
        warning: what is to be counted.
        either: refusing it is fine, too.
    """

    name: str
    data: bytes
    size: tuple[int, int] | None
    deep: bool = False
    warning: str = ""
    either: bool = False


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@cache
def bomb(side: int = 13_000) -> bytes:
    """A white PNG of side x side pixels of 8 bits, packed row by row."""
    row, packer = b"\0" + b"\xff" * side, zlib.compressobj(9)
    pixels = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiled_tiff(side: int, tile: int) -> bytes:
    """A grey TIFF of side x side pixels in one tile of tile x tile, all but its data."""
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 5), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, tile), (323, 4, tile), (324, 4, 134), (325, 4, 20)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + b"\x80\0" * 10


@cache
def own() -> Sequence[Hard]:
    """A file of every kind of trouble that Pillow can be made to write."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (90, 134, 3), dtype=np.uint8))
    palette = photo.quantize(8)
    deep = np.linspace(0, 65535, 60 * 80).astype(np.uint16).reshape(60, 80)
    frames = [photo.rotate(angle) for angle in (0, 90, 180)]
    jpeg, png = saved(photo, "JPEG"), saved(photo, "PNG")
    several = {"save_all": True, "append_images": frames[1:]}
    files = [
        Hard("plain.jpg", jpeg, (90, 134)),
        Hard("progressive.jpg", saved(photo, "JPEG", progressive=True), (90, 134)),
        Hard("sideways.jpg", saved(photo, "JPEG", exif=turned(6)), (134, 90)),
        Hard("mirrored.jpg", saved(photo, "JPEG", exif=turned(2)), (90, 134)),
        Hard("grey.jpg", saved(photo.convert("L"), "JPEG"), (90, 134)),
        Hard("cmyk.jpg", saved(photo.convert("CMYK"), "JPEG"), (90, 134)),
        Hard("bad_exif.jpg", saved(photo, "JPEG", exif=cut_exif()), (90, 134), warning="corrupt EXIF or TIFF tags"),
        Hard("no_exif.jpg", saved(photo, "JPEG", exif=b"Exif\0\0not a TIFF header"), (90, 134)),
        Hard("cut.jpg", jpeg[: len(jpeg) // 2], None),
        Hard("two_sizes.jpg", two_sizes(jpeg), None),
        Hard("plain.png", png, (90, 134)),
        Hard("sideways.png", saved(photo, "PNG", exif=turned(8)), (134, 90)),
        Hard("deep.png", saved(Image.fromarray(deep), "PNG"), (60, 80), deep=True),
        Hard("one_bit.png", saved(photo.convert("1"), "PNG"), (90, 134)),
        Hard("palette.png", saved(palette, "PNG", transparency=bytes([0, 128, 255])), (90, 134)),
        Hard("grey_alpha.png", saved(photo.convert("LA"), "PNG"), (90, 134)),
        Hard("animated.png", saved(photo, "PNG", **several), (90, 134), warning=SEVERAL_FRAMES),
        Hard("bad_actl.png", bad_actl(png), (90, 134), warning="invalid animation, taken as a plain PNG"),
        Hard("cut.png", png[: len(png) // 2], None),
        Hard("wrong_sum.png", png[:-20] + bytes([png[-20] ^ 1]) + png[-19:], None, either=True),
        Hard("bomb.png", bomb(9_000), None),
        Hard("animated.gif", saved(photo, "GIF", **several), (90, 134), warning=SEVERAL_FRAMES),
        Hard("plain.gif", saved(palette, "GIF"), (90, 134)),
        Hard("second_cut.gif", cut_second_frame(frames), (90, 134), warning=SEVERAL_FRAMES),
        Hard("plain.bmp", saved(photo, "BMP"), (90, 134)),
        Hard("cut.bmp", saved(photo, "BMP")[:3000], None),
        Hard("pages.tif", saved(photo, "TIFF", **several), (90, 134), warning=SEVERAL_FRAMES),
        Hard("sideways.tif", saved(photo, "TIFF", exif=turned(5)), (134, 90)),
        Hard("deep.tif", saved(Image.fromarray(deep), "TIFF"), (60, 80), deep=True),
        Hard("float.tif", saved(Image.fromarray(deep.astype(np.float32) / 7), "TIFF"), (60, 80), deep=True),
        Hard("huge_tile.tif", tiled_tiff(10, 16_384), None),
        Hard("empty.jpg", b"", None),
        Hard("text.png", b"not a picture at all", None),
        Hard("point.png", saved(photo.crop((0, 0, 1, 1)), "PNG"), (1, 1)),
    ]
    if "WEBP" in FORMATS:
        files += [
            Hard("plain.webp", saved(photo, "WEBP"), (90, 134)),
            Hard("sideways.webp", saved(photo, "WEBP", exif=turned(6)), (134, 90)),
            Hard("animated.webp", saved(photo, "WEBP", **several), (90, 134), warning=SEVERAL_FRAMES),
        ]
    if "AVIF" in FORMATS:
        files += [
            Hard("plain.avif", saved(photo, "AVIF"), (90, 134)),
            Hard("animated.avif", saved(photo, "AVIF", **several), (90, 134), warning=SEVERAL_FRAMES),
        ]
    return files


def cut_exif() -> bytes:
    """An orientation tag that is whole, and a second entry that is not."""
    return b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 2, ORIENTATION, 3, 1, 1) + b"\x0f\x01"


def two_sizes(jpeg: bytes) -> bytes:
    """A frame header before the file's own that says 90 x 60."""
    at = jpeg.index(b"\xff\xc0")
    length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    other = bytearray(jpeg[at : at + length])
    other[7:9] = (60).to_bytes(2, "big")
    return jpeg[:at] + bytes(other) + jpeg[at:]


def bad_actl(png: bytes) -> bytes:
    """An animation of no frames."""
    return png[:33] + chunk(b"acTL", struct.pack(">II", 0, 0)) + png[33:]


def cut_second_frame(frames: Sequence[Image.Image]) -> bytes:
    whole = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    return whole[: int(len(whole) * 0.45)]


def write_shard(path: Path, files: Iterable[Hard]) -> str:
    """A shard of them with a label each; keys are ``<shard>/<number>``."""
    with tarfile.open(path, "w") as tar:
        for number, file in enumerate(files):
            for name, data in ((file.name.rpartition(".")[2], file.data), ("cls", b"%d" % number)):
                info = tarfile.TarInfo(f"{number:03}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)
