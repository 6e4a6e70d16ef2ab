"""What a recipe does to sizes: figures that can be worked out by hand, and the same as an epoch of training."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import patchpack as pp
from patchpack.errors import ConfigError
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.packing import Item, Row
from patchpack.plan.study import Spread, study
from patchpack.plan.table import plan_table
from patchpack.types import Header, Size

SIZES = st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=80)


class Whole:
    """As many whole patches as an image has, without a bound."""

    draws = 0

    def bound(self, patch_size: int) -> None:
        return None

    def __call__(self, sizes, patch_size: int, u=None):
        return (sizes // patch_size).astype(np.int32)


def native(**options) -> pp.Recipe:
    """Whole patches of 16, nothing drawn, nothing dropped, one row open."""
    return pp.Recipe(**{"resize": Whole(), "packer": pp.packing.NextFit(), "seq_len": 10, "max_images": 4, **options})


def patches(*grids: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes of so many rows and columns of patches."""
    return [(16 * rows, 16 * cols) for rows, cols in grids]


def test_figures_worked_out_by_hand() -> None:
    s = study(patches((2, 3), (1, 4), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1)), native())
    # rows: 6 + 4 = 10, full, closed by the second image; 9 + 1 = 10, closed by the fourth; four of one token: out of slots
    assert (s.num_images, s.num_rows, s.refused, s.over_long) == (8, 3, 0, 0)
    assert s.row_tokens.tolist() == [10, 10, 4]
    assert s.num_tokens.tolist() == [6, 4, 9, 1, 1, 1, 1, 1]
    assert s.offsets.tolist() == [0, 2, 4, 8]
    assert s.fill_rate == s.steady_fill_rate == 24 / 30
    assert s.out_of_slots == 1 / 3
    assert s.images_per_row == (8 / 3, 2, 2, 2, pytest.approx(3.8), 4)
    assert s.image_waits.tolist() == [1, 0, 1, 0, 3, 2, 1, 0]
    assert s.longest_wait == 3
    assert s.attention.mean == pytest.approx((52 + 82 + 4) / 300)
    assert (s.attention.min, s.attention.max) == (0.04, 0.82)
    assert (s.upscaled, s.dropped_tokens, s.shortened) == (0, 0, 0)
    assert s.distortion == (0,) * 6


def test_rows_open_at_the_end_are_not_steady() -> None:
    s = study(patches((2, 5), (1, 4), (1, 9)), native())  # 10, then 4, closed by the last; 9 stays open
    assert s.fill_rate == 23 / 30
    assert s.steady_fill_rate == 14 / 20
    assert s.image_waits.tolist() == [0, 1, 0]
    only = study(patches((1, 4)), native())
    assert only.fill_rate == only.steady_fill_rate == 0.4


def test_a_full_row_of_all_slots_did_not_run_out_of_them() -> None:
    assert study(patches((1, 5), (1, 5)), native(max_images=2)).out_of_slots == 0
    assert study(patches((1, 5), (1, 4)), native(max_images=2)).out_of_slots == 1


def test_waits_count_refused_images_too() -> None:
    s = study(patches((1, 4), (9, 9), (1, 6)), native())
    assert (s.num_images, s.over_long) == (2, 1)
    assert s.image_waits.tolist() == [2, 0]


def test_what_is_refused_and_what_is_too_long() -> None:
    recipe = native(
        resize=pp.resize.SmartResize(28**2, 28**2 * 100, min_side=None), patch_size=14, seq_len=600, max_pixels=10**6
    )
    sizes = [(56, 56), (28, 28 * 300), (1001, 1000)]
    s = study(sizes, recipe)  # fits; an aspect ratio above 200; too many pixels
    assert (s.num_images, s.refused, s.over_long) == (1, 2, 0)
    s = study([(160, 16), (176, 16)], native())
    assert (s.num_images, s.refused, s.over_long) == (1, 0, 1)


def test_larger_and_bent_images_are_counted() -> None:
    square = pp.Recipe(resize=pp.resize.Square(32), seq_len=None, max_images=1)
    s = study([(32, 32), (16, 64), (16, 16), (64, 64)], square)
    assert s.upscaled == 0.25  # of the second as many pixels are made as were there
    assert s.distortion == Spread.of(np.array([0, np.log(4), 0, 0]))
    assert s.distortion.max == np.log(4)


