"""What is true of every way to deal rows into steps: each row once, and the same as the obvious loop."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import naive
from patchpack.plan.packing import Packing
from patchpack.plan.packing.balance import AttentionCost, balance, imbalance, row_costs

LENGTHS = st.integers(1, 40)
ROWS = st.lists(st.lists(LENGTHS, max_size=4), max_size=60)
RANKS, WINDOWS, SEEDS = st.integers(1, 7), st.integers(1, 6), st.integers(0, 2**64 - 1)
STAGE = 6  # of the draws


def loss(costs: list[int], run: list[int]) -> Fraction:
    """``1 − mean / max`` of a run of rows."""
    most = max(costs[row] for row in run)
    return 1 - Fraction(sum(costs[row] for row in run), len(run) * most) if most else Fraction(0)


def balanced(costs: list[int], num_ranks: int, window: int, seed: int, epoch: int) -> list[list[int]]:
    """Steps of the oldest row with its best neighbours, then the sorted rest; shuffled by one draw per step and per rank."""
    n = len(costs)
    arrived = min(n, window * num_ranks)
    pool = list(range(arrived))
    steps: list[list[int]] = []
    while arrived < n:
        pool.sort(key=lambda row: (costs[row], row))
        runs = [pool[i : i + num_ranks] for i in range(len(pool) - num_ranks + 1)]
        best = min((run for run in runs if min(pool) in run), key=lambda run: loss(costs, run))
        steps.append(best)
        pool = [row for row in pool if row not in best] + list(range(arrived, min(n, arrived + num_ranks)))
        arrived = min(n, arrived + num_ranks)
    pool.sort(key=lambda row: (costs[row], row))
    while pool:
        steps.append(pool[-num_ranks:])
        pool = pool[:-num_ranks]
    places = []
    for number, step in enumerate(steps):
        first = naive.uniform(seed, epoch, number, STAGE, 0) if len(step) == num_ranks else 1.0
        places.append((number // window, first, number))
    dealt = []
    for number, (*_, place) in enumerate(sorted(places)):
        step = steps[place] + [-1] * (num_ranks - len(steps[place]))
        ranks = [(naive.uniform(seed, epoch, number, STAGE, 1 + rank), rank) for rank in range(num_ranks)]
        dealt.append([step[rank] for _, rank in sorted(ranks)])
    return dealt


@given(ROWS, RANKS, WINDOWS, SEEDS, st.integers(0, 2**32 - 1))
@example([], 1, 1, 0, 0)
@example([[]], 3, 2, 0, 0)
@example([[1]] * 12, 2, 2, 0, 0)  # nothing to choose by but the order
def test_equals_the_obvious_loop(rows, num_ranks, window, seed, epoch) -> None:
    costs = [sum(n * n for n in row) for row in rows]
    steps = balance(rows, num_ranks=num_ranks, window=window, cost=AttentionCost(0), seed=seed, epoch=epoch)
    assert steps.tolist() == balanced(costs, num_ranks, window, seed, epoch)


@given(ROWS, RANKS, WINDOWS, SEEDS)
def test_every_row_is_in_one_step_and_only_the_last_step_has_idle_ranks(rows, num_ranks, window, seed) -> None:
    steps = balance(rows, num_ranks=num_ranks, window=window, seed=seed)
    assert steps.dtype == np.int64
    assert steps.shape == (-(-len(rows) // num_ranks), num_ranks)
    assert sorted(steps[steps >= 0].tolist()) == list(range(len(rows)))
    assert (steps[:-1] >= 0).all()


@given(ROWS, RANKS, WINDOWS, SEEDS)
def test_no_row_comes_two_windows_early(rows, num_ranks, window, seed) -> None:
    steps = balance(rows, num_ranks=num_ranks, window=window, seed=seed)
    for number, step in enumerate(steps.tolist()):
        assert all(row // num_ranks - number <= 2 * (window - 1) for row in step)


@given(ROWS, RANKS, WINDOWS, SEEDS)
def test_a_packing_and_its_rows_are_dealt_alike(rows, num_ranks, window, seed) -> None:
    flat = [n for row in rows for n in row]
    order = np.random.default_rng(0).permutation(len(flat))
    lengths = np.empty(len(flat), dtype=np.int64)
    lengths[order] = flat  # item order[i] of the packing is the i-th in the rows
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    options = {"num_ranks": num_ranks, "window": window, "seed": seed}
    assert np.array_equal(balance(Packing(order, offsets), lengths, **options), balance(rows, **options))


@given(ROWS, st.integers(0, 2000))
def test_costs_are_those_of_the_images_added_up(rows, width) -> None:
    costs = row_costs(rows, cost=AttentionCost(width))
    assert costs.tolist() == [sum(n * n + 6 * width * n for n in row) for row in rows]


@given(ROWS, RANKS, WINDOWS, st.integers(1, 1000))
def test_the_unit_of_a_cost_does_not_matter(rows, num_ranks, window, unit) -> None:
    steps = balance(rows, num_ranks=num_ranks, window=window, cost=lambda n: n * n)
    assert np.array_equal(steps, balance(rows, num_ranks=num_ranks, window=window, cost=lambda n: unit * n * n))


@given(ROWS, RANKS, WINDOWS)
def test_imbalance_is_the_mean_share_of_a_step_that_a_rank_waits(rows, num_ranks, window) -> None:
    costs = [sum(n * n for n in row) for row in rows]
    steps = balance(rows, num_ranks=num_ranks, window=window, cost=AttentionCost(0))
    expected = []
    for step in steps.tolist():
        loads = [costs[row] if row >= 0 else 0 for row in step]
        expected.append(1 - sum(loads) / len(loads) / max(loads) if max(loads) else 0.0)
    assert np.isclose(imbalance(steps, np.array(costs, dtype=np.int64)), np.mean(expected) if expected else 0.0)
