"""Position ids: the figure's examples under our convention, and fractions that are correctly rounded."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from helpers import naive
from patchpack import testing
from patchpack.plan.policies.positions import Absolute, Fractional, PositionScheme, Raster
from patchpack.types import Grid

WIDE, TALL = Grid(3, 4), Grid(7, 5)  # 96 x 128 and 224 x 160 pixels in patches of 32: NaViT figure 4
FRACTIONS = [Fractional(keep_aspect, centered) for keep_aspect in (False, True) for centered in (False, True)]

# the far corner; the figure labels it 1.0, the text of the paper and we say (n − 1) / n
CORNERS = {
    "wide, absolute": (WIDE, Absolute(), (2, 3)),
    "wide": (WIDE, Fractional(), (2 / 3, 3 / 4)),
    "wide, aspect": (WIDE, Fractional(keep_aspect=True), (2 / 4, 3 / 4)),
    "wide, centred": (WIDE, Fractional(centered=True), (2.5 / 3, 3.5 / 4)),
    "wide, aspect, centred": (WIDE, Fractional(keep_aspect=True, centered=True), (2.5 / 4, 3.5 / 4)),
    "tall, absolute": (TALL, Absolute(), (6, 4)),
    "tall": (TALL, Fractional(), (6 / 7, 4 / 5)),
    "tall, aspect": (TALL, Fractional(keep_aspect=True), (6 / 7, 4 / 7)),
    "tall, centred": (TALL, Fractional(centered=True), (6.5 / 7, 4.5 / 5)),
    "one patch": (Grid(1, 1), Fractional(), (0, 0)),
    "one patch, centred": (Grid(1, 1), Fractional(centered=True), (0.5, 0.5)),
    "wide, raster": (WIDE, Raster(), (11,)),
}


@pytest.mark.parametrize(("grid", "scheme", "corner"), CORNERS.values(), ids=CORNERS)
def test_the_far_corner(grid, scheme, corner) -> None:
    assert scheme(grid)[-1].tolist() == [np.float32(value) for value in corner]


def test_absolute_ids_are_row_and_col() -> None:
    expected = [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3], [2, 0], [2, 1], [2, 2], [2, 3]]
    assert Absolute()(WIDE).tolist() == expected


def test_raster_ids_count() -> None:
    assert Raster()(WIDE).tolist() == [[i] for i in range(12)]


def test_fractions_are_row_and_col() -> None:
    y, x = Fractional()(WIDE).reshape(3, 4, 2).transpose(2, 0, 1)
    assert y.tolist() == [[np.float32(v)] * 4 for v in (0, 1 / 3, 2 / 3)]
    assert x.tolist() == [[0, 0.25, 0.5, 0.75]] * 3


@pytest.mark.parametrize("scheme", [Absolute(), *FRACTIONS, Raster()], ids=repr)
@pytest.mark.parametrize("grid", [WIDE, TALL, Grid(1, 1), Grid(1, 9), (2, 3)], ids=str)
def test_shape_and_dtype(scheme, grid) -> None:
    ids = scheme(grid)
    assert isinstance(scheme, PositionScheme)
    assert ids.shape == (grid[0] * grid[1], 1 if scheme == Raster() else 2)
    assert ids.dtype == (np.float32 if isinstance(scheme, Fractional) else np.int32)


@pytest.mark.parametrize("scheme", FRACTIONS, ids=repr)
@given(grid=testing.grids(40))
def test_fractions_equal_their_twin(scheme, grid) -> None:
    expected = naive.fractional(*grid, keep_aspect=scheme.keep_aspect, centered=scheme.centered)
    # float of a fraction is correctly rounded, and so far from the middle of two float32 that rounding twice is once
    assert np.array_equal(scheme(Grid(*grid)), np.array(expected, dtype=np.float64).astype(np.float32))


@pytest.mark.parametrize("centered", [False, True])
def test_every_fraction_up_to_512_is_correctly_rounded(centered) -> None:
    """Nearer to the true fraction than its float32 neighbours; the products are exact, they fit float64 with room."""
    for n in range(1, 513):
        true = np.arange(n, dtype=np.float64) + 0.5 * centered  # times 1 / n
        for scheme, grid in ((Fractional(centered=centered), Grid(n, 1)), (Fractional(True, centered), Grid(1, n))):
            given_ids = scheme(grid)[:, 0 if grid.rows == n else 1]
            up, down = (np.nextafter(given_ids, np.float32(end)) for end in (np.inf, -np.inf))
            error, above, below = (np.abs(ids.astype(np.float64) * n - true) for ids in (given_ids, up, down))
            assert np.all((error < above) & (error < below)), n


def test_the_first_fraction_is_a_fraction() -> None:
    assert Fraction(float(Fractional()(Grid(8, 1))[3, 0])) == Fraction(3, 8)
