"""Rows to steps: named cases, costs, errors, and the balance reached on the lists that packers are compared on."""

from __future__ import annotations

import numpy as np
import pytest

from bench import lists
from patchpack.errors import ConfigError
from patchpack.plan.packing import Lookahead, Packing, pack_lengths, pack_stream
from patchpack.plan.packing.balance import AttentionCost, balance, imbalance, row_costs

SEQ_LEN, WINDOW, WINDOWS = 16384, 64, 4
SQUARES = AttentionCost(0)


def steps_of(steps: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(step) for step in steps.tolist()}


CASES = {
    # lengths per row, num_ranks, window -> steps, in any order
    "like with like": ([9, 3, 9, 3], 2, 2, [{0, 2}, {1, 3}]),
    "a window of one keeps the steps": ([9, 3, 9, 3], 2, 1, [{0, 1}, {2, 3}]),
    "one rank": ([5, 4, 3], 1, 2, [{0}, {1}, {2}]),
    "the idle ranks have the lightest step": ([1, 2, 9, 8, 7, 3], 4, 9, [{2, 3, 4, 5}, {0, 1, -1}]),
    "fewer rows than ranks": ([5, 4], 4, 1, [{0, 1, -1}]),
    "all alike, the oldest first": ([5] * 4, 2, 1, [{0, 1}, {2, 3}]),
    "the oldest row leads": ([9, 1, 5, 5, 9, 1], 2, 2, [{0, 3}, {2, 4}, {1, 5}]),
    "of equal runs the lighter": ([2, 1, 4, 8, 8, 4], 2, 2, [{0, 1}, {2, 5}, {3, 4}]),
    "of its runs the one that loses least": ([6, 1, 7, 5, 5, 5], 2, 2, [{0, 2}, {4, 5}, {1, 3}]),
}


@pytest.mark.parametrize(("lengths", "num_ranks", "window", "expected"), CASES.values(), ids=CASES)
def test_named_cases(lengths, num_ranks, window, expected) -> None:
    steps = balance([[n] for n in lengths], num_ranks=num_ranks, window=window, cost=SQUARES)
    assert steps_of(steps) == {frozenset(step) for step in expected}


def test_nothing_is_dealt_into_no_steps() -> None:
    steps = balance([], num_ranks=3)
    assert (steps.shape, steps.dtype) == ((0, 3), np.int64)
    assert imbalance(steps, np.zeros(0, dtype=np.int64)) == 0.0


@pytest.mark.parametrize(
    ("width", "lengths", "costs"),
    [(0, [1, 3, 16384], [1, 9, 2**28]), (1, [1, 3], [7, 27]), (768, [1, 1024], [4609, 1024 * (1024 + 4608)])],
)
def test_what_an_image_costs(width, lengths, costs) -> None:
    cost = AttentionCost(width)(np.array(lengths, dtype=np.int64))
    assert (cost.tolist(), cost.dtype) == (costs, np.int64)


@pytest.mark.parametrize(("width", "percent"), [(1024, 4.0), (2048, 2.0), (4096, 1.0), (6144, 0.7)])
def test_the_share_of_attention_is_the_papers(width, percent) -> None:
    """256 tokens that attend within themselves, MLP ratio 4: 2307.06304, as derived in its section on cost."""
    n = np.array([256], dtype=np.int64)
    share = AttentionCost(0)(n) / AttentionCost(width)(n)
    assert round(100 * float(share[0]), 1) == percent


def test_the_linear_part_counts() -> None:
    rows = [[100], [10] * 50]  # squares 10,000 and 5,000; 100 and 500 tokens
    assert row_costs(rows, cost=SQUARES).tolist() == [10_000, 5_000]
    assert row_costs(rows).tolist() == [10_000 + 6 * 768 * 100, 5_000 + 6 * 768 * 500]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([[0, 0]], 0.0),
        ([[0, 1]], 0.25),
        ([[0, -1]], 0.5),
        ([[0, 1], [0, 0]], 0.125),
        ([[2, 2]], 0.0),
        ([[2, 2], [0, 1]], 0.125),
    ],
)
def test_imbalance_of_named_steps(steps, expected) -> None:
    assert imbalance(np.array(steps), np.array([4, 2, 0])) == expected


def test_seed_and_epoch_move_steps_and_ranks_but_not_what_shares_a_step() -> None:
    rows = [[n] for n in np.random.default_rng(0).integers(1, 500, 600).tolist()]
    first, again = (balance(rows, num_ranks=4, seed=3, epoch=2) for _ in range(2))
    assert np.array_equal(first, again)
    for other in (balance(rows, num_ranks=4, seed=4, epoch=2), balance(rows, num_ranks=4, seed=3, epoch=1)):
        assert steps_of(other) == steps_of(first)
        assert (other != first).mean() > 0.9
        assert not np.array_equal(np.sort(other, axis=1), np.sort(first, axis=1))  # the order of steps
        by_step = {frozenset(step): step for step in other.tolist()}
        assert any(by_step[frozenset(step)] != step for step in first.tolist())  # the ranks inside them


def test_costs_beyond_what_the_loop_can_add_are_scaled() -> None:
    rows = [[n] for n in (5, 3, 9, 3, 5, 9)]
    expected = steps_of(balance(rows, num_ranks=2, window=3, cost=SQUARES))
    for cost in (lambda n: (n * n) * (1 << 54), lambda n: n * n * 1e-9, lambda n: n * n * 1e200):
        assert steps_of(balance(rows, num_ranks=2, window=3, cost=cost)) == expected
    assert len(balance(rows, num_ranks=2, cost=lambda n: 0 * n)) == 3