def test_dropped_tokens_are_counted_against_whole_grids() -> None:
    s = study(patches((2, 5), (2, 4)), native(drop=pp.drop.Constant(0.5)))
    assert s.num_tokens.tolist() == [5, 4]
    assert s.dropped_tokens == 0.5


class Cutting:
    """Every item is a row of its own, and ends one token early."""

    max_cut = 0.5

    def push(self, item: Item) -> list[Row]:
        return [Row((item._replace(num_tokens=item.num_tokens - 1),))]

    def flush(self) -> list[Row]:
        return []


def test_tokens_that_the_packer_cuts_are_dropped_tokens() -> None:
    s = study(patches((2, 5), (2, 4)), native(packer=lambda seq_len, max_images: Cutting()))
    assert s.num_tokens.tolist() == [9, 7]
    assert s.shortened == 2
    assert s.dropped_tokens == pytest.approx(2 / 18)


@given(SIZES, st.integers(0, 3), st.sampled_from([1, 3, 64]))
def test_a_study_is_the_epoch_it_speaks_of(sizes, epoch, max_images) -> None:
    recipe = pp.recipes.navit(seq_len=256, max_images=max_images, rows_per_batch=3, packer=pp.packing.FirstFit(4))
    keys = [f"image {i}" for i in range(len(sizes))]
    headers = [Header(key, "", "", Size(*size), None) for key, size in zip(keys, sizes, strict=True)]
    planner = OnlinePlanner(recipe, epoch=epoch)
    plans = [*planner.feed(headers), *planner.finish()]
    s = study(sizes, recipe, epoch=epoch, keys=keys)
    assert s.num_tokens.tolist() == [n for plan in plans for n in plan.table.num_tokens.tolist()]
    assert np.diff(s.offsets).tolist() == [n for plan in plans for n in np.diff(plan.offsets).tolist()]
    assert s.num_images + s.refused + s.over_long == len(sizes)
    # waits, one item at a time
    packer, waits = recipe.packer(256, max_images), {}
    decided = plan_table(recipe, np.array(sizes), pp.rng.key_hash(keys), epoch=epoch)
    for i, tokens in enumerate(decided.num_tokens.tolist()):
        waits.update((item.id, i - item.id) for row in packer.push(Item(i, tokens)) for item in row.items)
    end = len(sizes) - 1
    waits.update((item.id, end - item.id) for row in packer.flush() for item in row.items)
    assert s.image_waits.tolist() == [waits[i] for i in range(len(sizes))]
    assert s.longest_wait == max(waits.values())


@given(st.integers(1, 60), st.integers(0, 5))
def test_with_several_patch_sizes_every_image_is_there_once(n, epoch) -> None:
    recipe = pp.Recipe(
        resize=pp.resize.NaFlex(64), patch_size=(8, 16), seq_len=128, rows_per_batch=2, packer=pp.packing.FirstFit(3)
    )
    s = study(np.random.default_rng(n).integers(20, 300, (n, 2)), recipe, epoch=epoch)
    assert (s.num_images, len(s.image_waits), s.offsets[-1]) == (n, n, n)
    assert 0 < s.fill_rate <= 1
    assert 0 <= s.image_waits.min() <= s.longest_wait < n


def test_a_study_of_a_sources_sizes_and_keys_is_what_its_planner_plans() -> None:
    recipe = pp.recipes.navit(seq_len=512, rows_per_batch=4)
    planner = pp.Planner(pp.samples.shards("val"), recipe, epoch=1)
    headers = [event for event in planner.source.scan() if isinstance(event, Header)]
    s = study([h.size for h in headers], recipe, epoch=1, keys=[h.key for h in headers])
    plans = list(planner)
    assert s.num_tokens.tolist() == [n for plan in plans for n in plan.table.num_tokens.tolist()]
    assert s.num_rows == sum(plan.num_rows for plan in plans)


