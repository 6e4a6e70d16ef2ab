"""Offline packing on the histogram: named cases, slots, seeds, errors, and what the default reaches."""

from __future__ import annotations

import numpy as np
import pytest

from bench import lists
from patchpack.errors import ConfigError
from patchpack.plan.packing import Packing, Patterns, pack_histogram, pack_lengths

PLANNED = ("spread", "best_fit_decreasing", "spfhp", "lpfhp")
ARRIVAL = ("first_fit", "best_fit", "next_fit")


def rows_of(packing: Packing) -> list[list[int]]:
    return [packing.row(r).tolist() for r in range(packing.num_rows)]


CASES = {
    # lengths, seq_len, max_images, slots -> rows of best-fit decreasing
    "nothing": ([], 10, None, None, []),
    "one": ([10], 10, 1, None, [[0]]),
    "longest first": ([4, 6, 5, 2], 10, None, None, [[1, 0], [2, 3]]),
    "least room, most room": ([7, 6, 3], 10, None, None, [[0, 2], [1]]),
    "as many as fit, or a row each": ([3, 3, 3, 3], 10, None, None, [[0, 1, 2], [3]]),
    "as many as fit within the cap": ([2, 2, 2], 10, 2, None, [[0, 1], [2]]),
    "most room, one at a time": ([5, 6, 2, 2], 10, None, None, [[1, 2, 3], [0]]),
    "a full slot count closes": ([5, 1, 1, 1], 10, 2, None, [[0, 1], [2, 3]]),
    "slots decide between equals": ([4, 4, 1], 10, 3, [1, 3, 1], [[1], [0, 2]]),
    "a row too short of slots is passed over": ([7, 6, 3], 10, 3, [2, 1, 2], [[0], [1, 2]]),
    "and stays open": ([7, 5, 2, 1, 1], 10, 5, [1, 3, 1, 2, 1], [[0, 2, 3], [1, 4]]),
}  # fmt: skip


@pytest.mark.parametrize(("lengths", "seq_len", "cap", "slots", "expected"), CASES.values(), ids=CASES)
def test_named_cases(lengths, seq_len, cap, slots, expected) -> None:
    packing = pack_lengths(lengths, seq_len=seq_len, max_images=cap, slots=slots, method="best_fit_decreasing")
    assert sorted(map(sorted, rows_of(packing))) == sorted(map(sorted, expected))
    assert (packing.items.dtype, packing.offsets.dtype) == (np.int64, np.int64)


def test_the_default_pairs_long_with_short_where_slots_are_scarce() -> None:
    """Best-fit-decreasing puts 5 + 5 and leaves two rows of ones; three rows of 5, 1, 1 … hold everything else."""
    lengths = [5] * 4 + [1] * 8
    assert pack_lengths(lengths, seq_len=10, max_images=3, method="best_fit_decreasing").num_rows == 5
    packing = pack_lengths(lengths, seq_len=10, max_images=3)
    assert sorted(sorted(lengths[i] for i in row) for row in rows_of(packing)) == [[1, 1, 5]] * 4


def test_rows_list_the_longest_first_and_come_in_the_order_of_opening() -> None:
    packing = pack_lengths([1, 6, 2, 7, 3, 1], seq_len=10, method="best_fit_decreasing")
    assert rows_of(packing) == [[3, 4], [1, 2, 0, 5]]


# --------------------------------------------------------------------------------------------------------------- slots


@pytest.mark.parametrize("method", PLANNED + ARRIVAL)
def test_an_item_of_several_slots_stays_in_one_row(method) -> None:
    packing = pack_lengths([2, 2, 2, 2], seq_len=10, max_images=4, slots=[3, 3, 1, 1], method=method)
    assert sorted(map(sorted, rows_of(packing))) in ([[0, 2], [1, 3]], [[0], [1, 2], [3]], [[0, 3], [1, 2]], [[0], [1, 2, 3]])
    assert all(sum([3, 3, 1, 1][i] for i in row) <= 4 for row in rows_of(packing))


def test_first_fit_finds_room_and_slots_in_one_row() -> None:
    """Row 0 has room and no slots, row 1 slots and no room: together they look as if one would do."""
    packing = pack_lengths([1, 9, 5, 4], seq_len=10, max_images=4, slots=[3, 2, 2, 2], method="first_fit")
    assert rows_of(packing) == [[0], [1], [2, 3]]


