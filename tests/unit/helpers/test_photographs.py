"""Drawn photographs are what they are said to be, look upright, come again from their seed, and resemble real ones."""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers import photographs as drawing
from helpers.photographs import ENCODINGS, ORIENTATION, Photograph, files_in, pixels

SAMPLING = {"4:4:4": (0x11,), "4:2:2": (0x21, 0x11, 0x11), "4:2:0": (0x22, 0x11, 0x11)}


def segments(data: bytes) -> dict[int, bytes]:
    """Return the segments before the pixels by marker."""
    found, at = {}, 2
    while (marker := data[at + 1]) != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        found[marker], at = data[at + 4 : at + 2 + length], at + 2 + length
    return found


def of(kind: str) -> list[Photograph]:
    return [photo for photo in drawing.photographs() if photo.encoding.name == kind]


def test_every_encoding_and_every_orientation_is_there() -> None:
    assert [len(of(encoding.name)) for encoding in ENCODINGS] == [4] * len(ENCODINGS)
    every = drawing.photographs()
    assert len({photo.name for photo in every}) == len({photo.label for photo in every}) == len(every) == 96
    assert {photo.encoding.orientation for photo in every} == set(range(1, 9))
    qualities = [photo.encoding.options["quality"] for photo in every if photo.name.endswith(".jpg")]
    assert (min(qualities), max(qualities)) == (30, 98)


@pytest.mark.parametrize("kind", [encoding.name for encoding in ENCODINGS if encoding.extension == "jpg"])
def test_a_jpeg_is_stored_as_said(kind: str) -> None:
    for photo in of(kind):
        encoding, found = photo.encoding, segments(photo.data)
        frame = found.get(0xC2 if encoding.options.get("progressive") else 0xC0)
        assert frame is not None
        layers = {"L": 1, "RGB": 3, "CMYK": 4}[encoding.mode]
        assert frame[5] == layers
        sampling = tuple(frame[7::3])
        assert sampling == (SAMPLING[encoding.options["subsampling"]] + (0x11,) * 4)[:layers]
        assert (0xDD in found) is any("restart" in option for option in encoding.options)
        assert (0xFE in found) is ("comment" in encoding.options)
        with Image.open(io.BytesIO(photo.data)) as image:
            assert image.mode == encoding.mode
            assert image.getexif().get(ORIENTATION, 1) == encoding.orientation


def test_other_formats_are_stored_as_said() -> None:
    for photo in of("16 bits"):
        assert photo.data[24:26] == b"\x10\0"  # bits of a sample, grey
        with Image.open(io.BytesIO(photo.data)) as image:
            assert image.mode == "I;16"
            assert (np.asarray(image) % 257 != 0).mean() > 0.9  # not 8 bits that are stretched
    for photo in of("PNG"):
        assert photo.data[24:26] == b"\x08\x02"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(photo.data))), np.rint(pixels(photo.label)))
    assert {Image.open(io.BytesIO(photo.data)).format for photo in of("WebP")} == {"WEBP"}


@pytest.mark.parametrize("kind", [encoding.name for encoding in ENCODINGS if encoding.mode != "I;16"])
def test_a_file_shows_what_was_drawn_upright(kind: str) -> None:
    for photo in of(kind):
        drawn = pixels(photo.label)
        shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(photo.data))).convert("RGB"), dtype=np.float32)
        assert shown.shape == drawn.shape
        if photo.encoding.mode == "L":
            drawn, shown = drawn @ np.float32([0.299, 0.587, 0.114]), shown[..., 0]
        away = abs(shown - drawn).mean()
        assert away < 16
        for other in (shown[::-1], shown[:, ::-1], shown[::-1, ::-1]):
            assert away < 0.75 * abs(other - drawn).mean()


def test_a_seed_gives_the_same_pixels_again(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = (0, 5, 30, 61)
    first = [pixels(number) for number in numbers]
    for kept in ("scene", "_tile", "_noise"):
        monkeypatch.setattr(drawing, kept, cache(getattr(drawing, kept).__wrapped__))
    assert all(np.array_equal(once, pixels(number)) for once, number in zip(first, numbers, strict=True))
    assert not np.array_equal(first[0][:64, :64], pixels(numbers[0], seed=1)[:64, :64])


def test_shards_hold_every_file(photographs: list[str], request: pytest.FixtureRequest) -> None:
    names = [name for name, _ in files_in(photographs)]
    assert len(set(names)) == len(names)
    assert len(photographs) == 4
    if request.node.callspec.params["photographs"] == "drawn":
        assert list(files_in(photographs)) == [(photo.name, photo.data) for photo in drawing.photographs()]


def spectrum_slope(grey: np.ndarray) -> float:
    """Return how the power of the middle falls with the frequency, as an exponent."""
    side = min(256, *grey.shape)
    top, left = ((whole - side) // 2 for whole in grey.shape)
    part = grey[top : top + side, left : left + side]
    window = np.hanning(side)
    power = abs(np.fft.fft2((part - part.mean()) * window[:, None] * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    bounds = np.geomspace(3 / side, 0.35, 12)
    rings = np.digitize(frequency, bounds)
    means = [power[rings == radius].mean() for radius in range(1, 12)]
    return float(np.polyfit(np.log(bounds[:-1] * bounds[1:]) / 2, np.log(means), 1)[0])


def test_statistics_are_those_of_photographs(photographs: list[str]) -> None:
    """Medians of 400 real ones: 0.56 bytes a pixel, power as f ** -2.4, two neighbours in five alike, one in twenty an edge."""
    rows = []
    for _, data in list(files_in(photographs))[1::5]:
        image = Image.open(io.BytesIO(data))
        grey = np.asarray(image.convert("L"), dtype=np.float64) if image.mode != "I;16" else np.asarray(image) / 257
        steps = abs(np.diff(grey, axis=1))
        if min(grey.shape) >= 64:
            rows.append((len(data) / grey.size, spectrum_slope(grey), (steps <= 2).mean(), (steps > 32).mean()))
    size, slope, alike, edges = np.median(rows, axis=0)
    assert 0.2 < size < 0.9
    assert -3.1 < slope < -1.9
    assert 0.2 < alike < 0.6
    assert 0.02 < edges < 0.1
