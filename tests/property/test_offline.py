"""What is true of every plan on the histogram: nothing lost, nothing over-filled, and the same rows as the obvious loop."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.profiles import weight
from patchpack import testing
from patchpack.plan.packing import Packing, pack_histogram, pack_lengths

ARRIVAL = ("first_fit", "best_fit", "next_fit")
PLANNED = ("spread", "best_fit_decreasing", "spfhp", "lpfhp")
CAPS = st.one_of(st.none(), st.integers(1, 12))

planned = pytest.mark.parametrize("method", PLANNED)


@st.composite
def problems(draw):
    """(seq_len, lengths, max_images, slots): slots None, or one to max_images each."""
    seq_len = draw(st.integers(1, 80))
    lengths = draw(testing.lengths(seq_len))
    cap = draw(CAPS)
    n = len(lengths)
    if draw(st.booleans()):  # few lengths many times
        lengths = [min(seq_len, 1 + n // 7 * 7) for n in lengths]
    slots = draw(st.one_of(st.none(), st.lists(st.integers(1, min(4, cap or 4)), min_size=n, max_size=n)))
    return seq_len, lengths, cap, slots


def rows_of(packing: Packing) -> list[list[int]]:
    return [packing.row(r).tolist() for r in range(packing.num_rows)]


def packed(problem, method, seed=None) -> list[list[int]]:
    seq_len, lengths, cap, slots = problem
    return rows_of(pack_lengths(lengths, seq_len=seq_len, max_images=cap, method=method, slots=slots, seed=seed))


def contents(rows, problem) -> list[list[tuple[int, int]]]:
    """The multiset of rows, each as a multiset of (length, slots)."""
    _, lengths, cap, slots = problem
    return sorted(sorted((lengths[i], slots[i] if slots and cap else 1) for i in row) for row in rows)


# ---------------------------------------------------------------------------------------------------------- slow twins


def arrival(problem, method) -> list[list[int]]:
    """Each item into the first, the fullest or the newest row that has room and slots for it, or into a new one."""
    seq_len, lengths, cap, slots = problem
    return _greedy(range(len(lengths)), lengths, slots if cap else None, seq_len, cap, method)


def decreasing(problem, method) -> list[list[int]]:
    """The same in decreasing order of (length, slots)."""
    seq_len, lengths, cap, slots = problem
    widths = slots if slots and cap else [1] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], widths[i]), reverse=True)
    return _greedy(order, lengths, widths, seq_len, cap, method)


def _greedy(order, lengths, slots, seq_len, cap, method) -> list[list[int]]:
    slots = slots or [1] * len(lengths)
    rows: list[list[int]] = []
    changed: list[list[int]] = []  # the same rows, the one changed last first
    for i in order:
        fits = [
            row
            for row in (rows if method == "first_fit" else rows[-1:] if method == "next_fit" else changed)
            if sum(lengths[j] for j in row) + lengths[i] <= seq_len
            and (cap is None or sum(slots[j] for j in row) + slots[i] <= cap)
            # what fits nowhere opens a row each: a row opened for this kind is not for this kind
            and not (method == "worst_fit" and (lengths[row[0]], slots[row[0]]) == (lengths[i], slots[i]))
        ]
        row = []
        if fits:
            fullness = [sum(lengths[j] for j in row) for row in fits]
            best = {"best_fit": max(fullness), "worst_fit": min(fullness)}.get(method, fullness[0])
            row = fits[fullness.index(best)]
        else:
            rows.append(row)
        row.append(i)
        changed = [row] + [other for other in changed if other is not row]
    return rows


@pytest.mark.parametrize("method", ARRIVAL)
@weight(2)
@given(problems())
@example((10, [2, 2, 1, 3], 3, [2, 2, 2, 1]))
def test_arrival_methods_with_slots_equal_their_twins(method, problem) -> None:
    assert packed(problem, method) == arrival(problem, method)


@pytest.mark.parametrize(
    ("method", "twin"), [("best_fit_decreasing", "best_fit"), ("lpfhp", "best_fit"), ("spfhp", "worst_fit")], ids=str
)
@weight(4)
@given(problems())
@example((80, [70, 60, 50, 40, 30, 30, 20, 10, 7, 7, 7, 3, 1, 1], 3, None))
@example((64, [32, 31, 1, 33, 32, 64, 30], None, None))
def test_planned_rows_equal_those_of_the_twin(method, twin, problem) -> None:
    assert contents(packed(problem, method), problem) == contents(decreasing(problem, twin), problem)


@pytest.mark.parametrize(("method", "twin"), [("best_fit_decreasing", "best_fit"), ("spfhp", "worst_fit")])
@pytest.mark.parametrize(("seq_len", "cap"), [(300, None), (300, 5), (2100, 16), (5000, None)])
def test_planned_rows_equal_those_of_the_twin_on_long_lists(method, twin, seq_len, cap) -> None:
    """Over 32 and over 1024 rooms: every level of the bitmap."""
    lengths = (np.random.default_rng(seq_len).beta(1, 4, 400) * (seq_len - 1) + 1).astype(np.int64).tolist()
    problem = (seq_len, lengths, cap, None)
    assert contents(packed(problem, method), problem) == contents(decreasing(problem, twin), problem)


# ---------------------------------------------------------------------------------------------------------- invariants


@planned
@given(problems())
def test_every_index_is_packed_once(method, problem) -> None:
    assert sorted(i for row in packed(problem, method) for i in row) == list(range(len(problem[1])))


@pytest.mark.parametrize("method", PLANNED + ARRIVAL)
@given(problems())
def test_no_row_exceeds_either_cap(method, problem) -> None:
    seq_len, lengths, cap, slots = problem
    for row in packed(problem, method):
        assert 0 < sum(lengths[i] for i in row) <= seq_len
        assert cap is None or sum(slots[i] if slots else 1 for i in row) <= cap


@pytest.mark.parametrize("method", PLANNED + ARRIVAL)
@given(problems())
def test_never_fewer_rows_than_the_bound(method, problem) -> None:
    seq_len, lengths, cap, slots = problem
    taken = sum(slots) if slots else len(lengths)
    assert len(packed(problem, method)) >= max(-(-sum(lengths) // seq_len), -(-taken // cap) if cap else 0)


@weight(4)
@given(problems())
def test_the_default_never_takes_more_rows_than_best_fit_decreasing(problem) -> None:
    assert len(packed(problem, "spread")) <= len(packed(problem, "best_fit_decreasing"))


@planned
@given(problems())
def test_equal_items_go_to_the_rows_in_arrival_order(method, problem) -> None:
    _, lengths, cap, slots = problem
    rows = packed(problem, method)
    row_of = {i: r for r, row in enumerate(rows) for i in row}
    for kind in set(zip(lengths, slots if slots and cap else [1] * len(lengths), strict=True)):
        alike = [i for i in range(len(lengths)) if (lengths[i], slots[i] if slots and cap else 1) == kind]
        assert [row_of[i] for i in alike] == sorted(row_of[i] for i in alike)


@planned
@given(problems(), st.integers(0, 2**64 - 1))
def test_a_seed_permutes_equal_items_and_nothing_else(method, problem, seed) -> None:
    rows, other = packed(problem, method, seed), packed(problem, method)
    kinds = [[(problem[1][i], problem[3][i] if problem[3] and problem[2] else 1) for i in row] for row in rows]
    assert kinds == [[(problem[1][i], problem[3][i] if problem[3] and problem[2] else 1) for i in row] for row in other]
    assert sorted(i for row in rows for i in row) == list(range(len(problem[1])))
    assert rows == packed(problem, method, seed)


@planned
@given(problems())
def test_a_cap_nobody_meets_changes_nothing(method, problem) -> None:
    seq_len, lengths, _, _ = problem
    assert packed((seq_len, lengths, seq_len, None), method) == packed((seq_len, lengths, None, None), method)


@planned
@given(problems(), st.randoms())
def test_rows_do_not_depend_on_the_order_of_arrival(method, problem, random) -> None:
    seq_len, lengths, cap, slots = problem
    order = list(range(len(lengths)))
    random.shuffle(order)
    other = (seq_len, [lengths[i] for i in order], cap, slots and [slots[i] for i in order])
    assert contents(packed(problem, method), problem) == contents(packed(other, method), other)


@planned
@given(problems())
def test_a_histogram_is_packed_like_its_items(method, problem) -> None:
    seq_len, lengths, cap, _ = problem
    counts = np.bincount(lengths, minlength=1)
    patterns = pack_histogram(counts, seq_len=seq_len, max_images=cap, method=method)
    rows = [sorted(patterns.pattern(p)) for p in range(len(patterns.rows)) for _ in range(patterns.rows[p])]
    items = (seq_len, lengths, cap, None)
    assert sorted(rows) == sorted(sorted(lengths[i] for i in row) for row in packed(items, method))
    assert patterns.num_rows == len(rows)
    assert (patterns.repeats >= 1).all()
    assert (patterns.rows >= 1).all()


@planned
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, 2**40), max_size=n))), CAPS)
def test_huge_histograms_keep_their_counts_and_caps(method, problem, cap) -> None:
    seq_len, counts = problem
    counts = [0, *counts]
    patterns = pack_histogram(counts, seq_len=seq_len, max_images=cap, method=method)
    total: Counter[int] = Counter()
    for p, rows in enumerate(patterns.rows.tolist()):
        pattern = patterns.pattern(p)
        assert 0 < sum(pattern) <= seq_len
        assert cap is None or len(pattern) <= cap
        for length in pattern:
            total[length] += rows
    assert [total[n] for n in range(len(counts))] == counts


@weight(0.5)
@given(problems())
def test_nnlshp_packs_every_index_once_within_depth_and_length(problem) -> None:
    pytest.importorskip("scipy")
    seq_len, lengths, cap, _ = problem
    seq_len, lengths = min(seq_len, 24), [1 + n % min(seq_len, 24) for n in lengths]
    rows = packed((seq_len, lengths, cap, None), "nnlshp")
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= seq_len and 0 < len(row) <= min(3, cap or 3) for row in rows)
