"""Pixels to patches and back, and which patches survive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from helpers import naive_paint
from helpers.goldens import load
from patchpack import _kernels_rng, rng
from patchpack.paint.patchify import patchify, unpatchify
from patchpack.testing import grids
from patchpack.types import Grid

HASHES = st.integers(0, 2**64 - 1)


def numbered(rows: int, cols: int, p: int, channels: int = 3) -> np.ndarray:
    """An image of which no two values are the same."""
    return np.arange(rows * cols * p * p * channels).reshape(rows * p, cols * p, channels)


def kept_patches(seed: int, epoch: int, key_hash: int, num_patches: int, num_tokens: int) -> np.ndarray:
    """As a painter draws those of one image among the others of its batch."""
    hashes = np.array([7, key_hash, 9], dtype=np.uint64)
    kept = rng.smallest(seed, epoch, hashes, rng.Stage.KEEP, [4, num_patches, 11], [3, num_tokens, 6])
    return kept[3 : 3 + num_tokens]


# ------------------------------------------------------------------------------------------------------------ patchify


def test_toy_by_hand() -> None:
    image = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17, 18], [19, 20, 21, 22, 23, 24]])
    assert patchify(image[..., None], 2).tolist() == [
        [1, 2, 7, 8], [3, 4, 9, 10], [5, 6, 11, 12],
        [13, 14, 19, 20], [15, 16, 21, 22], [17, 18, 23, 24],
    ]  # fmt: skip


def test_channels_are_fastest_inside_a_patch() -> None:
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    image[0, 1] = (1, 2, 3)
    image[1, 0] = (4, 5, 6)
    assert patchify(image, 2).tolist() == [[0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0]]


@given(grids(6), st.integers(1, 5), st.integers(1, 4))
def test_unpatchify_is_the_inverse(grid: tuple[int, int], p: int, channels: int) -> None:
    image = numbered(*grid, p, channels)
    assert np.array_equal(unpatchify(patchify(image, p), grid, p), image)


@given(grids(6), st.integers(1, 4))
def test_patchify_equals_the_loop(grid: tuple[int, int], p: int) -> None:
    image = numbered(*grid, p)
    assert np.array_equal(patchify(image, p), np.stack(naive_paint.patches(image, p)))


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_dtype_stays(dtype: str) -> None:
    image = numbered(1, 1, 4).astype(dtype)
    assert patchify(image, 2).dtype == dtype
    assert unpatchify(patchify(image, 2), (2, 2), 2).dtype == dtype


def test_golden_timm() -> None:
    images, peer = load("images"), load("patchify_timm")
    names = [name.removesuffix("__p8x8_cl") for name in peer if name.endswith("__p8x8_cl")]
    assert len(names) == 6
    for name in names:
        image = images[name]
        image = np.pad(image, ((0, -image.shape[0] % 8), (0, -image.shape[1] % 8), (0, 0)))
        assert np.array_equal(patchify(image, 8), peer[f"{name}__p8x8_cl"])
        grid = Grid(image.shape[0] // 8, image.shape[1] // 8)
        assert np.array_equal(pp.positions.Absolute()(grid), peer[f"{name}__p8x8_coord"])


@pytest.mark.parametrize(
    "shape", [(5, 4, 3), (4, 5, 3), (4, 4), (1, 4, 4, 3), (0, 4, 3), (4, 0, 3)],
    ids=["tall", "wide", "no_channels", "batched", "no_rows", "no_cols"],
)  # fmt: skip
def test_patchify_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(pp.errors.ShapeError, match=r"multiples of patch_size=4, got \["):
        patchify(np.zeros(shape), 4)


@pytest.mark.parametrize("shape", [(5, 12), (6, 13), (6,), (2, 3, 12)], ids=["count", "length", "flat", "grid"])
def test_unpatchify_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(pp.errors.ShapeError, match="for a grid of 2 x 3"):
        unpatchify(np.zeros(shape), (2, 3), 2)


# -------------------------------------------------------------------------------------------------------- kept_patches


@st.composite
def keeps(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    num_patches = draw(st.integers(1, 300))
    num_tokens = draw(st.integers(1, num_patches))
    return draw(HASHES), draw(st.integers(0, 2**32 - 1)), draw(HASHES), num_patches, num_tokens


@given(keeps())
def test_kept_ids_are_as_many_as_asked(args: tuple[int, int, int, int, int]) -> None:
    assert kept_patches(*args).shape == (args[4],)


@given(keeps())
def test_kept_ids_ascend_without_repeats(args: tuple[int, int, int, int, int]) -> None:
    assert np.all(np.diff(kept_patches(*args)) > 0)


@given(keeps())
def test_kept_ids_are_in_range(args: tuple[int, int, int, int, int]) -> None:
    ids = kept_patches(*args)
    assert ids.min() >= 0
    assert ids.max() < args[3]


@given(keeps())
def test_kept_ids_are_a_function_of_the_address(args: tuple[int, int, int, int, int]) -> None:
    assert np.array_equal(kept_patches(*args), kept_patches(*args))


@given(keeps())
def test_kept_ids_equal_the_sorted_draws(args: tuple[int, int, int, int, int]) -> None:
    assert kept_patches(*args).tolist() == naive_paint.keep(*args)


@given(st.lists(st.sampled_from([0, 1, 5 << 40, (1 << 53) - 1]), min_size=1, max_size=40), st.data())
def test_of_equal_draws_the_first_stay(draws: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(draws)))
    out = np.empty(k, dtype=np.int64)
    counts = np.zeros(data.draw(st.sampled_from([1, 2, 32, 64])), dtype=np.int64)
    _kernels_rng.select(np.array(draws, dtype=np.uint64), counts, out)
    assert out.tolist() == sorted(sorted(range(len(draws)), key=lambda i: draws[i])[:k])


def test_all_patches_stay_without_a_draw() -> None:
    assert kept_patches(1, 2, 3, 5, 5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("moved", ["seed", "epoch", "key_hash"])
def test_every_part_of_the_address_counts(moved: str) -> None:
    address = {"seed": 1, "epoch": 2, "key_hash": 3}
    here = kept_patches(**address, num_patches=400, num_tokens=200)
    there = kept_patches(**{**address, moved: 9}, num_patches=400, num_tokens=200)
    assert not np.array_equal(here, there)


def test_every_patch_is_kept_equally_often() -> None:
    """4000 subsets of 5 from 20: how often each patch, and each with its neighbour, by chi-square at one in a million."""
    from scipy.stats import chisquare  # here, because it takes two seconds to import

    kept = np.zeros((4000, 20), dtype=np.int64)
    for key in range(4000):
        kept[key, kept_patches(7, 0, key * 2**40 + 1, 20, 5)] = 1
    # counts of a draw without replacement vary less than independent ones, so the test is on the safe side
    assert chisquare(kept.sum(axis=0)).pvalue > 1e-6
    together = (kept * np.roll(kept, 1, axis=1)).sum(axis=0)
    assert chisquare(together).pvalue > 1e-6
    assert together.mean() == pytest.approx(4000 * 5 * 4 / (20 * 19), rel=0.05)
