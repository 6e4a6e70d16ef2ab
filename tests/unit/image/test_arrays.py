"""Arrays and tensors as images: which layouts and numbers are taken, to which pixels, and what the refused ones are told."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from helpers import deep_files
from patchpack.image.arrays import as_array, is_array, require_image, rgb_of, size_of
from patchpack.image.decode import decode
from patchpack.image.formats import Reading
from patchpack.image.pillow_warnings import forget, heard

RANDOM = np.random.default_rng(5)
GREEN = (10, 200, 30)


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def levels(channels: int, height: int = 5, width: int = 9) -> Any:
    return RANDOM.integers(0, 256, (height, width, channels), dtype=np.uint8)


# ------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_uint8_gives_the_pixels_of_a_png(channels: int) -> None:
    pixels = levels(channels)
    wanted = decode(png(pixels[:, :, 0] if channels == 1 else pixels), background=GREEN)
    layouts = [pixels, pixels.transpose(2, 0, 1), pixels[::-1][::-1], np.asfortranarray(pixels)]
    for array in [*layouts, pixels[:, :, 0]] if channels == 1 else layouts:
        assert np.array_equal(rgb_of(array, background=GREEN), wanted)


def test_every_alpha_over_every_level_is_composed_as_in_a_file() -> None:
    alpha, level = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    pixels = np.stack([level, level[::-1], level.T, alpha], axis=2)
    assert np.array_equal(rgb_of(pixels, background=GREEN), decode(png(pixels), background=GREEN))


@pytest.mark.parametrize("deep", ["header", "range"])
def test_16_bits_of_grey_are_rounded_as_in_a_png(deep: str) -> None:
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)[:, 30:]
    wanted = decode(deep_files.png(pixels), deep=deep)
    for array in (pixels, pixels[None], pixels[:, :, None], pixels.astype(">u2"), torch.from_numpy(pixels.copy())):
        assert np.array_equal(rgb_of(as_array(array), reading=Reading(deep)), wanted)


@pytest.mark.parametrize("deep", ["header", "range"])
def test_16_bits_of_colour_are_cut_as_in_a_png(deep: str) -> None:
    pixels = RANDOM.integers(2000, 60000, (40, 50, 3), dtype=np.uint16)
    wanted = decode(deep_files.png(pixels), deep=deep)
    assert np.array_equal(rgb_of(pixels, reading=Reading(deep)), wanted)
    if deep == "header":
        opaque = np.concatenate([pixels, np.full((40, 50, 1), 65535, np.uint16)], axis=2)
        assert np.array_equal(rgb_of(opaque, background=GREEN), wanted)
        assert np.array_equal(rgb_of(opaque * np.array([1, 1, 1, 0], np.uint16), background=GREEN), wanted * 0 + GREEN)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, torch.bfloat16, torch.float32])
def test_floats_from_8_bits_come_back(dtype: Any) -> None:
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
    if isinstance(dtype, torch.dtype):
        array = as_array((torch.from_numpy(eight).double() / 255).to(dtype))
    else:
        array = (eight / 255).astype(dtype)
    off = np.abs(rgb_of(array)[:, :, 0].astype(int) - eight)
    assert off.max() <= (1 if dtype == torch.bfloat16 else 0)  # bfloat16 has 8 bits, of which some are for the exponent


@pytest.mark.parametrize("deep", ["header", "range"])
def test_floats_are_rounded_as_in_a_tiff(deep: str) -> None:
    pixels = RANDOM.random((30, 40), dtype=np.float32)
    pixels[0, :3] = 0.5 / 255, 1.5 / 255, 1.0
    wanted = decode(deep_files.tiff(pixels, bits=32, sample_format=3), deep=deep)
    assert np.array_equal(rgb_of(pixels, reading=Reading(deep)), wanted)


def test_float_alpha_is_composed_over_the_background() -> None:
    pixels = levels(4)
    assert np.array_equal(rgb_of(pixels / 255, background=GREEN), rgb_of(pixels, background=GREEN))


def test_a_range_is_that_of_the_colours_and_not_of_alpha() -> None:
    pixels = np.full((5, 6, 4), [0.25, 0.5, 0.75, 1.0])
    assert rgb_of(pixels, reading=Reading("range"))[0, 0].tolist() == [0, 128, 255]
    pixels[..., 3] = 0
    assert rgb_of(pixels, background=GREEN, reading=Reading("range"))[0, 0].tolist() == list(GREEN)


def test_a_rounding_error_outside_is_taken_and_more_is_not() -> None:
    array = np.full((5, 6, 3), 0.5)
    array[0, 0] = 1 + 0.4 / 255, -0.4 / 255, 1 + 1e-7
    assert rgb_of(array)[0, 0].tolist() == [255, 0, 255]
    for value in (1 + 0.6 / 255, -0.6 / 255):
        array[0, 0, 0] = value
        with pytest.raises(pp.errors.DecodeError, match=r"expected floats in \[0, 1\].*: clip the values to \[0, 1\]"):
            rgb_of(array)


def test_an_array_that_fits_is_not_copied_and_none_is_changed() -> None:
    pixels = levels(3)
    assert rgb_of(pixels) is pixels
    tensor = torch.from_numpy(pixels)
    assert np.shares_memory(as_array(tensor), pixels)
    for array in (levels(4), levels(1).astype(np.uint16) * 257, levels(3) / 255):
        array.flags.writeable = False
        rgb_of(array, reading=Reading("range"))


def test_hardly_any_contrast_is_noted() -> None:
    for array in (levels(3) / 255 / 255, (levels(3) // 16).astype(np.uint16) << 8, levels(1).astype(np.uint16)):
        forget()
        rgb_of(array)
        assert heard() == ["more than 8 bits, less than a tenth of the range is used"]


# ------------------------------------------------------------------------------------------------------- layouts

SIDES = st.integers(1, 9)


def layouts(height: int, width: int, channels: int) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return {"last": pixels, "first": np.ascontiguousarray(pixels.transpose(2, 0, 1))}


@given(SIDES, SIDES, st.sampled_from([1, 3, 4]), st.sampled_from(["last", "first"]), st.booleans())
def test_a_layout_is_read_right_or_refused(height: int, width: int, channels: int, layout: str, as_tensor: bool) -> None:
    array = layouts(height, width, channels)[layout]
    given_array = as_array(torch.from_numpy(array)) if as_tensor else array
    either = array.shape[0] in (1, 3, 4) and array.shape[2] in (1, 3, 4)
    if either:
        with pytest.raises(pp.errors.DecodeError, match=r"channels are clear .* could both be the channels: pass a PIL image"):
            require_image(given_array)
        return
    require_image(given_array)
    assert size_of(given_array) == (height, width)
    assert np.array_equal(rgb_of(given_array), rgb_of(layouts(height, width, channels)["last"]))


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 100, 3), (4, 7, 3), (1, 8, 1), (3, 3, 3)])
def test_either_end_is_refused_with_the_cure(shape: tuple[int, ...]) -> None:
    with pytest.raises(pp.errors.DecodeError, match=r"got uint8 \[\d, \d+, \d\], where the first and the last axis could both"):
        require_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(), (7,), (5, 6, 2), (2, 5, 6), (5, 7, 8), (2, 5, 6, 7, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(pp.errors.DecodeError, match=r"expected an array \[H, W\], \[H, W, 1 \| 3 \| 4\] or .*, got uint8 \["):
        require_image(np.zeros(shape, np.uint8))


# ------------------------------------------------------------------------------------------------------- numbers

REFUSED = {
    "bool": (np.ones((5, 6), bool), r"got bool \[5, 6\] with values 1 … 1: pass array.astype\('uint8'\) \* 255"),
    "int64": (np.full((5, 6), 255), r"got int64 \[5, 6\] with values 255 … 255: pass array.astype\('uint8'\)"),
    "int32": (np.full((5, 6), 256, np.int32), r"with values 256 … 256: pass array.astype\('uint16'\)"),
    "negative": (np.full((5, 6), -1, np.int8), r"with values -1 … -1: scale the values to 0 … 255 and pass uint8"),
    "complex": (np.zeros((5, 6), complex), r"expected an array of uint8, uint16 or float in \[0, 1\], got complex128"),
    "objects": (np.full((5, 6), None), r"got object \[5, 6\]: pass numbers of one of these types"),
    "text": (np.full((5, 6), "a"), r"got <U1 \[5, 6\]: pass numbers of one of these types"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_numbers_are_refused_before_a_pixel_is_converted(name: str) -> None:
    array, said = REFUSED[name]
    for ask in (require_image, rgb_of):
        with pytest.raises(pp.errors.DecodeError, match=said):
            ask(array)


FLOATS = {
    "0 … 255": (np.array([[0.0, 255.0]]), r"with values 0 … 255: divide by the value of white, which is 255 .* or pass uint8"),
    "normalised": (np.array([[-2.1, 2.6]]), r"got float64 .* with values -2.1 … 2.6: leave out Normalize"),
    "overshoot": (np.array([[-0.02, 1.03]]), r"with values -0.02 … 1.03: clip the values"),
    "NaN": (np.array([[0.0, np.nan]]), r"with NaN in 1 of 2 values: replace these values first"),
    "infinity": (np.array([[0.0, np.inf]]), r"with infinity in 1 of 2 values: replace these values first"),
}


@pytest.mark.parametrize("name", FLOATS)
def test_floats_outside_are_refused_with_their_range(name: str) -> None:
    array, said = FLOATS[name]
    with pytest.raises(pp.errors.DecodeError, match=r"expected floats in \[0, 1\], " + ".*" + said):
        rgb_of(array)


def test_no_pixel_and_masked_pixels_are_refused() -> None:
    with pytest.raises(pp.errors.DecodeError, match=r"expected at least one pixel, got uint8 \[0, 6\]"):
        rgb_of(np.zeros((0, 6), np.uint8))
    masked = np.ma.array(np.zeros((5, 6)), mask=np.eye(5, 6))  # type: ignore[no-untyped-call]
    with pytest.raises(pp.errors.DecodeError, match="masked values: fill them first"):
        as_array(masked)


def test_a_tensor_without_values_is_refused() -> None:
    with pytest.raises(pp.errors.DecodeError, match=r"a tensor that numpy can hold, got Tensor float32 \[5, 6\]: "):
        as_array(torch.zeros(5, 6, device="meta"))


def test_what_an_array_is() -> None:
    assert all(is_array(value) for value in (np.zeros(3), np.float32([[1]]), torch.zeros(2)))
    assert not any(is_array(value) for value in (b"a", "a", [1], None, Image.new("L", (2, 2)), np.float32(1)))