@pytest.mark.parametrize("method", PLANNED)
def test_many_slots_pack_like_few(method) -> None:
    """Where a table of (length, slots) would be too large, items are sorted."""
    few = pack_lengths([4, 6, 5, 4, 2], seq_len=10, max_images=4, slots=[3, 1, 2, 3, 1], method=method)
    many = pack_lengths([4, 6, 5, 4, 2], seq_len=10, max_images=4 << 24, slots=np.array([3, 1, 2, 3, 1]) << 24, method=method)
    assert rows_of(many) == rows_of(few)


def test_best_fit_passes_over_a_row_too_short_of_slots_and_loses_none_below_it() -> None:
    packing = pack_lengths([7, 7, 7, 3, 3], seq_len=10, max_images=4, slots=[1, 1, 3, 2, 2], method="best_fit")
    assert rows_of(packing) == [[0, 4], [1, 3], [2]]


@pytest.mark.parametrize("method", PLANNED + ARRIVAL)
def test_slots_mean_nothing_without_a_cap(method) -> None:
    lengths = [4, 6, 5, 2]
    free = pack_lengths(lengths, seq_len=10, slots=[9, 9, 9, 9], method=method)
    assert rows_of(free) == rows_of(pack_lengths(lengths, seq_len=10, method=method))


# --------------------------------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("method", PLANNED)
def test_a_seed_permutes_equals_the_same_way_every_time(method) -> None:
    lengths = [3, 2] * 200
    plain, one, again, other = (
        pack_lengths(lengths, seq_len=20, method=method, seed=seed).items.tolist() for seed in (None, 7, 7, 8)
    )
    assert one == again
    assert plain != one != other
    assert [lengths[i] for i in plain] == [lengths[i] for i in one]


def test_every_item_may_get_every_place() -> None:
    places = {tuple(pack_lengths([1, 1, 1], seq_len=1, seed=seed).items.tolist()) for seed in range(100)}
    assert len(places) == 6


@pytest.mark.parametrize("method", ARRIVAL)
def test_arrival_order_has_nothing_to_permute(method) -> None:
    with pytest.raises(ConfigError, match=f"{method} packs in arrival order .* leave out seed=7"):
        pack_lengths([3], seq_len=10, method=method, seed=7)


# -------------------------------------------------------------------------------------------------------------- errors

REFUSED = {
    "length 0": ([3, 0], {}, r"lengths must be in 1 … seq_len=10, got lengths\[1\] = 0"),
    "length over seq_len": ([11], {}, r"lengths must be in 1 … seq_len=10, got lengths\[0\] = 11"),
    "length beyond int64": ([2**63], {}, r"got lengths\[0\] = 9223372036854775808"),
    "float": ([3.0], {}, "integers, got float64"),
    "slots 0": ([3, 3], {"slots": [1, 0], "max_images": 4}, r"slots must be in 1 … max_images=4, got slots\[1\] = 0 "),
    "slots over the cap": ([3], {"slots": [5], "max_images": 4}, r"slots\[0\] = 5 .* raise max_images"),
    "slots 0 without a cap": ([3], {"slots": [0]}, r"slots\[0\] = 0"),
    "slots float": ([3], {"slots": [1.0], "max_images": 4}, "slots must be 1 integers, .* got float64"),
    "slots missing": ([3, 4], {"slots": [1], "max_images": 4}, r"slots must be 2 integers, .* of shape \(1,\)"),
    "seed": ([3], {"seed": -1}, "seed must be an integer in 0 … 18446744073709551615, got -1"),
    "seed float": ([3], {"seed": 1.0}, "seed must be an integer"),
    "max_images": ([3], {"max_images": 0}, "max_images must be an integer .* got 0"),
    "method": ([3], {"method": "worst"}, "first_fit, .* one of spread, best_fit_decreasing, spfhp.* got 'worst'"),
}  # fmt: skip


