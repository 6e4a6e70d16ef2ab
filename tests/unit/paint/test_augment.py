"""Position ids of crops in their image, and the pixel function of a recipe."""

from __future__ import annotations

import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from patchpack.batch.unpack import PackedImage
from patchpack.paint.patchify import unpatchify
from patchpack.plan.policies.positions import Window, window
from patchpack.types import Grid

P = 8


def places(height: int, width: int) -> np.ndarray:
    """A picture whose pixels say where they are: red the row, green the column."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, 0 * x], axis=2).astype(np.uint8)


SOURCES = {str(i): places(60 + 17 * i, 250 - 19 * i) for i in range(10)}
SAMPLES = [pp.Sample(key, pixels, None) for key, pixels in SOURCES.items()]
NATIVE = pp.Recipe(
    resize=pp.resize.Native(1024), crop=pp.crop.RandomCrop((40, 56)), flip_prob=0.5, drop=pp.drop.Constant(0.5),
    patch_size=P, rows_per_batch=2, seed=3,
    positions=pp.positions.Absolute(of="image"),
)  # fmt: skip


def painted(recipe: pp.Recipe) -> list[tuple[PackedImage, bool]]:
    found = []
    for batch in pp.load(SAMPLES, recipe, target=None):
        flips = batch.info.flips
        found += [(image, bool(flips and flips[image.row][image.slot])) for image in pp.unpack(batch)]
    return found


@pytest.mark.parametrize(
    "scheme",
    [pp.positions.Absolute(of="image"), pp.positions.Fractional(of="image"), pp.positions.Fractional(True, False, "image")],
)
def test_ids_say_where_the_pixels_of_a_patch_are(scheme: Any) -> None:
    images = painted(NATIVE.replace(positions=scheme))
    assert {flip for _, flip in images} == {False, True}
    for image, flip in images:
        height, width = image.source_size
        first = np.asarray(image.patches)[:, :2].astype(np.int64)  # of each patch, its upper left pixel
        y, x = first[:, 0], width - 1 - first[:, 1] if flip else first[:, 1]
        if isinstance(scheme, pp.positions.Absolute):
            expected = np.stack([y // P, x // P], axis=1)
        else:
            sides = [max(height, width)] * 2 if scheme.keep_aspect else [height, width]
            expected = (np.stack([y, x], axis=1) / sides).astype(np.float32)
        assert np.array_equal(np.asarray(image.position_ids), expected)
        assert expected.max() > 0


@pytest.mark.parametrize(
    "scheme", [pp.positions.Absolute, pp.positions.Fractional, lambda of: pp.positions.Fractional(True, True, of)]
)
@pytest.mark.parametrize("resize", [pp.resize.Native(1024, edge="pad"), pp.resize.NaViT(128), pp.resize.NaFlex(49)])
def test_of_whole_images_both_are_the_same(scheme: Any, resize: Any) -> None:
    whole = NATIVE.replace(resize=resize, crop=pp.crop.WholeImage())
    crop, image = (painted(whole.replace(positions=scheme(of=of))) for of in ("crop", "image"))
    assert [pp.digest(a) for a, _ in crop] == [pp.digest(b) for b, _ in image]


SIDE = st.integers(1, 3000)


@given(SIDE, SIDE, SIDE, SIDE, st.integers(1, 32), st.booleans(), st.booleans())
def test_a_window_is_its_definition(start: int, length: int, after: int, target: int, p: int, flip: bool, padded: bool) -> None:
    count = -(-target // p)
    target = target if padded else count * p
    side = start + length + after
    w = window(start, length, side, target, count, p, flip)
    pixels = Fraction(p * length, target)  # of the source in a patch
    end = max(Fraction(side), start + count * pixels)
    first = end - start - count * pixels if flip else Fraction(start)
    assert Fraction(w.start, w.unit) == first / pixels
    assert Fraction(w.extent, w.unit) == end / pixels
    if not padded and flip:
        assert first == side - start - length
    grid = Grid(count, 1)
    ids = pp.positions.Absolute(of="image").within(grid, w, Window(0, 1, 1))
    assert ids[:, 0].tolist() == [first // pixels + i for i in range(count)]
    assert ids.max() < count * Fraction(side, length) + 1 or padded
    for centered in (False, True):
        shares = pp.positions.Fractional(centered=centered, of="image").within(grid, w, Window(0, 1, 1))[:, 0]
        exact = [(first + (i + Fraction(int(centered), 2)) * pixels) / end for i in range(count)]
        assert shares.tolist() == [float(np.float32(float(share))) for share in exact]
        assert all(0 <= share < 1 for share in exact)


def test_what_positions_are_of() -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"of must be 'crop' or 'image', got 'whole'"):
        pp.positions.Absolute(of="whole")  # type: ignore[arg-type]
    (batch, *_) = pp.load(SAMPLES, NATIVE, target=None)
    assert batch.info.positions == "image"
    with pytest.raises(pp.errors.ShapeError, match=r"positions in the whole image do not tell which"):
        list(pp.unpack(batch, np.zeros((*batch.segment_ids.shape, 1), np.float32), per="token", dense=True))


# ------------------------------------------------------------------------------------------------------ pixel functions


def shift(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    pixels += generator.integers(1, 100, 3).astype(np.uint8)  # in place, as it may
    return pixels


def untouched(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return pixels


PLAIN = NATIVE.replace(resize=pp.resize.NaFlex(30), crop=pp.crop.RandomResizedCrop(), positions=pp.positions.Absolute())


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_a_function_that_does_nothing_changes_nothing(dtype: Any, resample: Any) -> None:
    recipe = PLAIN.replace(dtype=dtype, resample=resample)
    assert [pp.digest(a) for a, _ in painted(recipe)] == [pp.digest(a) for a, _ in painted(recipe.replace(augment=untouched))]


def test_a_function_sees_its_image_and_a_generator_of_its_own() -> None:
    recipe = PLAIN.replace(augment=shift)
    plain, shifted, again = painted(PLAIN), painted(recipe), painted(pickle.loads(pickle.dumps(recipe)))
    moves = set()
    for (before, _), (after, _), (same, _) in zip(plain, shifted, again, strict=True):
        difference = np.unique((np.asarray(after.patches) - np.asarray(before.patches)).reshape(-1, 3), axis=0)
        assert len(difference) == 1  # one shift for all patches of an image
        moves.add(tuple(difference[0].tolist()))
        assert pp.digest(after) == pp.digest(same) == pp.digest(pp.replay(SAMPLES, recipe, after.key, target=None))
    assert len(moves) == len(SAMPLES)
    first = next(
        iter(
            pp.load(
                SAMPLES[:1],
                recipe.replace(crop=pp.crop.WholeImage(), flip_prob=0.0, drop=pp.drop.NoDrop()),
                target=None,
                epoch=0,
            )
        )
    )
    later = next(
        iter(
            pp.load(
                SAMPLES[:1],
                recipe.replace(crop=pp.crop.WholeImage(), flip_prob=0.0, drop=pp.drop.NoDrop()),
                target=None,
                epoch=1,
            )
        )
    )
    assert not np.array_equal(np.asarray(first.patches), np.asarray(later.patches))


def test_padding_is_not_augmented() -> None:
    recipe = NATIVE.replace(
        resize=pp.resize.Native(1024, edge="pad"), crop=pp.crop.RandomCrop(9), drop=pp.drop.NoDrop(), flip_prob=0.0
    )
    for image, _ in painted(recipe.replace(augment=lambda pixels, generator: np.full_like(pixels, 7))):
        pixels = unpatchify(np.asarray(image.patches), image.grid, P)
        assert (pixels[:9, :9] == 7).all()
        assert pixels.sum() == 9 * 9 * 3 * 7


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda pixels, generator: pixels[1:], r"must return a uint8 array \[\d+, \d+, 3\] for 0, got uint8"),
        (lambda pixels, generator: pixels / 255, r"for 0, got float64"),
        (lambda pixels, generator: None, r"for 0, got NoneType"),
        (lambda pixels, generator: pixels[9999], r"failed for 0: IndexError: "),
    ],
)
def test_a_function_that_is_wrong_is_told_with_its_image(function: Any, message: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=message):
        list(pp.load(SAMPLES, PLAIN.replace(augment=function), target=None, on_error="skip"))


def test_refusals_at_construction() -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"augment must be a function"):
        PLAIN.replace(augment=3)
    with pytest.raises(pp.errors.ConfigError, match=r"use normalize=MeanStd"):
        PLAIN.replace(augment=shift, dtype="float32", normalize=pp.normalize.PerImage())
    assert PLAIN.replace(augment=shift).for_eval().augment is None
