"""Lower bounds on the number of rows: from sums, from pairs that cannot share a row, and from a linear program over all rows.

The bounds hold for any packing. The linear program (Gilmore and Gomory 1961) has a variable per possible row and is solved by
column generation. It gives a bound at any time it is stopped, because any prices per length bound the number of rows
(Farley 1990).
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, require_int
from patchpack.plan.packing.lengths import require_lengths

_SCALE = 1 << 40  # prices are integers in these units, so that a bound is exact however the solver rounds
_MOST_CELLS = 1 << 27  # kinds, slots and tokens of one knapsack; a problem over it has no linear program
_COLUMNS = 200  # new rows per knapsack
_SMOOTH = 0.5  # weight of the best prices so far against the newest (Wentges 1997)


def lower_bound(
    lengths: Sequence[int] | npt.NDArray[Any],
    seq_len: int,
    max_images: int | None = None,
    *,
    lp: bool = False,
    time_limit: float = 60.0,
) -> int:
    """Return a number of rows that every packing of these lengths needs.

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``.
        seq_len: tokens per row.
        max_images: items per row. Default None, no limit.
        lp: True also solves the linear program over all rows. It needs ``patchpack[solver]``. The program is left out where
            distinct lengths · slots · tokens are over 2**27, because a knapsack over them would not fit in memory. Default
            False.
        time_limit: seconds for the linear program, > 0. The bound proven by then counts. Default 60.

    Returns:
        ``max(ceil(sum / seq_len), ceil(n / max_images), L2)``, L2 by Martello and Toth (Discrete Applied Mathematics 28,
        1990, section 3), and with `lp` the linear program's bound, rounded up. 0 for an empty list.

    Raises:
        ConfigError: a length is not an integer in ``1 … seq_len``, a cap is below 1, the time limit is not a positive number,
            or `lp` is set without the solver.

    Example:
        >>> lower_bound([6, 6, 6], 10)
        3
    """
    sizes, counts = np.unique(require_lengths(lengths, seq_len), return_counts=True)
    if max_images is not None:
        require_int("max_images", max_images, 1, 1 << 30)
    require_seconds(time_limit)
    bound = simple_bound(sizes, counts, seq_len, max_images)
    if lp:
        require_solver()
    if lp and bound and affordable(sizes, seq_len, max_images):
        program = ColumnGeneration(sizes, counts, seq_len, max_images)
        program.run(time.monotonic() + time_limit, seed=0)
        bound = max(bound, program.bound)
    return bound


def simple_bound(sizes: Int64, counts: Int64, seq_len: int, max_images: int | None) -> int:
    """Return the largest of tokens over seq_len, items over slots, and L2.

    Args:
        sizes: int64 ``[kinds]``, the distinct lengths, increasing.
        counts: int64 ``[kinds]``, items of each length, >= 1.
        seq_len: tokens per row.
        max_images: items per row, None for no limit.
    """
    if not len(sizes):
        return 0
    tokens, items = sum(map(int.__mul__, sizes.tolist(), counts.tolist())), int(counts.sum())
    bound = max(-(-tokens // seq_len), martello_toth(sizes, counts, seq_len))
    return bound if max_images is None else max(bound, -(-items // max_images))


def martello_toth(sizes: Int64, counts: Int64, seq_len: int) -> int:
    """Return L2: the largest, over a in ``0 … seq_len / 2``, number of rows that the items of at least a tokens need.

    Let J1 be the lengths over ``seq_len − a``, J2 the other lengths over ``seq_len / 2``, and J3 those from a to
    ``seq_len / 2``. Then the number is ``|J1| + |J2| + max(0, ceil((sum J3 − (|J2| seq_len − sum J2)) / seq_len))``. Every
    item of J1 and J2 has a separate row. The items of J1 share with no item of J3. The items of J3 that find no room beside
    J2 need further rows.

    Args:
        sizes: int64 ``[kinds]``, the distinct lengths, increasing.
        counts: int64 ``[kinds]``, items of each length, >= 1.
        seq_len: tokens per row.
    """
    number = np.zeros(seq_len + 2, dtype=np.int64)
    number[sizes + 1] = counts
    tokens = np.cumsum(number * np.arange(-1, seq_len + 1))  # tokens[v]: of the lengths below v
    number = np.cumsum(number)
    half = seq_len // 2
    a = np.arange(half + 1)
    large = number[-1] - number[half + 1]
    room = (number[seq_len + 1 - a] - number[half + 1]) * seq_len - (tokens[seq_len + 1 - a] - tokens[half + 1])
    short = tokens[half + 1] - tokens[a] - room
    return int(large + max(0, (-(-short // seq_len)).max()))


def require_seconds(time_limit: Any) -> None:
    """Raise `ConfigError` unless time_limit is a positive number."""
    number = isinstance(time_limit, (int, float, np.integer, np.floating)) and not isinstance(time_limit, bool)
    if not number or not time_limit > 0:
        raise ConfigError(f"time_limit must be a positive number of seconds, got {time_limit!r}")


def affordable(sizes: Int64, seq_len: int, max_images: int | None) -> bool:
    """Return True if the linear program's knapsacks are small enough to be solved.

    Args:
        sizes: int64 ``[kinds]``, the distinct lengths, increasing.
        seq_len: tokens per row.
        max_images: items per row, None for no limit.
    """
    return len(sizes) * (_slots(sizes, seq_len, max_images) + 1) * (seq_len + 1) <= _MOST_CELLS


def _slots(sizes: Int64, seq_len: int, max_images: int | None) -> int:
    """Return the cap on items per row, 0 where the tokens alone ensure it."""
    return 0 if max_images is None or max_images >= seq_len // int(sizes[0]) else max_images


class Pass(NamedTuple):
    """The steps of a knapsack over bounded numbers of pieces, for `_kernels_tight.price`."""

    kinds: Int64
    copies: Int64
    endless: npt.NDArray[np.bool_]


class ColumnGeneration:
    """The linear program ``min sum x, A x >= counts, x >= 0`` over the rows A that hold no more of a length than there is.

    Args:
        sizes: int64 ``[kinds]``, the distinct lengths, increasing.
        counts: int64 ``[kinds]``, items of each length, >= 1.
        seq_len: tokens per row.
        max_images: items per row, None for no limit.

    Attributes:
        columns: rows generated so far, each as the kinds of its items, increasing, int64.
        amounts: float64 ``[columns]``, the solution over them.
        bound: number of rows that is proven to be needed, an integer.
        finished: True if no row outside `columns` can lower ``ceil(sum(amounts))``.
        stopped: True if the time ran out.
    """

    def __init__(self, sizes: Int64, counts: Int64, seq_len: int, max_images: int | None) -> None:
        self._sizes, self._counts, self._seq_len = sizes, counts, seq_len
        self._slots = _slots(sizes, seq_len, max_images)
        self._most = np.minimum(seq_len // sizes, self._slots or seq_len)
        self._master = _Master(counts)
        self._seen: set[bytes] = set()
        self._prices = sizes / seq_len  # of the best bound so far
        self.columns: list[Int64] = []
        self.amounts = np.zeros(0)
        self.bound, self.finished, self.stopped = 0, False, False
        self.add([np.full(many, kind) for kind, many in enumerate(np.minimum(self._most, counts).tolist())])

    def add(self, columns: list[Int64]) -> int:
        """Add rows, each as the kinds of its items, increasing, and return how many are new."""
        new = list({column.tobytes(): column for column in columns if column.tobytes() not in self._seen}.values())
        self._seen.update(column.tobytes() for column in new)
        self.columns += new
        self._master.add(new)
        return len(new)

    def run(self, deadline: float, *, seed: int, enough: float = math.inf) -> None:
        """Generate rows until the bound meets the solution or `enough`, or the time is up.

        Args:
            deadline: end of the search, on the clock of `time.monotonic`.
            seed: seed of the orders in which equally good rows are tried, >= 0.
            enough: number of rows at which a bound suffices. Default infinity.
        """
        from patchpack.plan.packing import _kernels_tight

        rng = np.random.default_rng(seed)
        steps = self._passes(np.arange(len(self._sizes)))
        choices = np.empty((len(steps.kinds), self._slots + 1, self._seq_len + 1), dtype=np.bool_)
        old, last = np.empty(self._seq_len + 1, dtype=np.int64), np.empty(len(steps.kinds), dtype=np.int64)
        smooth = _SMOOTH
        while True:
            solved = self._master.solve(deadline)
            if solved is None:
                self.stopped = True
                return
            value, self.amounts, duals = solved
            prices = np.floor((smooth * self._prices + (1 - smooth) * duals) * _SCALE).astype(np.int64)
            steps = self._passes(rng.permutation(len(self._sizes)))  # another order, other rows of the same value
            kinds, copies, endless = steps
            best = np.zeros((self._slots + 1, self._seq_len + 1), dtype=np.int64)
            step = int(self._slots > 0)
            sizes = self._sizes[kinds]
            _kernels_tight.price(sizes, copies, endless, prices[kinds], step, best, old, choices, last)
            self._learn(prices, int(best[-1, -1]))
            self.finished = self.bound >= math.ceil(value - 1e-6)
            if self.finished or self.bound >= enough:
                return
            ends = np.argsort(-last, kind="stable")[:_COLUMNS]
            found = np.zeros((len(ends), len(self._sizes)), dtype=np.int64)
            for column, end in zip(found, ends[last[ends] > 0], strict=False):
                _kernels_tight.trace(sizes, copies, endless, kinds, step, choices, int(end), column)
            if self.add([np.repeat(np.arange(len(column)), column) for column in found[found @ duals > 1 + 1e-9]]):
                smooth = _SMOOTH
            elif smooth:
                smooth = 0.0  # the newest prices themselves either find a row or prove that there is none
            else:
                self.finished = self.bound >= math.ceil(value - 1e-4)
                return

    def round(self, counts: Int64, deadline: float) -> npt.NDArray[np.float64] | None:
        """Return the solution over the rows generated so far for other counts, or None when the time is up."""
        self._master.demand(counts)
        solved = self._master.solve(deadline)
        self.stopped = self.stopped or solved is None
        return None if solved is None else solved[1]

    def _learn(self, prices: Int64, max_value_row: int) -> None:
        """Raise the bound to ``sum(counts prices) / max_value_row``, because no row is worth more than `max_value_row`."""
        total = sum(map(int.__mul__, prices.tolist(), self._counts.tolist()))
        bound = -(-total // max_value_row)
        if bound >= self.bound:
            self.bound, self._prices = bound, prices / max_value_row

    def _passes(self, order: Int64) -> Pass:
        """Return 1, 2, 4, … and the rest of each kind, or one at a time where there are more than fit."""
        kinds: list[int] = []
        copies: list[int] = []
        for kind, most, count in zip(order.tolist(), self._most[order].tolist(), self._counts[order].tolist(), strict=True):
            left, part = 1 if count >= most else count, 1
            while left:
                kinds.append(kind)
                copies.append(min(part, left))
                left, part = left - copies[-1], 2 * part
        index = np.array(kinds, dtype=np.int64)
        return Pass(index, np.array(copies, dtype=np.int64), (self._counts >= self._most)[index] & (self._most > 1)[index])


class _Master:
    """The linear program over the columns so far. It stays in the solver, so that each solve starts from the last solution."""

    def __init__(self, counts: Int64) -> None:
        self._solver = require_solver()
        self._highs, self._kinds = _quiet(self._solver), len(counts)
        self._highs.setOptionValue("threads", 1)
        for count in counts.tolist():
            self._highs.addRow(float(count), self._solver.kHighsInf, 0, np.zeros(0, dtype=np.int32), np.zeros(0))

    def add(self, columns: list[Int64]) -> None:
        if not columns:
            return
        of = np.repeat(np.arange(len(columns)), [len(column) for column in columns])
        pairs, many = np.unique(of * self._kinds + np.concatenate(columns), return_counts=True)
        starts = np.searchsorted(pairs, np.arange(len(columns)) * self._kinds).astype(np.int32)
        ones, most = np.ones(len(columns)), np.full(len(columns), self._solver.kHighsInf)
        kinds = (pairs % self._kinds).astype(np.int32)
        self._highs.addCols(len(columns), ones, 0 * ones, most, len(pairs), starts, kinds, many.astype(np.float64))

    def demand(self, counts: Int64) -> None:
        for i, count in enumerate(counts.tolist()):
            self._highs.changeRowBounds(i, float(count), self._solver.kHighsInf)

    def solve(self, deadline: float) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        self._highs.setOptionValue("time_limit", self._highs.getRunTime() + left)
        self._highs.run()
        if self._highs.getModelStatus() != self._solver.HighsModelStatus.kOptimal:
            return None
        solution = self._highs.getSolution()
        value = float(self._highs.getInfo().objective_function_value)
        return value, np.array(solution.col_value), np.maximum(np.array(solution.row_dual), 0.0)


def _quiet(solver: Any) -> Any:
    """Return a HiGHS that prints nothing.

    Recent versions print a greeting during construction, when the callbacks are set up.
    """

    class Quiet(solver.Highs):  # type: ignore[misc]  # an untyped base
        def enableCallbacks(self) -> None:
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()

    highs = Quiet()
    highs.setOptionValue("output_flag", False)
    return highs


def require_solver() -> Any:
    """Return the module highspy, or raise `ConfigError` with the command that installs it."""
    try:
        return importlib.import_module("highspy")
    except ImportError as error:
        raise ConfigError(f"linear programs need highspy ({error}): pip install 'patchpack[solver]'") from error