@pytest.mark.parametrize(
    ("rows", "lengths", "options", "message"),
    [
        ([[1]], None, {"num_ranks": 0}, "num_ranks must be an integer in 1 … 16777215, got 0"),
        ([[1]], None, {"num_ranks": 2.0}, "num_ranks must be an integer in 1 … 16777215, got 2.0"),
        ([[1]], None, {"num_ranks": 2, "window": 0}, "window must be an integer in 1 … 1073741824, got 0"),
        ([[1, 0]], None, {"num_ranks": 2}, "lengths must be in 1 … 1073741824, got 0 at 1 (1 such)"),
        ([[1.5]], None, {"num_ranks": 2}, "lengths must be integers, got float64"),
        ([[1 << 30, 1]], None, {"num_ranks": 2}, "1073741824 tokens at most, row 0 has 1073741825"),
        ([[1]], [1], {"num_ranks": 2}, "lengths is for a Packing only"),
        (Packing(np.array([0]), np.array([0, 1])), None, {"num_ranks": 2}, "pass the lengths that it packs"),
        (
            Packing(np.array([0, 2]), np.array([0, 2])),
            [1, 1],
            {"num_ranks": 2},
            "the Packing has item 2, but there are 2 lengths",
        ),
        (
            [[1, 2]],
            None,
            {"num_ranks": 2, "cost": lambda n: -n},
            "cost must return finite numbers >= 0, got -1 for a length of 1 (2 such)",
        ),
        ([[1, 2]], None, {"num_ranks": 2, "cost": lambda n: n * np.nan}, "got nan for a length of 1"),
        ([[1, 2]], None, {"num_ranks": 2, "cost": lambda n: n[:1]}, "one number per length, [2], got int64 [1]"),
        ([[1, 2]], None, {"num_ranks": 2, "cost": lambda n: n > 0}, "got bool [2]"),
        ([[1]], None, {"num_ranks": 2, "seed": -1}, "seed must be in 0 …"),
    ],
)
def test_what_cannot_be_dealt_is_refused(rows, lengths, options, message) -> None:
    with pytest.raises(ConfigError) as caught:
        balance(rows, lengths, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("width", [-1, 65537, 1.5, True])
def test_a_width_that_is_none_is_refused(width) -> None:
    with pytest.raises(ConfigError, match="width must be an integer in 0 … 65536"):
        AttentionCost(width)


def packed(name: str, num_ranks: int) -> tuple[Packing, np.ndarray]:
    """Rows of at least `WINDOWS` windows of steps."""
    mean = lists.make(name, 4000, SEQ_LEN, seed=1).mean()
    n = int(1.05 * num_ranks * WINDOW * WINDOWS * SEQ_LEN / mean)
    lengths = lists.make(name, n, SEQ_LEN)
    return pack_lengths(lengths, seq_len=SEQ_LEN, method="best_fit"), lengths


@pytest.mark.parametrize("num_ranks", [8, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["imagenet", "lognormal"])
def test_ranks_wait_for_at_most_two_percent_of_a_step(name, num_ranks) -> None:
    packing, lengths = packed(name, num_ranks)
    assert packing.num_rows >= num_ranks * WINDOW * WINDOWS
    costs = row_costs(packing, lengths, cost=SQUARES)
    steps = balance(packing, lengths, num_ranks=num_ranks, window=WINDOW, cost=SQUARES)
    assert sorted(steps[steps >= 0].tolist()) == list(range(packing.num_rows))
    whole = packing.num_rows // num_ranks
    arrival = np.arange(whole * num_ranks).reshape(-1, num_ranks)
    assert imbalance(arrival, costs) > 0.4
    assert imbalance(steps[:whole], costs) <= 0.02
    by_window = [np.sort(costs[i : i + WINDOW * num_ranks]) for i in range(0, len(costs), WINDOW * num_ranks)]
    sorted_windows = np.concatenate(by_window)[: whole * num_ranks]
    assert imbalance(steps[:whole], costs) < imbalance(arrival, sorted_windows)
    everything = row_costs(packing, lengths)  # with the linear part, which equally full rows share
    assert imbalance(balance(packing, lengths, num_ranks=num_ranks)[:whole], everything) <= 0.012


def test_steps_are_not_sorted_by_size_over_time() -> None:
    """Of the steps of one block, sorted before they are shuffled; and of many blocks in a row."""
    lengths = np.random.default_rng(0).integers(1, 500, 64 * 8 * 24)
    rows = [[n] for n in lengths.tolist()]
    for count, seeds in ((64 * 8, 40), (len(rows), 2)):
        correlations = []
        for seed in range(seeds):
            steps = balance(rows[:count], num_ranks=8, window=64, seed=seed)
            most = lengths[steps].max(axis=1)
            correlations += [np.corrcoef(np.arange(64), block)[0, 1] for block in most.reshape(-1, 64)]
        assert abs(np.mean(correlations)) < 0.08
        assert np.std(correlations) == pytest.approx(1 / np.sqrt(63), rel=0.35)


def test_no_rank_is_the_one_with_the_large_rows() -> None:
    lengths = 1 + np.random.default_rng(0).permutation(8 * 4000)  # no two alike
    steps = balance([[n] for n in lengths.tolist()], num_ranks=8)
    assert (np.argmax(lengths[steps], axis=1)[:, None] == np.arange(8)).mean(axis=0) == pytest.approx(1 / 8, abs=0.03)


def test_what_is_cut_off_costs_nothing() -> None:
    packing = pack_stream([40, 63, 100, 97, 9], seq_len=100, packer=Lookahead(2, max_cut=0.1))
    assert packing.cuts.tolist() == [0, 3, 0, 0, 0]
    rows = [[40, 60], [100], [97], [9]]
    assert row_costs(packing, [40, 63, 100, 97, 9]).tolist() == row_costs(rows).tolist()
