"""The linear program over all rows, solved by column generation."""

from __future__ import annotations

import importlib
import math
import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64

_SCALE = 1 << 40  # prices are integers in these units, so that a bound is exact, however the solver rounds
_MOST_CELLS = 1 << 27  # most kinds * slots * tokens of a knapsack; above it the linear program is not solved
_COLUMNS = 200  # most new rows per knapsack
_SMOOTH = 0.5  # weight of the best prices so far against the newest (Wentges 1997)


def affordable(sizes: Int64, seq_len: int, max_images: int | None) -> bool:
    """Return True if the knapsacks of the linear program are small enough to be solved.

    Args:
        sizes: int64 ``[kinds]``, the distinct lengths, increasing.
        seq_len: tokens per row.
        max_images: items per row, None for no limit.
    """
    return len(sizes) * (_slots(sizes, seq_len, max_images) + 1) * (seq_len + 1) <= _MOST_CELLS


def _slots(sizes: Int64, seq_len: int, max_images: int | None) -> int:
    """Return `max_images`, or 0 if no row of `seq_len` tokens can hold more items than that."""
    return 0 if max_images is None or max_images >= seq_len // int(sizes[0]) else max_images


class Pass(NamedTuple):
    """The steps (passes) of the dynamic program for a bounded knapsack, as arrays for `_kernels_linear_program.price`.

    In a bounded knapsack, each kind of item may be used a limited number of times.
    """

    kinds: Int64
    copies: Int64
    endless: npt.NDArray[np.bool_]


class ColumnGeneration:
    """The linear program ``min sum x, A x >= counts, x >= 0``. Each column of A is one possible row.

    A possible row holds no more items of a length than the list has.

    Args:
        sizes: int64 ``[kinds]``, the distinct lengths, increasing.
        counts: int64 ``[kinds]``, items of each length, >= 1.
        seq_len: tokens per row.
        max_images: items per row, None for no limit.

    Attributes:
        columns: rows generated so far. A row is an int64 array of the kinds of its items, increasing.
        amounts: float64 ``[columns]``, the solution: how often each row is used.
        bound: number of rows that is proven to be needed, an integer.
        finished: True if no further row can lower ``ceil(sum(amounts))``.
        stopped: True if the time ran out.
    """

    def __init__(self, sizes: Int64, counts: Int64, seq_len: int, max_images: int | None) -> None:
        self._sizes, self._counts, self._seq_len = sizes, counts, seq_len
        self._slots = _slots(sizes, seq_len, max_images)
        self._most = np.minimum(seq_len // sizes, self._slots or seq_len)
        self._master = _Master(counts)
        self._seen: set[bytes] = set()
        self._prices = sizes / seq_len  # prices of the best bound so far
        self.columns: list[Int64] = []
        self.amounts = np.zeros(0)
        self.bound, self.finished, self.stopped = 0, False, False
        self.add([np.full(many, kind) for kind, many in enumerate(np.minimum(self._most, counts).tolist())])

    def add(self, columns: list[Int64]) -> int:
        """Add rows, and return how many of them are new. A row is an array of the kinds of its items, increasing."""
        new = list({column.tobytes(): column for column in columns if column.tobytes() not in self._seen}.values())
        self._seen.update(column.tobytes() for column in new)
        self.columns += new
        self._master.add(new)
        return len(new)

    def run(self, deadline: float, *, seed: int, enough: float = math.inf) -> None:
        """Generate rows until the bound reaches the solution or `enough`, or the time is up.

        Args:
            deadline: end of the search, on the clock of `time.monotonic`.
            seed: seed of the orders in which equally good rows are tried, >= 0.
            enough: bound, in rows, at which the search may end. Default infinity.
        """
        from patchpack.plan.packing.published import _kernels_linear_program as kernels

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
            steps = self._passes(rng.permutation(len(self._sizes)))  # another order finds different rows of the same value
            kinds, copies, endless = steps
            best = np.zeros((self._slots + 1, self._seq_len + 1), dtype=np.int64)
            step = int(self._slots > 0)
            sizes = self._sizes[kinds]
            kernels.price(sizes, copies, endless, prices[kinds], step, best, old, choices, last)
            self._learn(prices, int(best[-1, -1]))
            self.finished = self.bound >= math.ceil(value - 1e-6)
            if self.finished or self.bound >= enough:
                return
            ends = np.argsort(-last, kind="stable")[:_COLUMNS]
            found = np.zeros((len(ends), len(self._sizes)), dtype=np.int64)
            for column, end in zip(found, ends[last[ends] > 0], strict=False):
                kernels.trace(sizes, copies, endless, kinds, step, choices, int(end), column)
            if self.add([np.repeat(np.arange(len(column)), column) for column in found[found @ duals > 1 + 1e-9]]):
                smooth = _SMOOTH
            elif smooth:
                smooth = 0.0  # without smoothing, the newest prices find a new row or prove that none improves the solution
            else:
                self.finished = self.bound >= math.ceil(value - 1e-4)
                return

    def round(self, counts: Int64, deadline: float) -> npt.NDArray[np.float64] | None:
        """Return the solution for other counts with the rows generated so far, or None if the time is up."""
        self._master.demand(counts)
        solved = self._master.solve(deadline)
        self.stopped = self.stopped or solved is None
        return None if solved is None else solved[1]

    def _learn(self, prices: Int64, max_value_row: int) -> None:
        """Increase the bound to ``sum(counts prices) / max_value_row``, because no row is worth more than `max_value_row`."""
        total = sum(map(int.__mul__, prices.tolist(), self._counts.tolist()))
        bound = -(-total // max_value_row)
        if bound >= self.bound:
            self.bound, self._prices = bound, prices / max_value_row

    def _passes(self, order: Int64) -> Pass:
        """Return the passes of all kinds: one endless pass for a kind of which there are enough items to fill a row.

        Any other kind has passes of 1, 2, 4, … items, and a last pass with the remaining items.
        """
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
    """The linear program over the columns so far. The solver keeps the program, so each run starts from the last solution."""

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
    """Return a HiGHS solver that prints nothing.

    Recent versions print a greeting during construction, when the callbacks are set up.
    """

    class Quiet(solver.Highs):  # type: ignore[misc]  # the base class has no types
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
        raise ConfigError(
            f"the linear program needs highspy, which is not installed ({error}): pip install 'patchpack[solver]'"
        ) from error
