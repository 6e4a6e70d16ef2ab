"""Rows from a pool of waiting items: named cases, errors, state, and the fill that is promised on real sizes."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from bench import lists
from patchpack.errors import ConfigError
from patchpack.plan.packing import Item, Lookahead, Packer, Prices, Row, learn_prices, pack_stream

SIX_OR_MORE = Prices(10, 2, ((4, 1), (6, 2)))


def rows_of(lengths, seq_len, cap=None, slots=None, **options) -> list[list[int]]:
    packing = pack_stream(lengths, seq_len=seq_len, max_images=cap, slots=slots, packer=Lookahead(**options))
    return [packing.row(r).tolist() for r in range(packing.num_rows)]


def ids(rows: list[Row]) -> list[list[int]]:
    return [[item.id for item in row.items] for row in rows]


# ------------------------------------------------------------------------------------------------------------- the rows

CASES = {
    # lengths, seq_len, max_images, options -> rows
    "nothing": ([], 10, None, {}, []),
    "one": ([10], 10, None, {}, [[0]]),
    "the oldest and what fills its row": ([6, 7, 4, 3], 10, None, {"waiting": 3}, [[0, 2], [1, 3]]),
    "one waits, one to a row": ([1, 2, 3], 10, None, {"waiting": 1}, [[0], [1], [2]]),
    "fullest, not first": ([5, 4, 5], 10, None, {"waiting": 3}, [[0, 2], [1]]),
    "fullest by several": ([3, 6, 4, 3], 10, None, {"waiting": 4}, [[0, 2, 3], [1]]),
    "of equally full ones the older items": ([6, 4, 4], 10, None, {"waiting": 3}, [[0, 1], [2]]),
    "older, though more of them": ([5, 2, 3, 5], 10, None, {"waiting": 4}, [[0, 1, 2], [3]]),
    "arrival order inside": ([2, 9, 3, 5], 10, None, {"waiting": 4}, [[0, 2, 3], [1]]),
    "oldest first while much is left": ([1] * 8 + [3, 3], 10, None, {"waiting": 10}, [[0, 1, 2, 3, 4, 5, 6, 8], [7, 9]]),
    "six means left end it": ([1, 4, 10, 8, 1, 1, 1, 1, 1, 2], 19, None, {"waiting": 10}, [[0, 2, 3], [1, 4, 5, 6, 7, 8, 9]]),
    "six slots left end it": ([1, 9, 66, 3, 1, 1, 1, 1], 70, 7, {"waiting": 8}, [[0, 2, 3], [1, 4, 5, 6, 7]]),
    "a cap of one": ([1, 9, 1], 10, 1, {"waiting": 3}, [[0], [1], [2]]),
    "a cap takes the long ones": ([2, 1, 1, 1, 8], 10, 2, {"waiting": 5}, [[0, 4], [1, 2], [3]]),
    "no wait, no company": ([1, 1, 1], 10, None, {"longest_wait": 0}, [[0], [1], [2]]),
    "closed by age": ([1, 9, 5, 5, 2], 10, None, {"longest_wait": 1}, [[0, 1], [2, 3], [4]]),
    "a wait of two": ([6, 3, 4, 7], 10, None, {"longest_wait": 2}, [[0, 2], [1, 3]]),
    "dear, not full": ([4, 4, 6, 2], 10, None, {"waiting": 4, "prices": SIX_OR_MORE}, [[0, 1, 3], [2]]),
    "dear leaves the oldest": ([3, 6, 4, 4], 10, None, {"waiting": 4, "prices": SIX_OR_MORE}, [[2, 3], [0, 1]]),
    "dear, but an item must go": ([3, 6, 4, 4], 10, None, {"longest_wait": 3, "prices": SIX_OR_MORE}, [[0, 1], [2, 3]]),
    "of equally many the dear": ([5, 6, 5, 6], 10, None, {"waiting": 4, "prices": SIX_OR_MORE}, [[1], [0, 2], [3]]),
    "too dear in slots": ([1, 5, 1], 10, 1, {"waiting": 3, "prices": Prices(10, 2, ((1, 1),))}, [[0], [1], [2]]),
    "all worthless": ([1, 2, 3], 10, None, {"waiting": 3, "prices": SIX_OR_MORE}, [[0, 1, 2]]),
}  # fmt: skip


@pytest.mark.parametrize(("lengths", "seq_len", "cap", "options", "rows"), CASES.values(), ids=CASES)
def test_named_cases(lengths, seq_len, cap, options, rows) -> None:
    assert rows_of(lengths, seq_len, cap, **options) == rows


def test_slots_are_taken_before_they_run_short() -> None:
    """Three slots a row and items of one and two: the pool is short of slots, so a full count comes before a full row."""
    assert rows_of([2, 3, 3], 8, 3, [2, 2, 1], waiting=3) == [[0, 2], [1]]
    assert rows_of([4, 4, 1, 1], 8, 3, [1, 1, 2, 2], waiting=4) == [[0, 2], [1, 3]]


def test_a_wide_pool_and_rows_of_many_words() -> None:
    lengths = np.random.default_rng(0).integers(1, 700, 3000)
    packing = pack_stream(lengths, seq_len=5000, packer=Lookahead(200))
    sums = np.add.reduceat(lengths[packing.items], packing.offsets[:-1])
    assert (np.sort(packing.items) == np.arange(3000)).all()
    assert (sums[:-20] == 5000).all()
    assert (packing.items.dtype, packing.offsets.dtype) == (np.int64, np.int64)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.uint64])
def test_integer_dtypes_and_gaps_do_not_matter(dtype) -> None:
    lengths = np.array([6, 1, 7, 1, 4, 1, 3], dtype=dtype)
    assert rows_of(lengths[::2], 10, waiting=3) == [[0, 2], [1, 3]]
    assert lengths.tolist() == [6, 1, 7, 1, 4, 1, 3]


def test_a_row_closes_at_the_push_that_fills_the_pool() -> None:
    packer = Lookahead(3)(10, 9)
    assert isinstance(packer, Packer)
    assert [ids(packer.push(Item(i, n))) for i, n in enumerate([6, 7, 4, 3])] == [[], [], [[0, 2]], []]
    assert ids(packer.flush()) == [[1, 3]]
    assert packer.flush() == []


def test_flush_begins_with_the_oldest_whatever_is_dear() -> None:
    packer = Lookahead(9, None, SIX_OR_MORE)(10, 9)
    assert [row for i, n in enumerate([3, 6, 4, 4]) for row in packer.push(Item(i, n))] == []
    assert ids(packer.flush()) == [[0, 1], [2, 3]]
    assert rows_of([3, 6, 4, 4], 10, waiting=9, prices=SIX_OR_MORE) == [[0, 1], [2, 3]]


def test_items_come_back_as_they_went_in() -> None:
    packer = Lookahead(2)(10, 9)
    packer.push(Item(-7, 3, 4))
    assert packer.push(Item(1 << 80, 2, 5)) == [Row((Item(-7, 3, 4), Item(1 << 80, 2, 5)))]


@pytest.mark.parametrize(("max_images", "waiting"), [(None, 64), (1, 64), (64, 64), (65, 65), (1 << 20, 4096)])
def test_a_pool_holds_a_whole_row_unless_told(max_images, waiting) -> None:
    assert Lookahead().limits(max_images) == (waiting, 8 * waiting)
    assert Lookahead(7).limits(max_images) == (7, 56)
    assert Lookahead(longest_wait=3).limits(max_images) == (waiting, 3)


def test_rows_of_more_images_than_64_are_full() -> None:
    """80 images of 50 tokens in a row of 4,000: a pool of 64 could not fill one."""
    lengths = np.full(1000, 50)
    assert pack_stream(lengths, seq_len=4000, max_images=250).num_rows == 13  # 12.5
    assert pack_stream(lengths, seq_len=4000, max_images=250, packer=Lookahead(64)).num_rows == 16


# -------------------------------------------------------------------------------------------------------------- the cuts

CUTS = {
    # lengths, seq_len, options -> rows, cuts by item
    "the longest is cut": ([40, 63, 69], 100, {"waiting": 3}, [[0, 1], [2]], [0, 3, 0]),
    "a full row without a cut first": ([40, 63, 60], 100, {"waiting": 3}, [[0, 2], [1]], [0, 0, 0]),
    "the least cut": ([50, 55, 53], 100, {"waiting": 3}, [[0, 2], [1]], [0, 0, 3]),
    "a cut before a wider gap": ([50, 46, 53], 100, {"waiting": 3}, [[0, 2], [1]], [0, 0, 3]),
    "no cut that loses more than stays empty": ([50, 48, 53], 100, {"waiting": 3}, [[0, 1], [2]], [0, 0, 0]),
    "no cut that loses as much as stays empty": ([50, 47, 53], 100, {"waiting": 3}, [[0, 1], [2]], [0, 0, 0]),
    "no more than a tenth of an item before it": ([29, 73, 50], 100, {"waiting": 3}, [[0, 1], [2]], [0, 2, 0]),
    "a tenth of 29 is 2": ([29, 74, 50], 100, {"waiting": 3}, [[0, 2], [1]], [0, 0, 0]),
    "of equally long ones the oldest": ([51, 51], 100, {"waiting": 2}, [[0, 1]], [2, 0]),
    "dear and one more": ([4, 4, 3], 10, {"waiting": 3, "prices": SIX_OR_MORE, "max_cut": 0.4}, [[0, 1, 2]], [1, 0, 0]),
    "dear, no cut like the gap": ([6, 8], 10, {"waiting": 2, "prices": SIX_OR_MORE, "max_cut": 0.5}, [[0], [1]], [0, 0]),
    "dear, and one more that is longest": ([1, 6, 4], 10, {"prices": SIX_OR_MORE, "waiting": 3}, [[1, 2], [0]], [0, 0, 0]),
}  # fmt: skip


@pytest.mark.parametrize(("lengths", "seq_len", "options", "rows", "cuts"), CUTS.values(), ids=CUTS)
def test_cuts(lengths, seq_len, options, rows, cuts) -> None:
    packing = pack_stream(lengths, seq_len=seq_len, packer=Lookahead(**{"max_cut": 0.1, **options}))
    assert ([packing.row(r).tolist() for r in range(packing.num_rows)], packing.cuts.tolist()) == (rows, cuts)


def test_a_cut_item_comes_back_shorter_and_the_others_as_they_were() -> None:
    packer = Lookahead(2, max_cut=0.1)(100, 9)
    packer.push(Item(0, 40, 2))
    assert packer.push(Item(1, 63, 3)) == [Row((Item(0, 40, 2), Item(1, 60, 3)))]


def test_a_tenth_of_one_image_fills_rows_exactly() -> None:
    """With 256 waiting, of 200,000 native ImageNet images one in 200 at most is cut, and rows are 99.99 % full."""
    lengths = lists.make("imagenet", 200_000, 4096)
    packing = pack_stream(lengths, seq_len=4096, packer=Lookahead(256, max_cut=0.1))
    kept = lengths - packing.cuts
    assert (packing.cuts <= lengths // 10).all()
    assert 100 * kept.sum() / 4096 / packing.num_rows >= 99.99
    assert (packing.cuts > 0).mean() <= 0.005
    assert packing.cuts.sum() / lengths.sum() < 0.0001


# ------------------------------------------------------------------------------------------------------------- the state


def test_state_is_readable_json() -> None:
    packer = Lookahead(4)(10, 9)
    for i, n in enumerate([6, 7, 2]):
        packer.push(Item(i, n))
    state = packer.state_dict()
    assert json.loads(json.dumps(state)) == state == {"waiting": [[0, 6, 1, 2], [1, 7, 1, 1], [2, 2, 1, 0]]}


def test_age_survives() -> None:
    packer, other = Lookahead(9, 3)(10, 9), Lookahead(9, 3)(10, 9)
    for i in range(3):
        packer.push(Item(i, 9))
    other.load_state_dict(packer.state_dict())
    assert ids(other.push(Item(3, 2))) == ids(packer.push(Item(3, 2))) == [[0]]


def test_a_state_that_does_not_fit_is_refused() -> None:
    packer = Lookahead(9)(10, 9)
    for i in range(3):
        packer.push(Item(i, 6))
    state = packer.state_dict()
    with pytest.raises(ConfigError, match="the state has 3 waiting items, more than waiting=3 allows"):
        Lookahead(3)(10, 9).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"Item\(id=0, .* does not fit a row of 5 tokens"):
        Lookahead(9)(5, 9).load_state_dict(state)


@pytest.mark.parametrize("options", [Lookahead(), Lookahead(8, 5, SIX_OR_MORE)], ids=repr)
def test_options_are_a_value(options) -> None:
    assert eval(repr(options)) == options == pickle.loads(pickle.dumps(options))
    assert hash(options) == hash(eval(repr(options)))


# ------------------------------------------------------------------------------------------------------------ the errors

REFUSED = {
    "zero": (lambda: rows_of([3, 0], 10), r"lengths must be in 1 … seq_len=10, got lengths\[1\] = 0"),
    "over seq_len": (lambda: rows_of([11], 10), r"lengths\[0\] = 11"),
    "floats": (lambda: rows_of([3.0], 10), "integers, got float64"),
    "seq_len": (lambda: rows_of([3], 1 << 21), r"seq_len must be an integer in 1 … 1048576, got 2097152"),
    "max_images": (lambda: rows_of([3], 10, 0), "max_images must be an integer .* got 0"),
    "no slots": (lambda: rows_of([3], 10, 4, [0]), r"slots must be in 1 … max_images=4, got slots\[0\] = 0"),
    "too many slots": (lambda: rows_of([3], 10, 4, [5]), r"slots must be in 1 … max_images=4, got slots\[0\] = 5"),
    "slots of another list": (lambda: rows_of([3], 10, 4, [1, 1]), r"slots must be 1 integers.* shape \(2,\)"),
    "waiting 0": (lambda: Lookahead(0), "waiting must be an integer in 1 … 4096, got 0"),
    "waiting float": (lambda: Lookahead(2.0), "waiting must be an integer .* got 2.0"),
    "waiting much": (lambda: Lookahead(5000), "waiting must be an integer .* got 5000"),
    "longest_wait": (lambda: Lookahead(4, -1), "longest_wait must be an integer .* got -1"),
    "max_cut 1": (lambda: Lookahead(max_cut=1.0), r"max_cut must be a number in \[0, 1\).* got 1.0"),
    "max_cut below": (lambda: Lookahead(max_cut=-0.1), r"max_cut must be a number .* got -0.1"),
    "max_cut NaN": (lambda: Lookahead(max_cut=float("nan")), r"max_cut must be a number .* got nan"),
    "max_cut text": (lambda: Lookahead(max_cut="0.1"), r"max_cut must be a number .* got '0.1'"),
    "prices": (lambda: Lookahead(4, None, {6: 2}), r"prices must be Prices or None, got \{6: 2\}: learn_prices"),
    "prices of another row": (lambda: Lookahead(4, None, SIX_OR_MORE)(11, 3), "for seq_len=10, but rows have 11: learn prices"),
    "units": (lambda: Prices(10, 256, ()), "units must be an integer in 1 … 255, got 256"),
    "step too long": (lambda: Prices(10, 2, ((11, 1),)), "length of a step must be an integer in 1 … 10, got 11"),
    "lengths fall": (lambda: Prices(10, 2, ((6, 1), (5, 2))), "length of a step must be an integer in 7 … 10, got 5"),
    "worths stay": (lambda: Prices(10, 2, ((5, 1), (6, 1))), "worth of a step must be an integer in 2 … 2, got 1"),
    "worth of a step": (lambda: Prices(10, 2, ((5, 3),)), "worth of a step must be an integer in 1 … 2, got 3"),
    "no sample": (lambda: learn_prices([], seq_len=10), "lengths must not be empty"),
    "sample": (lambda: learn_prices([11], seq_len=10), r"lengths\[0\] = 11"),
    "most_units": (lambda: learn_prices([3], seq_len=10, most_units=0), "most_units must be an integer in 1 … 128, got 0"),
}  # fmt: skip


@pytest.mark.parametrize(("attempt", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_named(attempt, message) -> None:
    with pytest.raises(ConfigError, match=message):
        attempt()


@pytest.mark.parametrize("item", [Item(5, 0), Item(5, 11), Item(5, 1, 0), Item(5, 1, 4)], ids=str)
def test_an_item_that_no_row_holds_is_named_and_not_kept(item) -> None:
    packer = Lookahead()(10, 3)
    with pytest.raises(ConfigError, match=r"Item\(id=5, .* does not fit a row of 10 tokens and 3 slots"):
        packer.push(item)
    assert packer.flush() == []


# ------------------------------------------------------------------------------------------------------------ the prices


def test_prices_are_a_step_function_of_the_length() -> None:
    assert SIX_OR_MORE.table().tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]
    assert Prices(3, 1, ()).table().tolist() == [0, 0, 0, 0]


LEARNT = {
    # lengths, seq_len -> units, steps
    "over half a row": ([6] * 4, 10, 1, ((6, 1),)),
    "over a third": ([4] * 7, 10, 2, ((4, 1),)),
    "a third goes beside no two": ([4, 6, 6, 6], 11, 1, ((6, 1),)),
    "halves and more": ([5, 5, 7, 9], 10, 2, ((5, 1), (7, 2))),
}


@pytest.mark.parametrize(("lengths", "seq_len", "units", "steps"), LEARNT.values(), ids=LEARNT)
def test_learnt_prices(lengths, seq_len, units, steps) -> None:
    assert learn_prices(lengths, seq_len=seq_len) == Prices(seq_len, units, steps)


@pytest.mark.parametrize("lengths", [[5] * 9, [10], [1] * 10, [3, 7] * 4], ids=str)
def test_nothing_is_learnt_where_rows_can_be_full(lengths) -> None:
    assert learn_prices(lengths, seq_len=10) is None


# ------------------------------------------------------------------------------------------------------------ the promise


def fill(lengths: np.ndarray, options: Lookahead, max_images: int | None = None) -> float:
    return 100 * lengths.sum() / 4096 / pack_stream(lengths, seq_len=4096, max_images=max_images, packer=options).num_rows


@pytest.mark.parametrize(("name", "promised"), [("navit", 99.99), ("imagenet", 99.9), ("coco", 97.5), ("lognormal", 99.98)])
def test_fill_of_64_waiting_images(name, promised) -> None:
    """With the prices of a sample of other images, where there are any."""
    prices = learn_prices(lists.make(name, 10_000, 4096, 1), seq_len=4096) if name == "coco" else None
    assert fill(lists.make(name, 200_000, 4096), Lookahead(64, None, prices)) >= promised


@pytest.mark.parametrize("name", ["navit", "imagenet", "coco", pytest.param("lognormal", marks=pytest.mark.slow)])
def test_prices_are_learnt_from_a_comb_of_lengths_alone(name) -> None:
    assert (learn_prices(lists.make(name, 10_000, 4096, 1), seq_len=4096) is not None) == (name == "coco")


def test_a_tight_cap_costs_little() -> None:
    """20 slots where a row has 19.2 images on average: half a percent of the bound at most, with 256 waiting."""
    lengths = lists.make("navit", 200_000, 4096)
    assert len(lengths) / 20 < lengths.sum() / 4096
    assert fill(lengths, Lookahead(256), 20) >= 99.9
