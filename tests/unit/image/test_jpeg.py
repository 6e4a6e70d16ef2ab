"""An answer from the segments of a JPEG is Pillow's answer, on whole files and on broken ones; no answer is always allowed."""

from __future__ import annotations

import io
import struct
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from helpers.photographs import files_in
from patchpack.errors import DecodeError
from patchpack.image.decode import open_image, oriented_size
from patchpack.image.jpeg import jpeg_size
from patchpack.image.size import read_size, read_size_at

ORIENTATION = 0x0112


def by_pillow(data: bytes) -> tuple[int, int] | str:
    try:
        return oriented_size(open_image(data))
    except DecodeError as error:
        return str(error)


def agrees(data: bytes) -> bool:
    """True if there is an answer, which then is Pillow's."""
    size = jpeg_size(data)
    assert size is None or size == by_pillow(data)
    return size is not None


def exif(endian: str = "<", **tags: Any) -> bytes:
    """An EXIF block as cameras write it: orientation among strings and rationals."""
    made = Image.Exif()
    made.endian = endian
    for tag, value in {0x010F: "maker of the camera", 0x011A: 300.0, 0x011B: 300.0, 0x0128: 2, **tags}.items():
        made[int(tag)] = value
    return made.tobytes()


def xmp(orientation: int) -> bytes:
    return b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


@cache
def files() -> dict[str, bytes]:
    """Small JPEG files with all that is written in front of the pixels."""
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = {}
    for name, mode, options in (
        ("plain", "RGB", {}),
        ("grey", "L", {}),
        ("cmyk", "CMYK", {}),
        ("progressive", "RGB", {"progressive": True, "optimize": True}),
        ("restarts", "RGB", {"restart_marker_rows": 1}),
        ("commented", "RGB", {"comment": b"a comment", "dpi": (300, 300)}),
        ("profile", "RGB", {"icc_profile": icc}),
        ("upright", "RGB", {"exif": exif()}),
        ("turned", "RGB", {"exif": exif(**{str(ORIENTATION): 6}), "icc_profile": icc, "comment": b"x"}),
        ("turned, big-endian", "RGB", {"exif": exif(">", **{str(ORIENTATION): 8})}),
        ("turned by xmp", "RGB", {"xmp": xmp(6)}),
        ("turned by exif, not by xmp", "RGB", {"exif": exif(**{str(ORIENTATION): 5}), "xmp": xmp(1)}),
        ("xmp of another kind", "RGB", {"xmp": b"<x:xmpmeta/>"}),
    ):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (5, 9, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
        made[name] = file.getvalue()
    photoshop = b"\xff\xed\0\x2aPhotoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x0cabcdefghijkl" + b"\0\0"
    made["photoshop"] = made["plain"][:20] + photoshop + made["plain"][20:]
    return made


WITHOUT_ANSWER = {"turned by xmp"}


@pytest.mark.parametrize("name", files())
def test_ordinary_files_get_an_answer(name: str) -> None:
    assert agrees(files()[name]) is (name not in WITHOUT_ANSWER)
    assert read_size(files()[name]) == by_pillow(files()[name])


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("endian", ["<", ">"])
def test_every_orientation(orientation: int, endian: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (7, 4)).save(file, "JPEG", exif=exif(endian, **{str(ORIENTATION): orientation}))
    assert agrees(file.getvalue())


@given(st.sampled_from(sorted(files())), st.data())
def test_changed_bytes_never_make_another_answer(name: str, draw: st.DataObject) -> None:
    """One to four bytes before the pixels, set to what matters in a JPEG or to anything."""
    data = bytearray(files()[name])
    end = data.index(b"\xff\xda") + 14
    values = st.one_of(st.sampled_from([0, 1, 2, 6, 8, 0xC0, 0xC2, 0xD8, 0xDA, 0xDB, 0xE1, 0xFF]), st.integers(0, 255))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, end - 1))] = draw.draw(values)
    agrees(bytes(data))


@given(st.sampled_from(sorted(files())), st.data())
def test_cut_or_spliced_files_never_make_another_answer(name: str, draw: st.DataObject) -> None:
    data = files()[name]
    end = data.index(b"\xff\xda") + 14
    a, b = sorted((draw.draw(st.integers(0, end)), draw.draw(st.integers(0, end))))
    junk = draw.draw(st.binary(max_size=20))
    for broken in (data[:a], data[:a] + data[b:], data[:a] + junk + data[a:], data[:b] + data[a:]):
        agrees(broken)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