@pytest.mark.parametrize(("lengths", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_packed_is_named(lengths, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        pack_lengths(np.array(lengths), **{"seq_len": 10, **options})


HISTOGRAMS = {
    "length 0": ([2, 3], {}, r"lengths must be in 1 … seq_len=4, got counts\[0\] = 2"),
    "over seq_len": ([0, 0, 0, 0, 0, 7], {}, r"lengths must be in 1 … seq_len=4, got counts\[5\] = 7"),
    "negative": ([0, 3, -2], {}, r"got counts\[2\] = -2"),
    "float": ([0.0, 3.0], {}, "integers, got float64"),
    "object": ([0, 2**70, 1.5], {}, "integers, got object|integers, got float64"),
    "two axes": ([[0, 1]], {}, r"of shape \(1, 2\)"),
    "beyond int64": ([0, 0, 2**62], {}, "may have 2\\*\\*63 − 1 tokens in total, got 9223372036854775808"),
    "far beyond int64": ([0, 2**70], {}, "in total, got 1180591620717411303424"),
    "beyond together": ([0, 2**62, 2**61], {}, "got 9223372036854775808"),
    "max_images": ([0, 1], {"max_images": 0}, "max_images must be an integer .* got 0"),
    "seq_len": ([0, 1], {"seq_len": 0}, "seq_len must be an integer .* got 0"),
    "method": ([0, 1], {"method": "first_fit"}, "method must be one of spread, .* got 'first_fit'"),
}  # fmt: skip


@pytest.mark.parametrize(("counts", "options", "message"), HISTOGRAMS.values(), ids=HISTOGRAMS)
def test_what_is_no_histogram_is_named(counts, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        pack_histogram(counts, **{"seq_len": 4, **options})


@pytest.mark.parametrize("method", PLANNED)
@pytest.mark.parametrize("counts", [[0, 2**63 - 1], [0, 1, 2**62 - 1], [0, 2**62, 0, 0, 2**60 - 1]], ids=str)
@pytest.mark.parametrize("cap", [None, 1, 3])
def test_totals_up_to_int64_are_exact(method, counts, cap) -> None:
    patterns = pack_histogram(counts, seq_len=4, max_images=cap, method=method)
    packed = [0] * len(counts)
    for p in range(len(patterns.rows)):
        for length in patterns.pattern(p):
            packed[length] += int(patterns.rows[p])
    assert packed == counts
    assert patterns.num_rows == sum(map(int, patterns.rows))


def test_an_empty_histogram_has_no_rows() -> None:
    for counts in ([], [0], [0, 0, 0]):
        patterns = pack_histogram(counts, seq_len=4)
        assert isinstance(patterns, Patterns)
        assert patterns.num_rows == 0


# ------------------------------------------------------------------------------------------------- what it must reach


@pytest.mark.parametrize("seq_len", [256, 1024, 4096, 16384])
@pytest.mark.parametrize("name", lists.NAMES)
def test_the_histogram_takes_the_rows_of_best_fit_on_the_sorted_list(name, seq_len) -> None:
    lengths = lists.make(name, 20_000, seq_len)
    exact = pack_lengths(np.sort(lengths)[::-1], seq_len=seq_len, method="best_fit").num_rows
    assert pack_lengths(lengths, seq_len=seq_len, method="best_fit_decreasing").num_rows == exact
    assert pack_lengths(lengths, seq_len=seq_len).num_rows <= exact


@pytest.mark.parametrize(("seq_len", "share"), [(1024, 0.99), (4096, 0.995), (16384, 0.995)])
def test_the_default_respects_a_cap_that_binds(seq_len, share) -> None:
    """max_images 1.04 times the mean per row: best-fit-decreasing reaches 77 … 83 % of the bound."""
    lengths = lists.make("navit", 100_000, seq_len)
    rows = lengths.sum() / seq_len
    cap = int(np.ceil(1.04 * len(lengths) / rows))
    bound = max(rows, len(lengths) / cap)
    assert bound / pack_lengths(lengths, seq_len=seq_len, max_images=cap).num_rows >= share
    assert bound / pack_lengths(lengths, seq_len=seq_len, max_images=cap, method="best_fit_decreasing").num_rows < 0.85


@pytest.mark.parametrize("cap", [1, 2, 9, 17])
def test_the_default_reaches_the_bound_where_slots_alone_decide(cap) -> None:
    lengths = lists.make("navit", 100_000, 4096)
    assert pack_lengths(lengths, seq_len=4096, max_images=cap).num_rows == -(-len(lengths) // cap)
