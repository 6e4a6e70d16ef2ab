"""Sizes come from headers alone, and are those of the decoded picture, however the file is fetched."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from patchpack.errors import DecodeError
from patchpack.image.decode import decode
from patchpack.image.formats import FORMATS
from patchpack.image.size import PREFIX_BYTES, START_BYTES, picture_size, read_size, read_size_at

ORIENTATION = 0x0112
START = [(0, START_BYTES), (START_BYTES, PREFIX_BYTES - START_BYTES)]
NOISE = np.random.default_rng(0).integers(0, 256, (250, 300, 3), dtype=np.uint8)
# more than a prefix in every format
LARGE = Image.fromarray(NOISE)

# every mode Pillow writes in formats that carry an orientation
MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"),
    "AVIF": ("L", "RGB"),
}
FILES = [(format, mode) for format in MODES if format in FORMATS for mode in MODES[format]]


def saved(image: Image.Image, format: str, *, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    image.save(file, format, exif=exif, **options)
    return file.getvalue()


class Parts:
    """A file in parts, and which of them were asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def __call__(self, offset: int, count: int) -> bytes:
        self.asked.append((offset, count))
        return self.data[offset : offset + count]

    def size(self, **limit: int) -> tuple[int, int]:
        return read_size_at(self, len(self.data), **limit)


@pytest.mark.parametrize("format", FORMATS)
def test_no_pixel_is_decoded(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(LARGE, format, orientation=1)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    assert read_size(data) == (250, 300)
    assert Parts(data).size() == (250, 300)


@pytest.mark.parametrize("format", FORMATS)
def test_a_size_has_names(format: str) -> None:
    size = read_size(saved(LARGE, format))
    assert (size.height, size.width) == (250, 300)


@given(
    file=st.sampled_from(FILES),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    orientation=st.integers(1, 8),
    compression=st.sampled_from([None, "tiff_lzw"]),
)
def test_the_size_is_that_of_the_decoded_picture(
    file: tuple[str, str], height: int, width: int, orientation: int, compression: str | None
) -> None:
    format, mode = file
    image = Image.frombytes("RGB", (width, height), NOISE[:height, :width].tobytes())
    image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    data = saved(image, format, orientation=orientation, **({"compression": compression} if format == "TIFF" else {}))
    expected = (width, height) if orientation >= 5 else (height, width)
    assert read_size(data) == Parts(data).size() == decode(data).shape[:2] == expected


@pytest.mark.parametrize("hold", [bytes, bytearray, memoryview, lambda data: Image.open(io.BytesIO(data)), decode])
def test_whatever_a_sample_holds_has_one_size(hold: Any) -> None:
    data = saved(Image.new("RGB", (9, 5)), "JPEG", orientation=6)
    assert picture_size(hold(data)) == read_size(data) == (9, 5)
    with pytest.raises(DecodeError):
        picture_size(hold(data), max_pixels=44)


class TestInParts:
    @pytest.mark.parametrize("orientation", [1, 6])
    @pytest.mark.parametrize("format", FORMATS)
    def test_same_answer_as_from_the_whole(self, format: str, orientation: int) -> None:
        data = saved(LARGE, format, orientation=orientation)
        assert len(data) > PREFIX_BYTES
        assert Parts(data).size() == read_size(data)

    def test_a_little_of_a_jpeg_is_enough(self) -> None:
        parts = Parts(saved(LARGE, "JPEG", orientation=6))
        assert parts.size() == (300, 250)
        assert parts.asked == START[:1]

    def test_a_jpeg_with_more_in_front(self) -> None:
        parts = Parts(saved(LARGE, "JPEG", orientation=6, comment=bytes(5000)))
        assert parts.size() == (300, 250)
        assert parts.asked == START

    @pytest.mark.parametrize("format", ["GIF", "BMP"])
    def test_the_start_is_enough(self, format: str) -> None:
        parts = Parts(saved(LARGE, format))
        assert parts.size() == (250, 300)
        assert parts.asked == START

    def test_a_small_file_is_read_once(self) -> None:
        parts = Parts(saved(LARGE.resize((20, 10)), "PNG", orientation=6))
        assert parts.size() == (20, 10)
        assert parts.asked == [(0, len(parts.data))]

    def test_exif_larger_than_the_start(self) -> None:
        comment, exif = b"\xff\xfe\xff\xff" + bytes(0xFFFD), saved(LARGE, "JPEG", orientation=6)
        parts = Parts(exif[:2] + comment + exif[2:])
        assert parts.size() == (300, 250)
        assert parts.asked == [*START, (PREFIX_BYTES, len(parts.data) - PREFIX_BYTES)]

    def test_a_tag_behind_the_start(self) -> None:
        """The frame is known within the start, the orientation only after it."""
        data = saved(LARGE, "JPEG", orientation=6, quality=95)
        exif_at, exif_length = data.index(b"\xff\xe1"), int.from_bytes(data[data.index(b"\xff\xe1") + 2 :][:2], "big") + 2
        exif, rest = data[exif_at : exif_at + exif_length], data[:exif_at] + data[exif_at + exif_length :]
        scan = rest.index(b"\xff\xda")
        comment = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
        for filler in (comment, b"\xff" * (PREFIX_BYTES - scan)):  # the second ends the start exactly between segments
            parts = Parts(rest[:scan] + filler + exif + rest[scan:])
            assert parts.size() == read_size(parts.data) == (300, 250)
            assert len(parts.asked) == 3

    def test_a_tiff_directory_at_the_end(self) -> None:
        data = saved(LARGE, "TIFF", orientation=6, compression="tiff_lzw")  # libtiff writes it behind the pixels
        assert int.from_bytes(data[4:8], "little") > PREFIX_BYTES
        parts = Parts(data)
        assert parts.size() == (300, 250)
        assert len(parts.asked) == 3

    def test_the_limit(self) -> None:
        for format in FORMATS:
            parts = Parts(saved(LARGE, format))
            with pytest.raises(DecodeError, match=r"at most 74999 pixels, got 250 x 300"):
                parts.size(max_pixels=74_999)
            with pytest.raises(DecodeError, match=r"at most 74999 pixels, got 250 x 300"):
                read_size(parts.data, max_pixels=74_999)

    @pytest.mark.parametrize("data", [b"", b"no picture", b"no picture" * 10_000, saved(LARGE, "WEBP")[:-2000]])
    def test_the_same_error_too(self, data: bytes) -> None:
        with pytest.raises(DecodeError) as whole:
            read_size(data)
        with pytest.raises(DecodeError) as parts:
            Parts(data).size()
        assert str(parts.value) == str(whole.value)

    def test_a_file_shorter_than_announced(self) -> None:
        data = saved(LARGE, "PNG")
        with pytest.raises(DecodeError, match="got 20 bytes"):
            read_size_at(Parts(data[:20]), len(data))

    def test_errors_of_reading_pass(self) -> None:
        def read(offset: int, count: int) -> bytes:
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError, match="gone"):
            read_size_at(read, 100_000)
