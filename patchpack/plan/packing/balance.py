"""The choice of the rows of each step, so that no rank waits for another rank.

The attention of a row with images of n tokens costs Σn², which differs between equally full rows. A synchronous step lasts as
long as its slowest rank. `balance` puts rows of nearly equal cost into a step. The content of rows does not change, so the fill
rate does not change either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int
from patchpack.plan.packing.lengths import Lengths, Packing

Costs = npt.NDArray[np.int64] | npt.NDArray[np.float64]

MOST_TOKENS = 1 << 30  # tokens of a row: Σn² and 6 · width · n fit 64 bits


@dataclass(frozen=True)
class AttentionCost:
    """The cost ``n * (n + 6 * width)`` of an image of n tokens in a transformer block that attends within images.

    The unit is ``2 * width`` multiply-adds, so that the cost is an exact integer. The two products of attention (queries with
    keys, weights with values) take ``2 * width * n**2`` multiply-adds. The four projections and an MLP of ratio 4 take
    ``(4 + 8) * width**2 * n``. So attention has the share ``n / (6 * width + n)`` of the cost. NaViT 2307.06304 section 2.2
    gives this share for rows that attend within themselves.

    Attributes:
        width: width of the model, 0 … 65536. With 0 the cost is ``n**2``, attention alone. Default 768.
    """

    width: int = 768

    def __post_init__(self) -> None:
        require_int("width", self.width, 0, 1 << 16)

    def __call__(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the cost of each image, int64 ``[n]``. The lengths are int64 ``[n]``, at most 2**30."""
        return lengths * (lengths + 6 * self.width)


Cost = Callable[[npt.NDArray[np.int64]], Costs]


