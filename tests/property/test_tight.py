"""What is true of bounds and of near-optimal packings of every list: valid, and the same as the obvious loops.

The slow twins are here, written from the definitions.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from helpers.profiles import weight
from patchpack import testing
from patchpack.plan.packing import _kernels_tight, lower_bound, pack_tight
from patchpack.plan.packing.published import _kernels_linear_program

pytest.importorskip("highspy")

CAPS = st.one_of(st.none(), st.integers(1, 6))
packable = st.integers(1, 60).flatmap(lambda seq_len: st.tuples(st.just(seq_len), testing.lengths(seq_len, 40)))
tiny = st.integers(1, 16).flatmap(lambda seq_len: st.tuples(st.just(seq_len), testing.lengths(seq_len, 7)))
combs = st.integers(6, 40).flatmap(
    lambda seq_len: st.tuples(
        st.just(seq_len), st.dictionaries(st.integers(2, seq_len), st.integers(1, 40), min_size=1, max_size=5)
    )
)


def fewest_rows(lengths: list[int], seq_len: int, cap: int | None) -> int:
    """By trying every way: each item into every row so far or a new one."""
    best = len(lengths)

    def place(i: int, rows: list[list[int]]) -> None:
        nonlocal best
        if len(rows) >= best and i < len(lengths):
            return
        if i == len(lengths):
            best = min(best, len(rows))
            return
        for row in rows:
            if sum(row) + lengths[i] <= seq_len and (cap is None or len(row) < cap):
                row.append(lengths[i])
                place(i + 1, rows)
                row.pop()
        place(i + 1, [*rows, [lengths[i]]])

    place(0, [])
    return best


def l2(lengths: list[int], seq_len: int) -> int:
    """Martello and Toth's L2 as it is written."""
    best = 0
    for a in range(seq_len // 2 + 1):
        first = [n for n in lengths if n > seq_len - a]
        second = [n for n in lengths if 2 * n > seq_len and n <= seq_len - a]
        third = [n for n in lengths if a <= n and 2 * n <= seq_len]
        more = math.ceil(Fraction(sum(third) - (len(second) * seq_len - sum(second)), seq_len))
        best = max(best, len(first) + len(second) + max(0, more))
    return best


def all_rows(sizes: list[int], most: list[int], seq_len: int, cap: int | None) -> list[tuple[int, ...]]:
    """Every row, how many of each size, with at most so many of each."""
    ranges = [range(min(m, seq_len // size) + 1) for size, m in zip(sizes, most, strict=True)]
    rows = itertools.product(*ranges)
    return [r for r in rows if sum(map(int.__mul__, r, sizes)) <= seq_len and (cap is None or sum(r) <= cap)]


# -------------------------------------------------------------------------------------------------------------- bounds


@weight(4)
@given(packable, CAPS)
@example((10, [7, 7, 4, 4]), None)
@example((1, [1, 1]), None)
def test_the_bound_equals_its_definition(problem, cap) -> None:
    seq_len, lengths = problem
    slots = 0 if cap is None else math.ceil(Fraction(len(lengths), cap))
    assert lower_bound(lengths, seq_len, cap) == max(math.ceil(Fraction(sum(lengths), seq_len)), slots, l2(lengths, seq_len))


@weight(4)
@given(tiny, CAPS)
@example((10, [3, 3, 3, 3, 3, 3]), None)
def test_no_packing_is_below_a_bound(problem, cap) -> None:
    seq_len, lengths = problem
    assert (
        lower_bound(lengths, seq_len, cap) <= lower_bound(lengths, seq_len, cap, lp=True) <= fewest_rows(lengths, seq_len, cap)
    )


@given(combs, CAPS)
def test_the_program_equals_the_program_over_all_rows(comb, cap) -> None:
    seq_len, counts = comb
    sizes = sorted(counts)
    most = [counts[size] for size in sizes]
    assume(math.prod(min(m, seq_len // size) + 1 for size, m in zip(sizes, most, strict=True)) < 20_000)
    rows = np.array(all_rows(sizes, most, seq_len, cap))
    from scipy.optimize import linprog  # here, because it takes a second to import

    solved = linprog(np.ones(len(rows)), A_ub=-rows.T, b_ub=-np.array(most), method="highs")
    lengths = np.repeat(sizes, most)
    bound = lower_bound(lengths, seq_len, cap, lp=True)
    assert bound == max(math.ceil(solved.fun - 1e-6), lower_bound(lengths, seq_len, cap))


# ------------------------------------------------------------------------------------------------------------- packing


@weight(2)
@given(packable, CAPS, st.sampled_from([0.0, 0.001]))
def test_every_index_once_within_both_caps(problem, cap, gap) -> None:
    seq_len, lengths = problem
    result = pack_tight(lengths, seq_len=seq_len, max_images=cap, gap=gap)
    rows = [result.packing.row(r).tolist() for r in range(result.packing.num_rows)]
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    for row in rows:
        assert row == sorted(row)
        assert 0 < sum(lengths[i] for i in row) <= seq_len
        assert cap is None or len(row) <= cap
    assert lower_bound(lengths, seq_len, cap) <= result.lower_bound <= len(rows)


@weight(2)
@given(combs, CAPS)
@example((49, {9: 54, 15: 15, 20: 24, 22: 57}), None)
def test_combs_are_packed_to_within_one_row_or_two(comb, cap) -> None:
    """The linear program rounded up is nearly always reached (its integer round-up conjecture says at most one more)."""
    seq_len, counts = comb
    lengths = np.repeat(list(counts), list(counts.values()))
    result = pack_tight(lengths, seq_len=seq_len, max_images=cap, gap=0)
    assert result.finished
    assert result.packing.num_rows <= result.lower_bound + 2


@given(tiny, CAPS)
def test_the_order_of_the_lengths_does_not_change_the_number_of_rows(problem, cap) -> None:
    seq_len, lengths = problem
    results = [pack_tight(x, seq_len=seq_len, max_images=cap) for x in (lengths, lengths[::-1])]
    assert results[0].packing.num_rows == results[1].packing.num_rows


# ------------------------------------------------------------------------------------------------------------- kernels


@st.composite
def knapsacks(draw):
    seq_len, cap = draw(st.integers(1, 20)), draw(st.integers(0, 4))
    sizes = draw(st.lists(st.integers(1, seq_len), min_size=1, max_size=4, unique=True))
    values = [draw(st.integers(0, 30)) for _ in sizes]
    counts = [draw(st.integers(1, 6)) for _ in sizes]
    return seq_len, cap, sizes, values, counts


@weight(4)
@given(knapsacks())
@example((20, 1, [1, 2], [5, 6], [1, 1]))
@example((20, 3, [1, 2], [5, 6], [3, 3]))
@example((20, 0, [3, 7], [5, 13], [6, 2]))
def test_prices_find_the_most_valuable_row(knapsack) -> None:
    """The value of the best row, and of the best that ends with each pass, is that of the rows that can be traced."""
    seq_len, cap, sizes, values, counts = knapsack
    passes = []  # kind, copies, endless
    for kind, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        fits = min(seq_len // size, cap or seq_len)
        if count >= fits > 1:
            passes.append((kind, 1, True))
            continue
        copies = 1
        while count:
            passes.append((kind, min(copies, count), False))
            count -= passes[-1][1]
            copies *= 2
    index, copies, endless = (np.array(column) for column in zip(*passes, strict=True))
    best = np.zeros((cap + 1, seq_len + 1), dtype=np.int64)
    take, last = np.zeros((len(passes), *best.shape), dtype=np.bool_), np.zeros(len(passes), dtype=np.int64)
    old, step = np.zeros(seq_len + 1, dtype=np.int64), int(cap > 0)
    given_ = np.array(sizes)[index], copies, endless
    _kernels_linear_program.price(*given_, np.array(values)[index], step, best, old, take, last)

    rows = all_rows(sizes, counts, seq_len, cap or None)
    assert best[-1, -1] == max(sum(n * v for n, v in zip(row, values, strict=True)) for row in rows)
    for end in range(-1, len(passes)):
        if end >= 0 and last[end] < 0:
            assert sizes[index[end]] * copies[end] > seq_len or (cap and copies[end] > cap)
            continue
        column = np.zeros(len(sizes), dtype=np.int64)
        _kernels_linear_program.trace(*given_, index, step, take, end, column)
        assert tuple(column) in rows
        assert column @ values == (best[-1, -1] if end < 0 else last[end])
        assert end < 0 or column[index[end]] >= copies[end]


def fill_decreasing(sizes: list[int], counts: list[int], seq_len: int) -> list[list[int]]:
    """Kinds of the items of each row; sizes decrease.

    A row starts with the longest item left. Of the fullest ways to end it, the kind that comes last is as long as can be,
    and taken as few times as can be; then again for the tokens before it. A row is repeated while it lasts.
    """
    counts, rows = list(counts), []
    while any(counts):
        first = next(s for s, count in enumerate(counts) if count)
        counts[first] -= 1
        sums = [{0}]  # sums of the kinds before s
        for size, count in zip(sizes, counts, strict=True):
            sums.append({b + k * size for b in sums[-1] for k in range(count + 1) if b + k * size <= seq_len - sizes[first]})
        row, top = [first], max(sums[-1])
        while top:
            s = next(s for s in range(len(sizes)) if top in sums[s + 1])
            times = next(k for k in range(1, counts[s] + 1) if top - k * sizes[s] in sums[s])
            row += [s] * times
            counts[s] -= times
            top -= times * sizes[s]
        rows.append(row)
        while all(counts[s] >= row.count(s) for s in row):
            rows.append(row)
            for s in row:
                counts[s] -= 1
    return rows


@weight(4)
@given(packable, st.integers(1, 4))
@example((10, [4, 3, 3, 4, 3, 3, 4, 3, 3]), 1)
def test_rows_filled_by_sums_equal_their_twin(problem, turns) -> None:
    seq_len, lengths = problem
    sizes, counts = np.unique(np.array(lengths, dtype=np.int64), return_counts=True)
    sizes, counts = sizes[::-1].copy(), counts[::-1].copy()
    expected = fill_decreasing(sizes.tolist(), counts.tolist(), seq_len)
    state, kinds, ends = np.zeros(3, dtype=np.int64), *np.zeros((2, len(lengths)), dtype=np.int64)
    reach, used = np.full((2, seq_len + 1), 99, dtype=np.int64)
    while not _kernels_tight.fill_decreasing(sizes, counts, seq_len, state, turns, reach, used, kinds, ends):
        pass
    assert not counts.any()
    assert [row.tolist() for row in np.split(kinds, ends[: state[0]])[:-1]] == expected


def fill_in_turn(queue: list[int], seq_len: int, cap: int, tail: int, window: int) -> list[list[int]]:
    """Positions in the queue of the items of each row."""
    waiting, rows = list(range(len(queue))), []
    while waiting:
        tokens = sum(queue[i] for i in waiting)
        scarce = Fraction(len(waiting), cap) > Fraction(tokens, seq_len)
        left = max(math.ceil(Fraction(tokens, seq_len)), math.ceil(Fraction(len(waiting), cap)))
        pace = math.ceil(Fraction(len(waiting), left))
        row: list[int] = []
        rest = seq_len
        while waiting and len(row) < min(cap, pace - 3) and rest - queue[waiting[0]] >= (tail if row else 0):
            row.append(waiting.pop(0))
            rest -= queue[row[-1]]
        most = min(cap - len(row), 61)
        goal = most if scarce else min(max(pace - len(row), 0), most)
        near = [i for i in waiting[: 8 * window] if queue[i] <= rest][:window]
        made = [{(0, 0)}]  # (number, tokens) of the sets of the first w
        for i in near:
            if (goal, rest) in made[-1]:
                break
            made.append(made[-1] | {(k + 1, c + queue[i]) for k, c in made[-1] if k < most and c + queue[i] <= rest})
        fullest = max(c for _, c in made[-1])
        able = made[-1] if scarce else [(k, c) for k, c in made[-1] if c == fullest]
        k, c = min(able, key=lambda end: (abs(end[0] - goal), -end[1], end[0]))
        end = []
        for w in range(len(made) - 1, 0, -1):
            if (k, c) not in made[w - 1]:
                end.append(near[w - 1])
                k, c = k - 1, c - queue[near[w - 1]]
        rows.append(row + end[::-1])
        waiting = [i for i in waiting if i not in end]
    return rows


@weight(4)
@given(packable, st.integers(1, 70), st.integers(0, 30), st.integers(1, 12), st.integers(1, 4))
@example((40, [1] * 40), 61, 5, 40, 1)
@example((40, [30, 11, 11, 11, 11, 11, 9] + [1] * 30), 20, 0, 1, 1)
@example((70, [1] * 70), 70, 70, 70, 1)
@example((40, [1] * 40 + [2] * 30), 70, 40, 12, 1)
def test_rows_filled_in_turn_equal_their_twin(problem, cap, tail, window, turns) -> None:
    seq_len, lengths = problem
    expected = fill_in_turn(lengths, seq_len, cap, tail, window)
    n, queue = len(lengths), np.array(lengths, dtype=np.int64)
    state, after = np.array([0, 0, queue.sum()]), np.append(np.arange(1, n + 1), 0)
    masks, waiting = np.full((window + 1, seq_len + 1), -1, dtype=np.int64), np.zeros(window, dtype=np.int64)
    items, ends = np.zeros((2, n), dtype=np.int64)
    rest = after, masks, waiting, items, ends
    while not _kernels_tight.fill_in_turn(queue, seq_len, cap, tail, state, turns, *rest):
        pass
    assert [row.tolist() for row in np.split(items, ends[: state[0]])[:-1]] == expected
    assert state[2] == 0
