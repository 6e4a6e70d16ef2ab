"""Resampling against Pillow and against the definition, to the bit; kept patches against all of them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import numpy as np
import PIL
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from helpers import naive_paint
from helpers.photographs import files_in
from helpers.profiles import weight
from patchpack.image.decode import decode
from patchpack.paint import fused
from patchpack.paint.resample import FILTERS, number_table, standard_numbers, write_pixels
from patchpack.paint.weights import RADIUS
from patchpack.types import Grid

KERNELS = st.sampled_from(sorted(RADIUS))
SIDES = st.one_of(st.integers(1, 3), st.integers(1, 40), st.integers(1, 300))
SIZES = st.tuples(SIDES, SIDES)


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """The hardest picture: no two neighbours alike."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def by_pillow(picture: Image.Image, size: tuple[int, int], kernel: str) -> Any:
    return np.asarray(picture.resize(size[::-1], FILTERS[kernel]))


def goes_vertical_first(size: tuple[int, int], target: tuple[int, int]) -> bool:
    return target[0] < size[0] and 2 * (size[1] - target[1]) < size[0] - target[0]


# ------------------------------------------------------------------------------------------------------ whole pictures


@given(SIZES, SIZES, KERNELS, st.integers(0, 9))
@example((23, 9), (7, 4), "bicubic", 0)  # vertical first
@example((4, 3), (3, 2), "bilinear", 0)  # 2 * (w - tw) is h - th plus one
@example((16, 7), (8, 3), "bilinear", 0)  # and equal to it
@example((1, 300), (300, 1), "bicubic", 0)
def test_equals_pillow(size: tuple[int, int], target: tuple[int, int], kernel: str, seed: int) -> None:
    picture = noise(*size, seed)
    assert np.array_equal(fused.resize(picture, target, kernel), by_pillow(picture, target, kernel))


@pytest.mark.parametrize("kernel", RADIUS)
def test_equals_pillow_on_every_tiny_size(kernel: str) -> None:
    for h, w, th, tw in itertools.product(range(1, 5), repeat=4):
        picture = noise(h, w)
        assert np.array_equal(fused.resize(picture, (th, tw), kernel), by_pillow(picture, (th, tw), kernel)), (h, w, th, tw)


@pytest.mark.parametrize("kernel", RADIUS)
@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((1, 5000), (1, 16)), ((5000, 1), (16, 1)), ((5000, 1), (1, 16)), ((1, 5000), (16, 5000)), ((997, 1009), (127, 113)),
        ((127, 113), (997, 1009)), ((640, 480), (640, 480)), ((640, 480), (640, 241)), ((480, 640), (241, 640)),
        ((2100, 2100), (224, 192)), ((6000, 900), (100, 800)),
    ],
    ids=lambda size: "x".join(map(str, size)),
)  # fmt: skip
def test_equals_pillow_on(size: tuple[int, int], target: tuple[int, int], kernel: str) -> None:
    picture = noise(*size)
    assert np.array_equal(fused.resize(picture, target, kernel), by_pillow(picture, target, kernel))


@pytest.mark.parametrize("kernel", RADIUS)
def test_extremes_do_not_wrap(kernel: str) -> None:
    """Black beside white, where a cubic overshoots both."""
    board = np.kron(np.indices((40, 40)).sum(axis=0) % 2, np.ones((5, 5))).astype(np.uint8)[..., None] * np.full(
        3, 255, np.uint8
    )
    picture = Image.fromarray(board)
    for target in ((64, 48), (200, 500), (333, 90)):
        assert np.array_equal(fused.resize(picture, target, kernel), by_pillow(picture, target, kernel))


