"""Shards whose pictures show their own label as 16 black or white patches, one per bit.

So a wrong label is seen in the picture.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

import patchpack as pp

BLOCK = 512
END = bytes(2 * BLOCK)
PATCH = 8
BITS = 12
MAX_LABEL = (1 << BITS) - 1

RECIPE = pp.Recipe(resize=pp.resize.Native(64), patch_size=PATCH, seq_len=128, max_images=8, rows_per_batch=2)

Entry = tuple[str, bytes]


def _code(label: int) -> int:
    """The label, and the sum of its three digits to base 16."""
    return label << 4 | sum(label >> shift & 15 for shift in (0, 4, 8)) & 15


@cache
def picture(label: int, fmt: str = "PNG", noise: int = 8) -> bytes:
    """An image file: 16 patches of code, then noise, so that no two are alike and none fits a block of a tar."""
    assert 0 <= label <= MAX_LABEL
    cols = (16 + noise) // 4
    patches = np.random.default_rng(label).integers(0, 256, (16 + noise, PATCH, PATCH, 3), dtype=np.uint8)
    for i in range(16):
        patches[i] = 255 * (_code(label) >> i & 1)
    pixels = patches.reshape(4, cols, PATCH, PATCH, 3).swapaxes(1, 2).reshape(4 * PATCH, cols * PATCH, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, fmt)
    return file.getvalue()


def painted_label(patches: Any) -> int:
    """What a picture shows, of its patches in raster order ``[n, 3 * PATCH**2]``."""
    code = sum(int(np.asarray(patches[i], dtype=float).mean() > 127) << i for i in range(16))
    assert code == _code(code >> 4), "these are not the patches of one picture"
    return code >> 4


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "", **fields: tuple[int, bytes]) -> bytes:
    """A tar header with a right sum, `fields` written over it at their place first."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return summed(info.tobuf(tarfile.GNU_FORMAT), *fields.values())


def summed(block: bytes, *places: tuple[int, bytes]) -> bytes:
    """A header with `places` written over and its sum made right."""
    changed = bytearray(block)
    for place, value in places:
        changed[place : place + len(value)] = value
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed[:BLOCK])
    return bytes(changed)


def padded(data: bytes) -> bytes:
    """Up to a whole block."""
    return data + bytes(-len(data) % BLOCK)


def member(name: str, data: bytes, format: int = tarfile.GNU_FORMAT, **records: str) -> bytes:
    """One member as the standard library writes it."""
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = len(data), records
    return info.tobuf(tarfile.PAX_FORMAT if records else format, "utf-8", "surrogateescape") + padded(data)


def members(entries: Iterable[Entry], format: int = tarfile.GNU_FORMAT) -> bytes:
    """SampleFields one behind the other, no end marker."""
    return b"".join(member(name, data, format) for name, data in entries)


def pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A pax header with these bytes for its records."""
    return header("././@PaxHeader", len(records), kind) + padded(records)


def record(keyword: str, value: str) -> bytes:
    """One record of a pax header."""
    body = f" {keyword}={value}\n".encode()
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


class Maker:
    """Samples of one shard: number n has stem ``sn`` and a label that no other shard has."""

    def __init__(self, number: int) -> None:
        self._first = 10 * number

    def label(self, n: int) -> int:
        """Its class."""
        return self._first + n

    def image(self, n: int, fmt: str = "PNG") -> bytes:
        """Its picture, the label painted into it."""
        return picture(self.label(n), fmt)

    def cls(self, n: int) -> bytes:
        """Its label member."""
        return b"%d" % self.label(n)

    def sample(self, n: int, stem: str = "", label: bytes | None = None, extension: str = "cls") -> list[Entry]:
        """Its members, image first."""
        stem = stem or f"s{n}"
        return [(f"{stem}.png", self.image(n)), (f"{stem}.{extension}", self.cls(n) if label is None else label)]

    def samples(self, *numbers: int) -> list[Entry]:
        """SampleFields of several."""
        return [entry for n in numbers for entry in self.sample(n)]

    def whole(self, *numbers: int) -> bytes:
        """A whole tar file of samples 1, 2, 3, or of these."""
        return members(self.samples(*(numbers or (1, 2, 3)))) + END

    def with_label(self, label: bytes, extension: str = "cls", others: Sequence[bytes] = ()) -> bytes:
        """A whole tar file of three samples, the second with this label."""
        first, last = others or (self.cls(1), self.cls(3))
        samples = [self.sample(n, label=data, extension=extension) for n, data in ((1, first), (2, label), (3, last))]
        return members(entry for sample in samples for entry in sample) + END


def place(data: bytes, name: str) -> tuple[int, int, int]:
    """Where a member's header begins, its data, and where that ends."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        info = tar.getmember(name)
        return info.offset, info.offset_data, info.offset_data + info.size
