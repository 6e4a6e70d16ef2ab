"""Pictures of more than 8 bits: which value is white, what is counted as a warning, and the stretched range."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from patchpack.image import pillow_warnings
from patchpack.image.decode import decode, to_rgb
from patchpack.image.depth import NARROW
from tests.helpers.deep_files import png, tiff

RAMP12 = np.arange(4096).reshape(64, 64)
RAMP16 = np.linspace(0, 65535, 4096).astype(int).reshape(64, 64)
UNIT = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
RECIPE = pp.recipes.siglip2_naflex(max_patches=16, seq_len=64, rows_per_batch=1)


def grey(data: bytes, **options: Any) -> np.ndarray[Any, Any]:
    pixels = decode(data, **options)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def kinds(data: bytes, **options: Any) -> list[str]:
    pillow_warnings.forget()
    decode(data, **options)
    return pillow_warnings.heard()


def with_one(pixels: np.ndarray[Any, Any], value: float) -> np.ndarray[Any, Any]:
    changed = pixels.copy()
    changed[0, 0] = value
    return changed


@pytest.mark.parametrize(
    ("data", "pixels", "white"),
    [
        pytest.param(tiff(RAMP12, bits=12), RAMP12, 4095, id="12 bits"),
        pytest.param(tiff(RAMP12 // 2, bits=12), RAMP12 // 2, 4095, id="12 bits, darker"),
        pytest.param(tiff(RAMP16, bits=16), RAMP16, 65535, id="16 bits"),
        pytest.param(tiff(RAMP16, bits=16, big=True), RAMP16, 65535, id="16 bits, big-endian"),
        pytest.param(tiff(RAMP16 // 2, bits=16, sample_format=2), RAMP16 // 2, 32767, id="16 bits with a sign"),
        pytest.param(tiff(RAMP16 // 2, bits=16, sample_format=2, big=True), RAMP16 // 2, 32767, id="the same, big-endian"),
        pytest.param(tiff(RAMP16, bits=32, sample_format=2), RAMP16, 65535, id="32 bits with a sign"),
        pytest.param(tiff(RAMP16 * 65537, bits=32), RAMP16, 65535, id="32 bits without a sign, over 2**31"),
        pytest.param(png(RAMP16), RAMP16, 65535, id="PNG"),
        pytest.param(png(RAMP16, sbit=16), RAMP16, 65535, id="PNG of 16 bits by sBIT"),
        pytest.param(png(RAMP12, sbit=12), RAMP12, 4095, id="PNG of 12 low bits"),
        pytest.param(png(RAMP12 // 4, sbit=12), RAMP12 // 4, 4095, id="PNG of 12 low bits, darker"),
        pytest.param(png(RAMP12 // 4, sbit=10), RAMP12 // 4, 1023, id="PNG of 10 low bits"),
        pytest.param(png(RAMP12 * 16, sbit=12), RAMP12 * 16, 65535, id="PNG of 12 high bits"),
        pytest.param(png(RAMP12 // 16 * 16, sbit=12), RAMP12 // 16 * 16, 65535, id="PNG of 12 high bits, dark"),
    ],
)
def test_white_is_what_the_header_says(data: bytes, pixels: np.ndarray[Any, Any], white: int) -> None:
    np.testing.assert_allclose(grey(data), np.asarray(pixels) * (255 / white), atol=0.51)
    assert grey(data).tolist() == np.asarray(to_rgb(Image.open(io.BytesIO(data))))[..., 0].tolist()


@pytest.mark.parametrize("deep", ["header", "range"])
def test_white_may_be_stored_as_0(deep: str) -> None:
    assert (grey(tiff(RAMP16, bits=16, white_at=0), deep=deep) == 255 - grey(tiff(RAMP16, bits=16), deep=deep)).all()


@pytest.mark.parametrize("kind", [{"bits": 16, "white_at": 0}, {"bits": 12}, {"bits": 12, "white_at": 0}])
def test_what_pillow_does_not_read_is_refused(kind: Any) -> None:
    with pytest.raises(pp.errors.DecodeError, match="expected a readable JPEG"):
        decode(tiff(RAMP12, big=True, **kind))


@pytest.mark.parametrize("big", [False, True])
def test_floats_may_have_white_as_0(big: bool) -> None:
    inverted = grey(tiff(UNIT, bits=32, sample_format=3, white_at=0, big=big))
    assert (inverted == 255 - grey(tiff(UNIT, bits=32, sample_format=3))).all()


@pytest.mark.parametrize("value", [1.0001, 1.05, -0.0001, -0.04, np.nan, np.inf])
def test_one_pixel_a_little_beyond_changes_no_other(value: float) -> None:
    changed = grey(tiff(with_one(UNIT, value), bits=32, sample_format=3))
    expected = np.rint(UNIT * 255)
    expected[0, 0] = 255 if value > 1 and np.isfinite(value) else 0
    np.testing.assert_allclose(changed, expected, atol=0.5)


@pytest.mark.parametrize("value", [255.3, -0.4])
def test_a_little_beyond_255_is_cut(value: float) -> None:
    changed = grey(tiff(with_one(UNIT * 255, value), bits=32, sample_format=3))
    assert (changed[0, 0], changed[-1, -1], changed[32, 0]) == (255 if value > 0 else 0, 255, round(255 * float(UNIT[32, 0])))


@pytest.mark.parametrize("pixels", [UNIT * 0.02 - 0.01, UNIT * 300, UNIT * 2 - 1, UNIT * 20 - 10])
def test_floats_of_another_range_are_stretched(pixels: np.ndarray[Any, Any]) -> None:
    found = grey(tiff(pixels, bits=32, sample_format=3))
    np.testing.assert_allclose(found, UNIT * 255, atol=0.51)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(png(RAMP12), True, id="12 bits in 16, unsaid"),
        pytest.param(png(RAMP16), False, id="16 bits"),
        pytest.param(png(RAMP12, sbit=12), False, id="12 bits, said"),
        pytest.param(tiff(RAMP12, bits=12), False, id="a TIFF of 12 bits"),
        pytest.param(tiff(RAMP12 // 16, bits=12), True, id="a dark TIFF of 12 bits"),
        pytest.param(tiff(with_one(UNIT, 200), bits=32, sample_format=3), True, id="a hot pixel among floats"),
        pytest.param(tiff(with_one(UNIT, -9999), bits=32, sample_format=3), True, id="a value for no data"),
        pytest.param(png(np.dstack([RAMP12] * 3)), True, id="12 bits in colours of 16"),
        pytest.param(tiff(np.dstack([RAMP12] * 3), bits=16, samples=3), True, id="the same in a TIFF"),
        pytest.param(png(np.dstack([RAMP16] * 3)), False, id="colours of 16 bits"),
        pytest.param(png(with_one(RAMP12 // 8, 65535), key=65535), True, id="what is transparent does not count"),
    ],
)
def test_a_picture_that_shows_nothing_is_counted(data: bytes, told: bool) -> None:
    assert kinds(data) == [NARROW] * told
    loader = pp.pack_images([data], RECIPE)
    (batch,) = loader
    assert batch.info.warnings == ({NARROW: 1} if told else {})
    assert loader.report().warnings == ({NARROW: 1} if told else {})


def test_eight_bits_are_never_counted() -> None:
    for mode in ("L", "RGB", "RGBA", "P", "1", "CMYK"):
        file = io.BytesIO()
        Image.new(mode, (40, 40)).save(file, "TIFF")
        assert kinds(file.getvalue()) == []


@pytest.mark.parametrize(
    "data",
    [
        png(RAMP12),
        png(RAMP12 + 5000),
        tiff(RAMP12 // 8 + 7, bits=12),
        tiff(RAMP16 // 9, bits=16, sample_format=2),
        tiff(UNIT * 20 + 3, bits=32, sample_format=3),
        tiff(RAMP12 * 300_000 + 9, bits=32),
    ],
)
def test_a_range_is_stretched_on_request(data: bytes) -> None:
    np.testing.assert_allclose(grey(data, deep="range"), UNIT * 255, atol=1.01)
    assert kinds(data, deep="range") == []
    for image in (data, Image.open(io.BytesIO(data))):
        (batch,) = pp.pack_images([image], RECIPE.replace(deep="range"))
        (packed,) = pp.unpack(batch)
        assert packed.patches.min() < 10
        assert packed.patches.max() > 245


def test_what_is_no_number_is_black_in_a_stretched_range() -> None:
    found = grey(tiff(with_one(UNIT + 5, np.nan), bits=32, sample_format=3), deep="range")
    assert (found[0, 0], found[0, 1], found[-1, -1]) == (0, 0, 255)
    assert (grey(tiff(np.full((4, 4), np.nan), bits=32, sample_format=3), deep="range") == 0).all()


@pytest.mark.parametrize("write", [png, lambda pixels: tiff(pixels, bits=16, samples=3)])
def test_colours_are_stretched_together(write: Any) -> None:
    pixels = np.dstack([RAMP12, RAMP12 // 2, RAMP12 * 0])
    stretched = decode(write(pixels), deep="range")
    assert stretched[-1, -1].tolist() == [255, 119, 0]  # of 16 levels: Pillow decodes the upper 8 bits
    assert decode(write(pixels))[-1, -1].tolist() == [15, 7, 0]


def test_eight_bits_are_not_stretched() -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4), 77).save(file, "PNG")
    assert (grey(file.getvalue(), deep="range") == 77).all()


@given(st.data(), st.sampled_from(["header", "range"]))
def test_a_brighter_value_is_never_darker(data: Any, deep: str) -> None:
    low, high = data.draw(
        st.sampled_from([(0, 65535), (0, 300), (-0.02, 1.01), (0, 1), (-1e30, 1e30), (0, 256), (-0.3, 255.2)])
    )
    shares = np.sort(data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=9)))
    file = io.BytesIO()
    Image.fromarray((low + shares * (high - low)).astype(np.float32)[None]).save(file, "TIFF")
    assert (np.diff(grey(file.getvalue(), deep=deep)[0].astype(int)) >= 0).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_scale_what_is_held_alike(workers: int) -> None:
    """A PIL image is decoded on its way to a worker."""
    image = Image.open(io.BytesIO(png(RAMP12, sbit=12)))
    loader = pp.load([(image, 1)], RECIPE, tail="pad", num_workers=workers)
    (batch,) = loader
    assert batch.patches[batch.segment_ids > 0].max() > 240
