"""Near-optimal packing: named cases, the published gap, the clock, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bench import lists
from patchpack.errors import ConfigError
from patchpack.plan.packing import TightPacking, lower_bound, offline, pack_lengths, pack_tight

pytest.importorskip("highspy")

COMBS = {
    # lengths, seq_len -> rows of the cheap methods, rows of the linear program (and its bound)
    "three lengths": ([4] * 6 + [11] * 39 + [17] * 59, 53, 30, 29),
    "short ones": ([2] * 38 + [7] * 6 + [9] * 45, 21, 27, 26),
    "four lengths": ([6] * 53 + [7] * 50 + [8] * 54 + [9] * 56, 21, 85, 81),
    "long ones": ([9] * 54 + [15] * 15 + [20] * 24 + [22] * 57, 49, 54, 53),
}


def rows_of(result: TightPacking) -> list[list[int]]:
    return [result.packing.row(r).tolist() for r in range(result.packing.num_rows)]


def check(result: TightPacking, lengths, seq_len: int, cap: int | None = None) -> None:
    """Everything once, in order, within both caps."""
    items, offsets, cuts = result.packing
    assert cuts is None
    row = np.repeat(np.arange(result.packing.num_rows), np.diff(offsets))
    assert np.array_equal(np.sort(items), np.arange(len(lengths)))
    assert np.bincount(row, np.asarray(lengths)[items]).max() <= seq_len
    assert np.diff(offsets).min() > 0
    assert cap is None or np.diff(offsets).max() <= cap
    assert result.lower_bound <= result.packing.num_rows


CASES = {
    # lengths, seq_len, max_images -> rows
    "nothing": ([], 10, None, []),
    "one": ([10], 10, None, [[0]]),
    "pairs": ([6, 5, 4, 3, 2], 10, None, [[0, 2], [1, 3, 4]]),
    "rows in the order of their first items": ([1, 9, 10], 10, None, [[0, 1], [2]]),
    "equal lengths in the order of arrival": ([5, 5, 5, 5], 10, None, [[0, 1], [2, 3]]),
    "one to a row": ([1, 2, 3], 10, 1, [[0], [1], [2]]),
    "two to a row": ([1, 1, 1, 1], 10, 2, [[0, 1], [2, 3]]),
}


@pytest.mark.parametrize(("lengths", "seq_len", "cap", "rows"), CASES.values(), ids=CASES)
def test_named_cases(lengths, seq_len, cap, rows) -> None:
    result = pack_tight(lengths, seq_len=seq_len, max_images=cap)
    assert rows_of(result) == rows
    assert (result.lower_bound, result.gap, result.finished) == (len(rows), 0.0, True)
    assert (result.packing.items.dtype, result.packing.offsets.dtype) == (np.int64, np.int64)
    assert result.seconds >= 0


@pytest.mark.parametrize(("lengths", "seq_len", "cheap", "rows"), COMBS.values(), ids=COMBS)
def test_combs_need_the_linear_program(lengths, seq_len, cheap, rows) -> None:
    result = pack_tight(lengths, seq_len=seq_len)
    check(result, lengths, seq_len)
    assert (result.packing.num_rows, result.lower_bound, result.gap, result.finished) == (rows, rows, 0.0, True)
    hurried = pack_tight(lengths, seq_len=seq_len, time_limit=1e-9)
    check(hurried, lengths, seq_len)
    assert (hurried.packing.num_rows, hurried.finished) == (cheap, False)
    assert hurried.gap == (cheap - hurried.lower_bound) / hurried.lower_bound > 0


def test_rows_filled_by_sums_beat_best_fit_decreasing() -> None:
    lengths = [3] * 60 + [4] * 30
    assert pack_lengths(lengths[::-1], seq_len=10, method="best_fit").num_rows == 35
    result = pack_tight(lengths, seq_len=10, time_limit=1e-9)
    assert (result.packing.num_rows, result.finished) == (30, True)


def test_a_wide_gap_is_enough_at_once() -> None:
    lengths = [3] * 60 + [4] * 30
    result = pack_tight(lengths, seq_len=10, gap=0.2)
    assert (result.packing.num_rows, result.lower_bound, result.finished) == (35, 30, True)
    assert result.gap == 5 / 30


def test_a_program_too_large_for_memory_is_left_out() -> None:
    lengths = np.concatenate([np.arange(1, 1 << 10), np.full(8, 1 << 19)])
    result = pack_tight(lengths, seq_len=1 << 20, max_images=900, gap=0)
    check(result, lengths, 1 << 20, 900)
    assert result.packing.num_rows - result.lower_bound <= 1


def test_the_same_arguments_give_the_same_rows() -> None:
    lengths, seq_len, *_ = COMBS["four lengths"]
    assert rows_of(pack_tight(lengths, seq_len=seq_len, seed=3)) == rows_of(pack_tight(lengths, seq_len=seq_len, seed=3))


@pytest.mark.parametrize("factor", [0.9, 1.04, 1.3])
def test_slots_that_are_scarce_on_a_smooth_list(factor) -> None:
    """Best-fit-decreasing leaves the short ones for the end, where the cap binds."""
    lengths = (np.random.default_rng(0).beta(2, 3, 5000) * 250 + 1).astype(np.int64)
    cap = round(factor * 5000 * 1024 / lengths.sum())
    result = pack_tight(lengths, seq_len=1024, max_images=cap)
    check(result, lengths, 1024, cap)
    assert result.gap <= 0.001 or result.packing.num_rows - result.lower_bound <= 1
    if factor > 1.01:
        assert (
            pack_lengths(np.sort(lengths)[::-1], seq_len=1024, max_images=cap, method="best_fit").num_rows
            > (1.1 if factor < 1.2 else 1.01) * result.packing.num_rows
        )


@pytest.mark.parametrize("name", lists.NAMES)
@pytest.mark.parametrize("seq_len", [256, 1024, 4096])
def test_a_thousandth_from_the_bound(name, seq_len) -> None:
    lengths = lists.make(name, 10_000, seq_len)
    result = pack_tight(lengths, seq_len=seq_len)
    check(result, lengths, seq_len)
    assert result.gap <= 0.001 or result.packing.num_rows - result.lower_bound <= 1


def test_coco_with_few_slots_comes_to_its_linear_bound() -> None:
    lengths = lists.make("coco", 3000, 4096)
    result = pack_tight(lengths, seq_len=4096, max_images=5)
    check(result, lengths, 4096, 5)
    assert result.lower_bound == lower_bound(lengths, 4096, 5, lp=True) > lower_bound(lengths, 4096, 5)
    assert result.packing.num_rows - result.lower_bound <= 1


REFUSED = {
    "zero": ([3, 0], {}, r"lengths must be in 1 … seq_len=10, got lengths\[1\] = 0"),
    "over seq_len": ([3, 11], {}, r"lengths\[1\] = 11 .* raise seq_len"),
    "floats": ([3.0], {}, "integers, got float64"),
    "seq_len 0": ([3], {"seq_len": 0}, "seq_len must be an integer .* got 0"),
    "max_images 0": ([3], {"max_images": 0}, "max_images must be an integer .* got 0"),
    "no time": ([3], {"time_limit": 0}, "time_limit must be a positive number of seconds, got 0"),
    "gap below 0": ([3], {"gap": -0.1}, "gap must be a number >= 0, got -0.1"),
    "gap not a number": ([3], {"gap": float("nan")}, "gap must be a number >= 0, got nan"),
    "gap as text": ([3], {"gap": "0"}, "gap must be a number >= 0, got '0'"),
    "seed below 0": ([3], {"seed": -1}, "seed must be an integer .* got -1"),
    "seed float": ([3], {"seed": 0.5}, "seed must be an integer .* got 0.5"),
}


@pytest.mark.parametrize(("lengths", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_packed_is_named(lengths, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        pack_tight(lengths, **{"seq_len": 10, **options})


def test_a_missing_solver_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(ConfigError, match=r"needs highspy.*pip install 'patchpack\[solver\]'"):
        pack_tight([3], seq_len=10)


@pytest.mark.parametrize("seed", [None, 7])
def test_tight_is_a_method_of_pack_lengths(seed) -> None:
    lengths, options = [1200] * 30 + [1170] * 20 + [640] * 31, {"seq_len": 4096, "max_images": 4}
    packing = pack_lengths(lengths, method="tight", seed=seed, **options)
    expected = pack_tight(lengths, seed=seed or 0, **options).packing
    assert (packing.items.tolist(), packing.offsets.tolist()) == (expected.items.tolist(), expected.offsets.tolist())
    assert pack_lengths([5, 5], seq_len=10, max_images=2, slots=[1, 1], method="tight").num_rows == 1


def test_tight_takes_the_seed_of_pack_lengths(monkeypatch) -> None:
    seeds = []
    monkeypatch.setattr(
        offline, "pack_tight", lambda *args, seed, **options: (seeds.append(seed), pack_tight([1], seq_len=1))[1]
    )
    for seed in (None, 0, 7):
        pack_lengths([5, 5], seq_len=10, method="tight", seed=seed)
    assert seeds == [0, 0, 7]


def test_tight_refuses_items_of_several_slots() -> None:
    with pytest.raises(ConfigError, match="tight packs items of one slot only, got an item of 3: use spread"):
        pack_lengths([5, 5], seq_len=10, max_images=4, slots=[1, 3], method="tight")