@pytest.fixture(scope="module")
def twenty_photographs(photographs: list[str]) -> list[Image.Image]:
    """Twenty of them, or every one in so many as PATCHPACK_EVERY_PHOTO says."""
    files = [data for _, data in files_in(photographs)]
    every = int(os.environ.get("PATCHPACK_EVERY_PHOTO", len(files) // 20))
    return [Image.fromarray(decode(data)) for data in files[::every]]


@pytest.mark.parametrize("patches", [64, 256, 576, 0], ids=["64", "256", "576", "twice the size"])
@pytest.mark.parametrize("kernel", RADIUS)
def test_equals_pillow_on_photographs(twenty_photographs: list[Image.Image], kernel: str, patches: int) -> None:
    for picture in twenty_photographs:
        scale = (patches * 256 / (picture.height * picture.width)) ** 0.5 if patches else 2
        target = max(1, int(picture.height * scale)), max(1, int(picture.width * scale))
        assert np.array_equal(fused.resize(picture, target, kernel), by_pillow(picture, target, kernel))


SMALL = st.integers(1, 24)


@given(SMALL, SMALL, SMALL, SMALL, KERNELS)
@weight(1)
def test_equals_the_definition(h: int, w: int, th: int, tw: int, kernel: str) -> None:
    picture = noise(h, w)
    ours = fused.resize(picture, (th, tw), kernel, order="horizontal_first")
    assert np.array_equal(ours, naive_paint.resample(np.asarray(picture), (th, tw), kernel))
    first = fused.pillow_order() == "by size" and goes_vertical_first((h, w), (th, tw))
    theirs = naive_paint.resample(np.asarray(picture), (th, tw), kernel, vertical_first=first)
    assert np.array_equal(fused.resize(picture, (th, tw), kernel), theirs)


def test_the_order_is_told_from_pillows_answers() -> None:
    assert fused.pillow_order() == ("by size" if int(PIL.__version__.split(".")[0]) >= 13 else "horizontal first")


def test_the_order_matters() -> None:
    """What the tests of either order rely on."""
    picture = noise(200, 90)
    assert goes_vertical_first(picture.size[::-1], (60, 40))
    both = [fused.resize(picture, (60, 40), "bicubic", order=order) for order in ("pillow", "horizontal_first")]
    assert np.array_equal(*both) == (fused.pillow_order() != "by size")


# ------------------------------------------------------------------------------------------------------- kept patches


@st.composite
def cuts(draw: st.DrawFn) -> dict[str, Any]:
    """A picture, a box in it, a target within a grid, and some of its patches."""
    (h, w), p = draw(SIZES), draw(st.sampled_from([1, 2, 3, 5, 8, 14, 16, 17]))
    rows, cols = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    top, left = draw(st.integers(0, h - 1)), draw(st.integers(0, w - 1))
    box = (top, left, draw(st.integers(1, h - top)), draw(st.integers(1, w - left))) if draw(st.booleans()) else (0, 0, h, w)
    full = (rows * p, cols * p)
    target = full if draw(st.booleans()) else (draw(st.integers(1, full[0])), draw(st.integers(1, full[1])))
    kept = draw(st.sets(st.integers(0, rows * cols - 1), min_size=1))
    if draw(st.integers(0, 3)) == 0:
        kept = set(range(rows * cols))
    return {
        "picture": noise(h, w, draw(st.integers(0, 9))), "box": box, "target": target, "flip": draw(st.booleans()),
        "grid": Grid(rows, cols), "kept": np.array(sorted(kept)), "patch_size": p,
    }  # fmt: skip


RECIPES = st.builds(
    lambda **fields: pp.Recipe(resize=pp.resize.NaFlex(256), **fields),
    resample=st.sampled_from(["bilinear", "bicubic", "lanczos", "nearest"]),
    resample_order=st.sampled_from(["pillow", "horizontal_first"]),
    normalize=st.sampled_from([pp.normalize.MeanStd(), pp.normalize.IMAGENET]),
    dtype=st.sampled_from(["uint8", "float32", "float16"]),
)


def painted(cut: dict[str, Any], recipe: pp.Recipe) -> Any:
    """Patches as they are written, between two rows that must stay."""
    width = cut["patch_size"] ** 2 * 3
    out = np.full((len(cut["kept"]) + 2, width), 77, dtype=recipe.dtype)
    before = np.array(cut["picture"])
    write_pixels(out[1:-1], recipe=recipe, **cut)
    assert (out[[0, -1]] == 77).all()
    assert np.array_equal(before, np.asarray(cut["picture"]))
    return out[1:-1]


def expected(cut: dict[str, Any], recipe: pp.Recipe) -> Any:
    """All pixels by Pillow, padded, mirrored, normalised, cut; then those that are kept."""
    p, (rows, cols) = cut["patch_size"], cut["grid"]
    pixels = np.asarray(cut["picture"])
    pixels = naive_paint.resize(pixels, cut["box"], cut["target"], recipe.resample, recipe.resample_order)
    pixels = np.pad(pixels, ((0, rows * p - pixels.shape[0]), (0, cols * p - pixels.shape[1]), (0, 0)))
    pixels = pixels[:, ::-1] if cut["flip"] else pixels
    if recipe.dtype != "uint8":
        mean, std = (np.float32(np.float64(v) * 255) for v in (recipe.normalize.mean, recipe.normalize.std))
        pixels = ((pixels.astype(np.float32) - mean) / std).astype(recipe.dtype)
    patches = naive_paint.patches(pixels, p)
    return np.stack([patches[i] for i in cut["kept"]])


@given(cuts(), RECIPES)
def test_kept_patches_are_those_of_the_whole(cut: dict[str, Any], recipe: pp.Recipe) -> None:
    assert np.array_equal(painted(cut, recipe), expected(cut, recipe))


@given(cuts(), RECIPES, st.sampled_from([1, 500, 4000]))
def test_a_picture_that_is_not_in_one_piece(cut: dict[str, Any], recipe: pp.Recipe, band: int) -> None:
    """Bands of a row and of several; in earnest above, on 2100 x 2100 and 6000 x 900 pixels."""
    memory = fused.memory
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "BAND_BYTES", band)
        patch.setattr(fused, "memory", lambda picture: None if picture is cut["picture"] else memory(picture))
        assert np.array_equal(painted(cut, recipe), expected(cut, recipe))


@given(cuts(), RECIPES)
@weight(1 / 4)
def test_a_pillow_that_answers_otherwise_is_asked(cut: dict[str, Any], recipe: pp.Recipe) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "pillow_order", lambda: None)
        patch.setattr(fused, "paint_patches", None)
        assert np.array_equal(painted(cut, recipe), expected(cut, recipe))