def balance(
    rows: Packing | Sequence[Lengths],
    lengths: Lengths | None = None,
    *,
    num_ranks: int,
    window: int = 64,
    cost: Cost | None = None,
    seed: int = 0,
    epoch: int = 0,
) -> npt.NDArray[np.int64]:
    """Deal rows into steps in which every rank has nearly the same work.

    A pool holds the rows of `window` steps, sorted by cost. A step takes a run of `num_ranks` neighbours that contains the
    oldest row of the pool. Among these runs, the step takes the run with the least ``1 − mean / max`` of the costs, and among
    equal runs the lighter run. Then the next `num_ranks` rows enter the pool. At the end the steps are shuffled in blocks of
    `window` steps, and the rows of a step are shuffled over the ranks. So neither steps nor ranks are sorted by cost.

    The usual method sorts each window by cost and cuts it into steps. In the pool a row of rare cost may wait for similar rows,
    so ranks wait a quarter to a half less than with the usual method (`bench/packing/balance.py`).

    Args:
        rows: a `Packing`, or a sequence with the lengths in each row.
        lengths: int ``[n]``, the lengths from which a `Packing` was made. Default None, if `rows` are lengths.
        num_ranks: number of rows per step, one per rank, >= 1. For k rows per rank, pass ``k * num_ranks`` and split each step.
        window: number of steps whose rows are in the pool, >= 1. With 1 the order of steps is kept. Default 64.
        cost: a function from lengths, int64 ``[n]``, to the cost of each image, >= 0. The cost of a row is the sum over its
            images. Default None, `AttentionCost`.
        seed: seed of the shuffling. Default 0.
        epoch: epoch of the shuffling. Default 0.

    Returns:
        int64 ``[ceil(rows / num_ranks), num_ranks]``, indices of the rows of each step, each row once. An index is −1 if the
        last step has no row for a rank. A row moves less than ``2 * window`` steps to the front. Apart from the shuffling, a
        row moves at most ``window * num_ranks`` steps to the back. In measurements, rows moved at most two or three windows to
        the back.

    Raises:
        ConfigError: a length is not an integer >= 1, a row has more than 2**30 tokens, `lengths` are missing for a `Packing`, a
            cost is negative or not finite, or a number is out of its range.

    Example:
        >>> balance([[9], [3, 3], [3], [9]], num_ranks=2, window=2, seed=1).tolist()
        [[0, 3], [2, 1]]
    """
    from patchpack.plan import _kernels  # numba costs 0.15 s to import: only when steps are made

    require_int("num_ranks", num_ranks, 1, rng.MAX_DRAWS - 1)
    require_int("window", window, 1, 1 << 30)
    weights = _weights(row_costs(rows, lengths, cost=cost), num_ranks)
    n = len(weights)
    steps = np.full((-(-n // num_ranks), num_ranks), -1, dtype=np.int64)
    row = np.arange(n)
    together = window * num_ranks
    block = np.where(row < together, 0, row // num_ranks)
    arrivals = np.lexsort((weights, block)).astype(np.int64)
    scratch = (np.empty(min(n, together), dtype=np.int64), np.empty(min(n, together), dtype=np.int64))
    _kernels.steps_from_pool(weights, arrivals, window, *scratch, np.zeros(n, dtype=np.uint8), steps)
    return _shuffled(steps, n // num_ranks, window, seed, epoch)


def row_costs(
    rows: Packing | Sequence[Lengths],
    lengths: Lengths | None = None,
    *,
    cost: Cost | None = None,
) -> Costs:
    """Return the cost of each row, the sum of its images' costs. An empty row costs 0.

    Args:
        rows: a `Packing`, or a sequence with the lengths in each row.
        lengths: int ``[n]``, the lengths from which a `Packing` was made. Default None, if `rows` are lengths.
        cost: a function from lengths, int64 ``[n]``, to the cost of each image, >= 0. Default None, `AttentionCost`.

    Raises:
        ConfigError: an argument cannot be used, as in `balance`.
    """
    items, offsets = _flat(rows, lengths)
    costs = np.asarray((AttentionCost() if cost is None else cost)(items))
    if costs.shape != items.shape or costs.dtype.kind not in "iuf":
        raise ConfigError(f"cost must return one number per length, {list(items.shape)}, got {costs.dtype} {list(costs.shape)}")
    wrong = np.flatnonzero(~(np.isfinite(costs) & (costs >= 0)))
    if wrong.size:
        raise ConfigError(
            f"cost must return finite numbers >= 0, got {costs[wrong[0]]} for a length of {items[wrong[0]]} ({wrong.size} such)"
        )
    sums: Costs = _row_sums(costs.astype(np.float64 if costs.dtype.kind == "f" else np.int64), offsets)
    return sums


def imbalance(steps: npt.NDArray[np.int64], costs: Costs) -> float:
    """Return ``1 − mean / max`` of the ranks' work, averaged over steps. An idle rank has no work.

    Args:
        steps: int64 ``[steps, num_ranks]``, the result of `balance`.
        costs: ``[rows]``, the result of `row_costs`.

    Returns:
        The mean share of a step that a rank waits, 0 … 1 − 1 / num_ranks. It is 0 if there are no steps.
    """
    load = np.where(steps >= 0, np.asarray(costs, dtype=np.float64)[steps], 0.0)
    most = load.max(axis=1, initial=0.0)
    waits = 1 - load.mean(axis=1)[most > 0] / most[most > 0]
    return float(waits.sum() / len(steps)) if len(steps) else 0.0


def _flat(rows: Packing | Sequence[Lengths], lengths: Lengths | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the lengths in the order of the rows, and the offsets at which rows begin and end."""
    if isinstance(rows, Packing):
        if lengths is None:
            raise ConfigError(
                "a Packing has only indices: pass the lengths that it packs too, as balance(packing, lengths, ...)"
            )
        table = _require_lengths(lengths)
        if len(rows.items) and not 0 <= rows.items.min() <= rows.items.max() < len(table):
            raise ConfigError(
                f"the Packing has item {rows.items.max()}, but there are {len(table)} lengths: pass the lengths that it packs"
            )
        items, offsets = (table if rows.cuts is None else table - rows.cuts)[rows.items], rows.offsets
    else:
        if lengths is not None:
            raise ConfigError("lengths is for a Packing only: leave it out for rows that are lists of lengths")
        sequences = cast("Sequence[Lengths]", rows)  # to a type checker a Packing is a sequence too
        counts = [len(row) for row in sequences]
        items = _require_lengths(list(chain.from_iterable(sequences)))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    tokens = _row_sums(items, offsets)
    if len(tokens) and tokens.max() > MOST_TOKENS:
        raise ConfigError(f"a row may have {MOST_TOKENS} tokens at most, row {tokens.argmax()} has {tokens.max()}")
    return items, offsets


def _require_lengths(lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(lengths)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ConfigError(f"lengths must be integers, got {array.dtype} of shape {array.shape}")
    bad = np.flatnonzero((array < 1) | (array > MOST_TOKENS))
    if bad.size:
        raise ConfigError(f"lengths must be in 1 … {MOST_TOKENS}, got {array[bad[0]]} at {bad[0]} ({bad.size} such)")
    return array.astype(np.int64)


def _row_sums(values: np.ndarray, offsets: npt.NDArray[np.int64]) -> np.ndarray:
    sums = np.zeros(len(offsets) - 1, dtype=values.dtype)
    some = np.diff(offsets) > 0  # reduceat would give an empty row the value after it
    if some.any():
        sums[some] = np.add.reduceat(values, offsets[:-1][some])
    return sums


def _weights(costs: Costs, num_ranks: int) -> npt.NDArray[np.int64]:
    """Return the costs as int64, scaled so that any sum of `num_ranks` costs stays below 2**53 and is exact in the kernel."""
    most = float(costs.max(initial=0))
    room = (1 << 52) // num_ranks
    if costs.dtype.kind == "i" and most <= room:
        return costs.astype(np.int64)
    return np.floor(costs * (room / most)).astype(np.int64) if most > 0 else np.zeros(len(costs), dtype=np.int64)


def _shuffled(steps: npt.NDArray[np.int64], full: int, window: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the steps in random order within blocks of `window` steps, with the rows of a step in random order.

    Idle ranks stay at the end.
    """
    count, num_ranks = steps.shape
    number = np.arange(count)
    u = rng.uniforms(seed, epoch, number.astype(np.uint64), rng.Stage.BALANCE, 1 + num_ranks)
    u[full:, 0] = 1.0  # the step with idle ranks stays the last
    steps = steps[np.lexsort((u[:, 0], number // window))]
    return np.take_along_axis(steps, np.argsort(u[:, 1:], axis=1, kind="stable"), axis=1)