bodies = st.one_of(
    st.binary(max_size=24),
    st.sampled_from([
        b"JFIF\0\1\1\0\0\1\0\1\0\0", b"JFIF\0\1", b"JFIF", b"ICC_PROFILE\0\1\1profile", b"ICC_PROFILE\0", b"ICC_PROFILE\0\1",
        b"MPF\0II*\0\x08\0\0\0\0\0", b"FPXR\0", b"Adobe\0\x64\0\0\0\0\1", b"Adobe", b"Adobe\0\x64", b"Photoshop 3.0\0",
        b"Photoshop 3.0\x008BIM\x04\x04", b"Photoshop 3.0\x008BIM\x04\x04\0", b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x02ab",
        b"Exif\0\0", b"Exif\0\0Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\0\0", b"Exif\0\0II+\0\x08\0\0\0\0\0\0\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0",
        exif(**{str(ORIENTATION): 6}), exif(**{str(ORIENTATION): 3}), b"http://ns.adobe.com/xap/1.0/\0" + xmp(8),
        b"\0" + bytes(64), b"\x10" + bytes(128), 2 * (b"\0" + bytes(64)), b"\0" + bytes(63),
    ]),
    st.builds(
        lambda bits, h, w, layers, more: struct.pack(">BHHB", bits, h, w, layers) + bytes(3 * layers + more),
        st.sampled_from([8, 8, 8, 12]), st.integers(0, 3), st.integers(0, 3), st.sampled_from([1, 3, 3, 4, 2]),
        st.sampled_from([0, 0, 0, 1, 3]),
    ),
)  # fmt: skip
markers = st.one_of(
    st.sampled_from([0xC0, 0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xE0, 0xE1, 0xE1, 0xE2, 0xED, 0xEE, 0xFE]), st.integers(0, 255)
)
FRAME, SCAN = segment(0xC0, b"\x08\0\3\0\5\1" + bytes(3)), segment(0xDA, bytes(8))


segments = st.builds(segment, markers, bodies)


@given(st.lists(segments, max_size=6), st.lists(segments, max_size=3))
def test_any_segments_in_any_order(before: list[bytes], after: list[bytes]) -> None:
    agrees(b"\xff\xd8" + b"".join(before) + FRAME + b"".join(after) + SCAN)
    agrees(b"\xff\xd8" + b"".join(before) + SCAN)


def directory(*entries: tuple[int, int, int, int], offset: int = 8, rest: bytes = bytes(4)) -> bytes:
    """An EXIF segment of (tag, type, count, value)."""
    body = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return segment(0xE1, b"Exif\0\0" + struct.pack("<4sLH", b"II*\0", offset, len(entries)) + body + rest)


TURNED, UPRIGHT = (ORIENTATION, 3, 1, 6), (ORIENTATION, 3, 1, 1)
LEFT_TO_PILLOW = {
    "Photoshop's resources end before a name": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
    "a colour profile without its number": segment(0xE2, b"ICC_PROFILE\0\1"),
    "JFIF without a version": segment(0xE0, b"JFIF\0\1"),
    "Adobe without a version": segment(0xEE, b"Adobe"),
    "several pictures": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0"),
    "two frames": segment(0xC0, b"\x08\0\7\0\5\1" + bytes(3)),
    "a frame of 12 bits": segment(0xC1, b"\x0c\0\3\0\5\1" + bytes(3)),
    "a frame that is too short": segment(0xC0, b"\x08\0\3\0\5\1" + bytes(1)),
    "a frame that is too long": segment(0xC0, b"\x08\0\3\0\5\1" + bytes(4)),
    "a frame of no height": segment(0xC0, b"\x08\0\0\0\5\1" + bytes(3)),
    "a lossless frame": segment(0xC3, b"\x08\0\3\0\5\1" + bytes(3)),
    "half a table": segment(0xDB, bytes(40)),
    "a table and a half": segment(0xDB, bytes(100)),
    "half a table of 16 bits": segment(0xDB, b"\x10" + bytes(64)),
    "two EXIF segments": directory(UPRIGHT) + directory(TURNED),
    "two orientations": directory(TURNED, UPRIGHT),
    "an orientation of another type": directory((ORIENTATION, 4, 1, 6)),
    "two values of an orientation": directory((ORIENTATION, 3, 2, 6)),
    "a resolution in letters": directory((0x011A, 2, 1, ord("9")), (0x0128, 3, 1, 2), TURNED),
    "a value behind the end": directory((0x010F, 2, 99, 20), TURNED),
    "a type of another world": directory((0x010F, 99, 1, 0), TURNED),
    "no place for the next directory": directory(TURNED, rest=b""),
    "a directory in the header": directory(TURNED, offset=4, rest=bytes(60)),
    "a directory behind the end": directory(TURNED, offset=999),
    "a marker that is none": b"\xff\x02\0\2",
    "fill bytes": b"\xff" + segment(0xFE, b"x"),
    "junk between segments": b"\0" + segment(0xFE, b"x"),
    "a length below two": b"\xff\xfe\0\1",
    "no scan": segment(0xFE, b"x" * 60_000)[:-10_000],
}