def test_memory_is_pillows_own() -> None:
    picture = noise(5, 7)
    pixels = fused.memory(picture)
    assert pixels is not None
    assert np.array_equal(pixels.reshape(5, 7, 4)[..., :3], np.asarray(picture))
    picture.putpixel((6, 4), (1, 2, 3))
    assert pixels.reshape(5, 7, 4)[4, 6, :3].tolist() == [1, 2, 3]


def test_a_picture_over_a_block_has_no_memory_of_its_own() -> None:
    assert fused.memory(Image.new("RGB", (2100, 2100))) is None


# ------------------------------------------------------------------------------------------------------- real numbers


@given(SIZES, SIZES, KERNELS)
def test_numbers_equal_pillows(size: tuple[int, int], target: tuple[int, int], kernel: str) -> None:
    pixels = np.asarray(noise(*size))
    numbers = np.random.default_rng(1).normal(size=256).astype(np.float32)
    planes = [Image.fromarray(numbers[pixels[..., channel]]) for channel in range(3)]
    for order in ("pillow", "horizontal_first"):
        steps = [(size[0], target[1]), target] if order == "horizontal_first" else [target]
        theirs = planes
        for step in steps:
            theirs = [plane.resize(step[::-1], FILTERS[kernel]) for plane in theirs]
        ours = fused.resize_numbers(pixels, numbers, target, kernel, order=order)  # type: ignore[arg-type]
        assert np.array_equal(ours, np.stack([np.asarray(plane) for plane in theirs], axis=2))


@given(SIZES)
@example((1, 1))
def test_standard_numbers_equal_the_definition(size: tuple[int, int]) -> None:
    pixels = np.asarray(noise(*size))
    ours = standard_numbers(Image.fromarray(pixels))[pixels]
    np.testing.assert_allclose(ours, naive_paint.standardize(pixels), rtol=1e-6, atol=1e-7)


def test_a_flat_picture_has_no_deviation() -> None:
    assert standard_numbers(Image.new("RGB", (4, 2), (9, 9, 9)))[9] == 0
    assert standard_numbers(Image.new("RGB", (4, 2), (9, 9, 9)))[10] == np.float32(24**0.5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_number_table(dtype: str) -> None:
    table = number_table(pp.Recipe(resize=pp.resize.NaFlex(256), normalize=pp.normalize.IMAGENET, dtype=dtype))  # type: ignore[arg-type]
    assert table.shape == ((272, 3) if dtype == "float32" else (256, 3))
    assert table.dtype == dtype
    mean, std = (np.float32(np.float64(v) * 255) for v in (pp.normalize.IMAGENET.mean[1], pp.normalize.IMAGENET.std[1]))
    assert table[200, 1] == ((np.float32(200) - mean) / std).astype(dtype)
    if dtype == "float32":
        assert table[256:, 1].tolist() == [mean] * 8 + [std] * 8


# --------------------------------------------------------------------------------------------------- other machine code

CASES = """
import numpy as np
from PIL import Image
import patchpack as pp
from patchpack.paint import fused
from patchpack.paint.resample import number_table
cases = [(1, 1, 3, 2), (3, 2, 1, 1), (9, 23, 4, 5), (23, 9, 7, 4), (7, 30, 3, 14), (5, 4, 11, 13), (40, 3, 2, 3)]
for h, w, th, tw in cases:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8))
    for kernel, name in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        theirs = np.asarray(picture.resize((tw, th), name))
        assert np.array_equal(fused.resize(picture, (th, tw), kernel), theirs), (h, w, th, tw, kernel)
        grid = (-(-th // 4), -(-tw // 3))
        places = np.full(grid[0] * grid[1], -1)
        places[::2] = range(len(places[::2]))
        out = np.empty((len(places[::2]), 36), dtype=np.float32)
        numbers = np.arange(768, dtype=np.float32).reshape(256, 3)
        padded = np.pad(theirs, ((0, grid[0] * 4 - th), (0, grid[1] * 3 - tw), (0, 0)))
        for mirrored in (True, False):
            other = pp.Recipe(resize=pp.resize.NaFlex(64), normalize=pp.normalize.IMAGENET, dtype="float32")
            for table in (numbers, number_table(other)):
                cut = fused.Cut(places.reshape(grid), 4, 3, mirrored)
                fused.paint_patches(picture, (0, 0, h, w), (th, tw), cut, kernel, out, numbers=table)
                pixels = padded[:, ::-1] if mirrored else padded
                blocks = pixels.reshape(grid[0], 4, grid[1], 3, 3).swapaxes(1, 2).reshape(-1, 12, 3)[::2]
                assert np.array_equal(out.reshape(-1, 12, 3), table[blocks, range(3)]), (h, w, th, tw, kernel, mirrored)
print(fused.pillow_order())
"""


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"NUMBA_DISABLE_JIT": "1"}, id="plain Python, every access checked"),
        pytest.param({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, id="no AVX", marks=pytest.mark.slow),  # compiles
    ],
)
def test_the_same_without(environment: dict[str, str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CASES], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(fused.pillow_order())