def test_the_cutting_into_blocks_changes_nothing(monkeypatch) -> None:
    sizes = np.random.default_rng(0).integers(20, 900, (300, 2))
    whole = study(sizes, pp.recipes.navit())
    monkeypatch.setattr("patchpack.plan.study._BLOCK", 7)
    assert study(sizes, pp.recipes.navit()).num_tokens.tolist() == whole.num_tokens.tolist()


def test_the_table_says_what_was_found() -> None:
    text = study(patches((2, 3), (1, 4), (3, 3), (1, 1), (20, 20)), native()).table()
    lines = text.split("\n")
    assert lines[:4] == [
        "4 images in 2 rows of 10 tokens and 4 slots (epoch 0)",
        "fill 100.00 %, 100.00 % before the last rows; 0.0 % of rows ran out of slots",
        "0.0 % of patches dropped, 0.0 % of images made larger, 0 cut to fill a row",
        "0 refused, 1 too long for a row",
    ]
    assert lines[6].split() == ["tokens", "per", "image", "5", "1", "1", "5", "9", "9"]
    assert lines[7].split() == ["images", "per", "row", "2.0", "2.0", "2.0", "2.0", "2.0", "2.0"]
    assert len({len(line) for line in lines[5:]}) == 1
    assert max(map(len, lines)) <= 80
    assert "rows of 25 to 900 tokens and one slot" in study([[90, 90]] * 99, pp.recipes.flexivit(rows_per_batch=1)).table()


def test_repr_is_short() -> None:
    assert len(repr(study([[90, 90]] * 2000, pp.recipes.navit()))) < 2500


DRAWN = {"one": patches((2, 3)), "of one size": patches((2, 3)) * 40, "of three": [(3, 4000), (90, 90), (500, 20)] * 30}
SUFFIXES = (".png", ".PDF", ".svg")


@pytest.mark.parametrize(("sizes", "suffix"), [*zip(DRAWN, SUFFIXES, strict=True)])
def test_a_study_is_drawn(sizes, suffix, tmp_path: Path, monkeypatch) -> None:
    draw(DRAWN[sizes], tmp_path / f"study{suffix}", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", DRAWN)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_study_is_drawn_in_every_format(sizes, suffix, tmp_path: Path, monkeypatch) -> None:
    draw(DRAWN[sizes], tmp_path / f"study{suffix}", monkeypatch)


def draw(sizes, path: Path, monkeypatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it fails
    before = matplotlib.rcParams.copy()
    study(sizes, pp.recipes.navit()).plot(path)
    assert path.stat().st_size > 5000
    assert matplotlib.rcParams.copy() == before


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch) -> None:
    s = study([(90, 90)], pp.recipes.navit())
    with pytest.raises(ConfigError, match=r"ends in .png, .pdf or .svg, got 'study.jpg'"):
        s.plot("study.jpg")
    if "matplotlib" in sys.modules:
        with pytest.raises(ConfigError, match="cannot be written, FileNotFoundError"):
            s.plot(tmp_path / "nowhere" / "study.png")
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'patchpack\[viz\]'"):
        s.plot(tmp_path / "study.png")


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([], {}, "sizes must be integers [n, 2], height and width, n >= 1"),
        ([1, 2], {}, "sizes must be integers [n, 2]"),
        ([[1, 2, 3]], {}, "got int64 [1, 3]"),
        ([[1.5, 2]], {}, "got float64 [1, 2]"),
        ([[1, 2], [0, 5]], {}, "sizes must be in 1 … 2147483647, got sizes[1] = [0, 5] (1 such): leave them out"),
        ([[1, 2]], {"keys": ["a", "b"]}, "1 sizes and 2 keys"),
        ([[1, 2]], {"epoch": -1}, "epoch must be an integer in 0 …"),
        ([[1, 2]], {"recipe": "navit"}, "study needs a Recipe, such as patchpack.recipes.navit(), got 'navit'"),
        ([[320, 320]], {"recipe": native()}, "no image to pack, 1 samples seen, 1 rejected"),
    ],
)
def test_what_cannot_be_studied_is_refused(sizes, options, message) -> None:
    with pytest.raises(ConfigError) as caught:
        study(sizes, **{"recipe": pp.recipes.navit(), **options})
    assert message in str(caught.value)