@pytest.mark.parametrize("name", LEFT_TO_PILLOW)
def test_odd_files_are_left_to_pillow(name: str) -> None:
    data = b"\xff\xd8" + LEFT_TO_PILLOW[name] + (b"" if "a frame" in name else FRAME) + SCAN
    assert jpeg_size(data) is None
    assert agrees(b"\xff\xd8" + FRAME + SCAN)


@pytest.mark.parametrize("tags", [(), (UPRIGHT,), (TURNED,), ((0x010F, 2, 4, 0), TURNED), ((0x010F, 2, 9, 8), TURNED)])
def test_ordinary_directories_get_an_answer(tags: tuple[tuple[int, int, int, int], ...]) -> None:
    assert agrees(b"\xff\xd8" + directory(*tags) + FRAME + SCAN)


@st.composite
def directories(draw: st.DrawFn) -> bytes:
    """EXIF blocks with entries of any type and count, of which some are read by Pillow."""
    order = draw(st.sampled_from(["little", "big"]))
    entries = draw(
        st.lists(
            st.tuples(
                st.sampled_from([ORIENTATION, ORIENTATION, 0x011A, 0x0128, 0x010F, 0x8769]),
                st.integers(0, 14),
                st.sampled_from([0, 1, 1, 1, 2, 9, 1 << 31]),
                st.one_of(st.integers(0, 70), st.sampled_from([6 << 16, 6 << 24, 1 << 31])),
            ),
            max_size=4,
        )
    )
    offset = draw(st.sampled_from([8, 8, 8, 9, 0, 4, 500]))
    data = (b"II*\0" if order == "little" else b"MM\0*") + offset.to_bytes(4, order) + bytes(max(0, min(offset, 9) - 8))
    data += draw(st.sampled_from([len(entries)] * 4 + [len(entries) + 1])).to_bytes(2, order)
    for tag, kind, count, value in entries:
        data += tag.to_bytes(2, order) + kind.to_bytes(2, order) + count.to_bytes(4, order) + value.to_bytes(4, order)
    return b"Exif\0\0" + data + draw(st.binary(max_size=40))


@given(directories(), st.booleans())
def test_any_directory(block: bytes, with_xmp: bool) -> None:
    more = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(6)) if with_xmp else b""
    agrees(b"\xff\xd8" + segment(0xE1, block) + more + FRAME + SCAN)


def test_a_limit_is_refused_in_pillows_words(monkeypatch: pytest.MonkeyPatch) -> None:
    data = files()["plain"]
    with pytest.raises(DecodeError, match="at most 44 pixels, got 5 x 9"):
        read_size(data, max_pixels=44)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DecodeError, match="exceeds limit of 40 pixels"):
        read_size(data)


def test_every_photograph(photographs: list[str]) -> None:
    jpegs, without = 0, []
    for name, data in files_in(photographs):
        assert read_size_at(lambda at, count, data=data: data[at : at + count], len(data)) == by_pillow(data), name
        answered, is_jpeg = agrees(data), data.startswith(b"\xff\xd8")
        assert is_jpeg or not answered, name
        jpegs += is_jpeg
        without += [name] * (is_jpeg and not answered)
    assert len(without) <= jpegs / 80, without  # a photograph may be odd; hardly one is


def test_every_hard_file(hard_files: list[tuple[str, bytes]]) -> None:
    for _, data in hard_files:
        agrees(data)
