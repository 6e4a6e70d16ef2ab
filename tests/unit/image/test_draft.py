"""decode="draft": which files are decoded smaller, by how much, and where a box of the image lies then."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from patchpack.errors import DecodeError
from patchpack.image.decode import decode_image, open_image, oriented_size, turn_of
from patchpack.image.draft import draft, scale_for, scaled_box
from patchpack.paint.part import part_of_picture
from patchpack.types import Size
from tests.helpers.lossless import lossless_jpeg

ORIENTATION = 0x0112
WHITE = (255, 255, 255)
FAST = pp.Recipe(resize=pp.resize.NaFlex(64), decode="draft")


def blocks(rows: int, cols: int) -> np.ndarray:
    """One colour per block of 8 x 8, and the blocks: whatever the scale, decoding gives these colours."""
    return np.random.default_rng(0).integers(0, 256, (rows, cols, 3), dtype=np.uint8)


def jpeg(pixels: Any, orientation: int = 1, mode: str = "RGB", **options: Any) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = orientation
    options = {"quality": 100, "subsampling": 0, "exif": exif, **options}
    Image.fromarray(pixels).convert(mode).save(file, options.pop("format", "JPEG"), **options)
    return file.getvalue()


def drafted(data: bytes, box: tuple[int, int, int, int], target: tuple[int, int]) -> tuple[Any, tuple[int, int, int, int]]:
    """Pixels of the box in the drafted picture, and the box."""
    image = open_image(data)
    found = draft(image, oriented_size(image), box, target, WHITE)
    assert found is not None
    picture, (top, left, height, width) = found
    assert 0 <= top < top + height <= picture.height
    assert 0 <= left < left + width <= picture.width
    return np.asarray(picture)[top : top + height, left : left + width], (top, left, height, width)


@pytest.mark.parametrize(
    ("side", "scale"), [(1, 1), (199, 1), (399, 1), (400, 2), (799, 2), (800, 4), (1599, 4), (1600, 8), (99999, 8)]
)
def test_at_least_two_pixels_are_left_for_each_of_the_target(side: int, scale: int) -> None:
    assert scale_for((0, 0, side, 100_000), (100, 100)) == scale
    assert scale_for((0, 0, 100_000, side), (100, 100)) == scale
    assert scale_for((5, 7, side, side), (100, 100)) == scale  # the box counts, not the image


SIDES = st.integers(1, 5000)


@given(st.data(), SIDES, SIDES, st.sampled_from([2, 4, 8]), st.sampled_from([None, *Image.Transpose]))
def test_edges_are_half_a_pixel_off_at_most(data: Any, height: int, width: int, scale: int, turn: Any) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = (top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    y, x, h, w = scaled_box(box, Size(height, width), scale, turn)
    back = {
        None: (0, 0), Image.Transpose.FLIP_LEFT_RIGHT: (0, 1), Image.Transpose.FLIP_TOP_BOTTOM: (1, 0),
        Image.Transpose.ROTATE_90: (1, 0), Image.Transpose.ROTATE_180: (1, 1), Image.Transpose.ROTATE_270: (0, 1),
        Image.Transpose.TRANSPOSE: (0, 0), Image.Transpose.TRANSVERSE: (1, 1),
    }[turn]  # fmt: skip
    for ends, of, begin, size, from_end in (
        ((y, y + h), height, top, box[2], back[0]),
        ((x, x + w), width, left, box[3], back[1]),
    ):
        smaller = math.ceil(of / scale)
        shift = smaller * scale - of if from_end else 0  # pixels that the drafted picture has before the first one
        for at, exact in zip(ends, (begin, begin + size), strict=True):
            assert 0 <= at <= smaller
            assert abs(at - (exact + shift) / scale) <= 0.5


@given(st.integers(1, 999), st.integers(1, 999), st.integers(1, 99), st.integers(1, 99))
def test_pillow_takes_the_scale_asked_for(height: int, width: int, tall: int, wide: int) -> None:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "JPEG")
    image = open_image(file.getvalue())
    scale = scale_for((0, 0, height, width), (tall, wide))
    found = draft(image, Size(height, width), (0, 0, height, width), (tall, wide), WHITE)
    assert found is not None
    picture, box = found
    assert picture.size == (math.ceil(width / scale), math.ceil(height / scale))
    assert box == scaled_box((0, 0, height, width), Size(height, width), scale, None)
    assert scale == 1 or (box[2] >= 2 * tall and box[3] >= 2 * wide)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("cut", [(0, 0), (2, 0), (0, 3), (1, 2)])
def test_a_box_holds_what_it_holds_in_the_whole_image(orientation: int, scale: int, cut: tuple[int, int]) -> None:
    """Also where blocks count from the other end, and the last of them is not whole."""
    colours = blocks(9, 13)
    data = jpeg(colours.repeat(8, axis=0).repeat(8, axis=1)[: 72 - cut[0], : 104 - cut[1]], orientation)
    exact = np.asarray(decode_image(data))
    height, width = exact.shape[:2]
    turned = np.asarray(decode_image(jpeg(np.zeros((2, 3, 3), np.uint8), orientation))).shape[0] == 3
    lost = cut[::-1] if turned else cut
    turn = turn_of(open_image(data))
    rows_back, cols_back = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    assert (turn is None) == (orientation == 1)
    # whole blocks: the second to the sixth of either side
    top, left = 8 - (lost[0] if rows_back else 0), 8 - (lost[1] if cols_back else 0)
    box = (top, left, 40, 40)
    assert top + 40 <= height
    assert left + 40 <= width
    found, scaled = drafted(data, box, (20 // scale, 20 // scale))
    assert scaled[2:] == (40 // scale, 40 // scale)
    centres = exact[top + 4 : top + 44 : 8, left + 4 : left + 44 : 8]
    in_block = 8 // scale
    np.testing.assert_allclose(found[in_block // 2 :: in_block, in_block // 2 :: in_block].astype(int), centres, atol=3)


@pytest.mark.parametrize(
    ("mode", "options"), [("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"format": "MPO"})]
)
def test_any_jpeg(mode: str, options: dict[str, Any]) -> None:
    data = jpeg(np.full((160, 240, 3), (200, 100, 50), np.uint8), mode=mode, **options)
    found, box = drafted(data, (0, 0, 160, 240), (10, 15))
    assert box == (0, 0, 20, 30)
    np.testing.assert_allclose(found.astype(int), np.asarray(decode_image(data))[::8, ::8], atol=2)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_other_formats_are_decoded_in_full(format: str) -> None:
    file, box = io.BytesIO(), (3, 5, 90, 100)
    Image.fromarray(blocks(160, 240)).save(file, format)
    picture, found = part_of_picture(file.getvalue(), Size(160, 240), box, (2, 2), FAST)
    assert (picture.size, found) == ((240, 160), box)
    assert np.array_equal(np.asarray(picture), np.asarray(decode_image(file.getvalue())))


def test_what_is_decoded_already_is_taken_as_it_is() -> None:
    opened = Image.open(io.BytesIO(jpeg(np.zeros((160, 240, 3), np.uint8))))
    picture, box = part_of_picture(opened, Size(160, 240), (0, 0, 160, 240), (2, 2), FAST)
    assert (picture.size, box) == ((240, 160), (0, 0, 160, 240))


def test_a_small_image_comes_out_exact() -> None:
    data = jpeg(blocks(60, 60))
    picture, _ = part_of_picture(data, Size(60, 60), (0, 0, 60, 60), (16, 16), FAST)
    assert np.array_equal(np.asarray(picture), np.asarray(decode_image(data)))


def test_the_whole_size_is_compared() -> None:
    with pytest.raises(DecodeError, match=r"expected 160 x 240 pixels \(height x width\), as the header said, got 240 x 160"):
        part_of_picture(jpeg(np.zeros((160, 240, 3), np.uint8), 6), Size(160, 240), (0, 0, 160, 240), (2, 2), FAST)


def test_a_truncated_file_is_refused_by_its_whole_size() -> None:
    data = jpeg(blocks(160, 240))
    with pytest.raises(DecodeError, match=r"expected a complete JPEG of 160 x 240 pixels .* truncated"):
        part_of_picture(data[: len(data) // 2], Size(160, 240), (0, 0, 160, 240), (2, 2), FAST)


def test_the_limit_holds_for_the_whole_size() -> None:
    with pytest.raises(DecodeError, match="at most 1000 pixels, got 160 x 240"):
        part_of_picture(jpeg(blocks(160, 240)), Size(160, 240), (0, 0, 160, 240), (2, 2), FAST.replace(max_pixels=1000))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    "changes",
    [{}, {"dtype": "float32", "normalize": pp.normalize.PerImage()}, {"resample": "lanczos"}],
    ids=["plain", "standard", "lanczos"],
)
def test_a_batch_is_near_the_exact_one(orientation: int, changes: dict[str, Any]) -> None:
    y, x = np.mgrid[:805, :1203] / 40.0
    pixels = np.stack([np.sin(y) * np.cos(x), np.sin(x + y), np.cos(y / 3)], axis=2) * 120 + 128
    data = jpeg(pixels.astype(np.uint8), orientation, quality=95)
    batches = [
        next(iter(pp.load([pp.Sample("a", data)], FAST.replace(decode=decode, **changes), tail="pad")))
        for decode in ("exact", "draft")
    ]
    exact, fast = batches
    assert int(exact.slot_mask.sum()) == 1
    for name in ("position_ids", "segment_ids", "grid_sizes", "source_sizes", "slot_mask"):
        assert np.array_equal(getattr(exact, name), getattr(fast, name)), name
    assert tuple(fast.source_sizes[0, 0].tolist()) == ((805, 1203) if orientation == 1 else (1203, 805))
    difference = np.abs(exact.patches.numpy().astype(float) - fast.patches.numpy())
    assert 0 < difference.max() < (0.15 if "dtype" in changes else 10)
    assert difference.mean() < (0.02 if "dtype" in changes else 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lossless_jpeg_is_decoded_in_full(workers: int) -> None:
    """Its blocks hold no frequencies, and libjpeg refuses to make it smaller."""
    pixels = blocks(160, 240)
    data = lossless_jpeg(pixels)
    picture, box = part_of_picture(data, Size(160, 240), (8, 16, 80, 80), (2, 2), FAST)
    assert np.array_equal(np.asarray(picture), pixels)
    assert box == (8, 16, 80, 80)
    sample = pp.Sample("a", data)
    recipe = FAST.replace(rows_per_batch=1, resize=pp.resize.NaFlex(4))
    fast, exact = (
        next(iter(pp.load([sample], recipe.replace(decode=decode), target=None, tail="pad", num_workers=workers)))
        for decode in ("draft", "exact")
    )
    assert torch.equal(fast.patches, exact.patches)


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_broken_file_is_refused_in_the_same_words(cut: float) -> None:
    for whole in (jpeg(blocks(160, 240)), lossless_jpeg(blocks(160, 240))):
        data, reasons = whole[: int(len(whole) * cut)], []
        for decode in ("draft", "exact"):
            with pytest.raises(DecodeError) as caught:
                part_of_picture(data, Size(160, 240), (0, 0, 160, 240), (2, 2), FAST.replace(decode=decode))
            reasons.append(str(caught.value))
        assert reasons[0] == reasons[1]
