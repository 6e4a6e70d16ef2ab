"""Packing into a number of rows within a given gap of the lower bound. It suits lists that are packed once and read often.

Fast methods are tried first: best-fit-decreasing, rows filled one by one by subset sums (the idea of minimum bin slack, Gupta
and Ho 1999), or rows filled in arrival order if slots are limited. If no result of these methods is within the gap, the linear
program over all rows is solved (see `bounds`). Each row of the solution is used as often as the solution says, rounded down.
The program is then solved again for the items that are left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, require_int
from patchpack.plan.packing.bounds import require_seconds, simple_bound
from patchpack.plan.packing.histogram import plan
from patchpack.plan.packing.lengths import Lengths, Packing, require_lengths
from patchpack.plan.packing.patterns import Kinds
from patchpack.plan.packing.published.linear_program import ColumnGeneration, affordable, require_solver

_WINDOW, _TAIL = 256, 3  # number of waiting items from which a row's last items are chosen; length of these, in mean lengths
_TURNS = 200  # number of rows between two checks of the time
_MOST_FILLED = 20_000  # most left-over items for which each step of the rounding tries the fast methods
_MOST_STARTS = 20_000  # most rows of the best packing so far that the linear program starts with
_POOR = 0.01  # gap beyond which a method stops, because the linear program does better
_SHARE = 0.7  # the linear program's share of the remaining time; rounding gets the rest


class TightPacking(NamedTuple):
    """The rows of a packing, and how far they are from the lower bound.

    Attributes:
        packing: the rows, in the order of their first items, with the items of a row in arrival order.
        lower_bound: proven number of rows that every packing needs.
        seconds: time that the packing took.
        finished: True if the search ended before the time limit. Only then do the same arguments give the same result.
    """

    packing: Packing
    lower_bound: int
    seconds: float
    finished: bool

    @property
    def gap(self) -> float:
        """The ratio ``(rows − lower_bound) / lower_bound``, 0 without rows. The best packing is at most this much better."""
        return (self.packing.num_rows - self.lower_bound) / max(1, self.lower_bound)


class _Rows(NamedTuple):
    """The kind of each item, row after row, and the end of each row, both int64."""

    kinds: Int64
    ends: Int64


def pack_tight(
    lengths: Lengths,
    *,
    seq_len: int,
    max_images: int | None = None,
    gap: float = 0.001,
    time_limit: float = 60.0,
    seed: int = 0,
) -> TightPacking:
    """Pack into nearly as few rows as possible.

    Methods are tried from the fastest to the slowest. The search ends when a packing is within `gap`, or within one row, of the
    lower bound. The last method is the linear program, which also ends when it finds no further improvement.

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``.
        seq_len: tokens per row.
        max_images: items per row. Default None, no limit.
        gap: number of rows over the lower bound, as a share of the bound, at which the search may end, >= 0. Default 0.001.
        time_limit: most seconds from the start, > 0. Best-fit-decreasing always runs to its end. Default 60.
        seed: seed of the orders in which equally good choices are tried, >= 0. Default 0.

    Returns:
        `TightPacking`. Every index appears once.

    Raises:
        ConfigError: a length is not an integer in ``1 … seq_len``, `max_images` is below 1, or another argument is out of its
            range. Or highspy is missing (``patchpack[solver]``), even if these lengths do not need it.

    Example:
        >>> result = pack_tight([6, 5, 4, 3, 2], seq_len=10)
        >>> result.packing.num_rows, result.lower_bound
        (2, 2)
    """
    start = time.monotonic()
    array = require_lengths(lengths, seq_len)
    if max_images is not None:
        require_int("max_images", max_images, 1, 1 << 30)
    require_int("seed", seed, 0, (1 << 63) - 1)
    require_seconds(time_limit)
    if isinstance(gap, bool) or not isinstance(gap, (int, float)) or not gap >= 0:
        raise ConfigError(f"gap must be a number >= 0, got {gap!r}")
    require_solver()
    sizes, kind_of, counts = np.unique(array, return_inverse=True, return_counts=True)
    problem = _Problem(sizes, counts, seq_len, max_images, seed, start + time_limit)
    bound = simple_bound(sizes, counts, seq_len, max_images)
    solvable = len(sizes) > 0 and affordable(sizes, seq_len, max_images)
    best, finished = None, True

    def enough() -> bool:
        return best is not None and len(best.ends) - bound <= max(1, gap * bound)

    for method in problem.cheap():
        most = (1 + max(gap, _POOR)) * bound + 1 if solvable else np.inf  # above this, the linear program is better
        rows = method(counts, most)
        if rows is not None and (best is None or len(rows.ends) < len(best.ends)):
            best = rows
        if enough():
            break
    if best is not None and solvable and not enough() and time.monotonic() < problem.deadline:
        best, proven, finished = problem.by_program(best, len(best.ends) / (1 + gap))
        bound = max(bound, proven)
    finished = enough() or (finished and time.monotonic() < problem.deadline)
    packing = _spread(best or _Rows(kind_of, kind_of[:0]), kind_of)
    return TightPacking(packing, bound, time.monotonic() - start, finished)


class _Problem(NamedTuple):
    """The items to pack, as distinct increasing sizes with counts, and the deadline."""

    sizes: Int64
    counts: Int64
    seq_len: int
    max_images: int | None
    seed: int
    deadline: float

    def cheap(self) -> Iterator[Callable[[Int64, float], _Rows | None]]:
        """Yield the fast methods.

        A method takes the counts, and the largest number of rows that is useful. It returns rows, or None if it fails.
        """
        if self.counts.sum():
            yield self.best_fit_decreasing
            yield self.fill_decreasing
            if self.max_images is not None and self.max_images < self.seq_len // self.sizes[0]:
                yield self.fill_in_turn

    def best_fit_decreasing(self, counts: Int64, most: float) -> _Rows:
        """Pack the longest items first, each into the fullest row that has room."""
        index = np.flatnonzero(counts)[::-1]
        kinds = Kinds(self.sizes[index], np.ones_like(index), counts[index])
        patterns = plan(kinds, self.seq_len, self.max_images or self.seq_len, "best_fit_decreasing")
        edges = patterns.offsets.tolist()
        rows = [np.repeat(index[patterns.lengths[a:b]], patterns.repeats[a:b]) for a, b in pairwise(edges)]
        many = patterns.rows.tolist()
        sizes = np.repeat([len(row) for row in rows], many)
        return _Rows(np.concatenate([np.tile(row, n) for row, n in zip(rows, many, strict=True)]), np.cumsum(sizes))

    def fill_decreasing(self, counts: Int64, most: float) -> _Rows | None:
        """Fill rows with the compiled kernel `fill_decreasing`. Return None if the time is up or a row has too many items."""
        from patchpack.plan.packing import _kernels_tight

        items, largest = int(counts.sum()), len(self.sizes) - 1
        kinds, ends, left = np.empty(items, dtype=np.int64), np.empty(items, dtype=np.int64), counts[::-1].copy()
        reach, used, state = _scratch(self.seq_len), _scratch(self.seq_len), np.zeros(3, dtype=np.int64)
        while not _kernels_tight.fill_decreasing(
            self.sizes[::-1].copy(), left, self.seq_len, state, _TURNS, reach, used, kinds, ends
        ):
            if time.monotonic() > self.deadline:
                return None
        rows = _Rows(largest - kinds, ends[: state[0]])
        over = self.max_images is not None and np.diff(rows.ends, prepend=0).max(initial=0) > self.max_images
        return None if over else rows

    def fill_in_turn(self, counts: Int64, most: float) -> _Rows | None:
        """Fill rows with the compiled kernel `fill_in_turn`. Return None if the time is up or over `most` rows are needed."""
        from patchpack.plan.packing import _kernels_tight

        kinds = np.random.default_rng(self.seed).permutation(np.repeat(np.arange(len(self.sizes)), counts))
        queue, n, max_images = self.sizes[kinds], len(kinds), self.max_images or len(kinds)
        tokens = int(queue.sum())
        state = np.array([0, 0, tokens], dtype=np.int64)
        after = np.append(np.arange(1, n + 1), 0)
        window, tail = min(_WINDOW, n), min(self.seq_len, _TAIL * tokens // n)
        masks, waiting = np.empty((window + 1, self.seq_len + 1), dtype=np.int64), np.empty(window, dtype=np.int64)
        items, ends = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        while not _kernels_tight.fill_in_turn(
            queue, self.seq_len, max_images, tail, state, _TURNS, after, masks, waiting, items, ends
        ):
            least = state[0] + max(-(-state[2] // self.seq_len), -(-(n - state[1]) // max_images))
            if least > most or time.monotonic() > self.deadline:
                return None
        return _Rows(kinds[items], ends[: state[0]])

    def by_program(self, start: _Rows, near: float) -> tuple[_Rows, int, bool]:
        """Return three values: rows from the linear program, the bound that it proves, and True if it was solved in time."""
        program = ColumnGeneration(self.sizes, self.counts, self.seq_len, self.max_images)
        begins = np.append(0, start.ends[:-1])
        some = np.unique(np.linspace(0, len(start.ends) - 1, _MOST_STARTS).astype(np.int64))
        program.add([np.sort(start.kinds[begins[r] : start.ends[r]]) for r in some.tolist()])
        now = time.monotonic()
        program.run(now + _SHARE * (self.deadline - now), seed=self.seed, enough=near)
        best = start
        if len(program.amounts) and program.bound < near:
            for rows in self._rounded(program):
                best = min(best, rows, key=lambda r: len(r.ends))
                if len(best.ends) <= program.bound:
                    break
        return best, program.bound, not program.stopped

    def _rounded(self, program: ColumnGeneration) -> Iterator[_Rows]:
        """Yield packings made by rounding down the solution of the linear program.

        The program is solved again for the items that are left, as often as necessary.

        At each step, the fast methods (see `cheap`) pack the items that are left over.
        """
        left, kinds, ends = self.counts.copy(), [self.counts[:0]], [self.counts[:0]]
        amounts: npt.NDArray[np.float64] | None = program.amounts
        while amounts is not None:
            whole = np.floor(amounts + 1e-6).astype(np.int64)
            if not whole.any():
                whole[int(np.argmax(amounts))] = 1
            for j in np.flatnonzero(whole).tolist():
                row, times = np.bincount(program.columns[j], minlength=len(left)), int(whole[j])
                while times and (row := np.minimum(row, left)).any():  # a solution may hold more items than exist
                    repeats = min(times, int((left[row > 0] // row[row > 0]).min()))
                    left -= repeats * row
                    times -= repeats
                    kinds.append(np.tile(np.repeat(np.arange(len(row)), row), repeats))
                    ends.append(np.full(repeats, row.sum()))
            taken = _Rows(np.concatenate(kinds), np.cumsum(np.concatenate(ends)))
            if not left.any():
                yield taken
                return
            if left.sum() <= _MOST_FILLED:
                for method in self.cheap():
                    rows = method(left, np.inf)
                    if rows is not None:
                        yield _Rows(np.append(taken.kinds, rows.kinds), np.append(taken.ends, len(taken.kinds) + rows.ends))
            amounts = program.round(left, self.deadline)


def _spread(rows: _Rows, kind_of: Int64) -> Packing:
    """Assign the items of each kind, in arrival order, to the rows that hold the kind."""
    row = np.repeat(np.arange(len(rows.ends)), np.diff(rows.ends, prepend=0))
    row_of = np.empty(len(kind_of), dtype=np.int64)
    row_of[np.argsort(kind_of, kind="stable")] = row[np.argsort(rows.kinds, kind="stable")]
    first = np.unique(row_of, return_index=True)[1]  # the first item of each row
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    row_of = rank[row_of]
    offsets = np.append(0, np.cumsum(np.bincount(row_of, minlength=len(first)))).astype(np.int64)
    return Packing(np.argsort(row_of, kind="stable").astype(np.int64), offsets)


def _scratch(seq_len: int) -> Int64:
    return np.empty(seq_len + 1, dtype=np.int64)
