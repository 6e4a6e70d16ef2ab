"""The prices of lengths, learnt from a sample: what a length is worth in a row. Prices help if few different lengths occur.

Prices are the dual values of Gilmore and Gomory's linear program over all possible rows (Operations Research 9, 1961).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, require_int
from patchpack.plan.packing.lengths import Lengths, require_lengths

MOST_TOKENS, MOST_UNITS = 1 << 20, 255


@dataclass(frozen=True)
class Prices:
    """The worth of lengths in a row, in whole units: a step function of the length.

    A length below the first step is worth 0. Any other length is worth as much as the longest step that is at most this length.

    Attributes:
        seq_len: tokens per row, 1 … 2**20.
        units: worth of the best row, 1 … 255.
        steps: (length, worth) pairs, both rising.
    """

    seq_len: int
    units: int
    steps: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        require_int("seq_len", self.seq_len, 1, MOST_TOKENS)
        require_int("units", self.units, 1, MOST_UNITS)
        length, worth = 0, 0
        for step in self.steps:
            require_int("length of a step", step[0], length + 1, self.seq_len)
            require_int("worth of a step", step[1], worth + 1, self.units)
            length, worth = step

    def table(self) -> Int64:
        """Return the worth of each length: int64 ``[seq_len + 1]``."""
        worth = np.zeros(self.seq_len + 1, dtype=np.int64)
        for length, units in self.steps:
            worth[length:] = units
        return worth


def learn_prices(lengths: Lengths, *, seq_len: int, most_units: int = 128) -> Prices | None:
    """Learn the worth of each length from a sample of a few thousand lengths, in about a tenth of a second.

    The prices are the dual values of the linear program over all possible rows. The program is solved by column generation with
    a revised simplex (Gilmore and Gomory 1961). The values are made non-decreasing, then rounded to the whole units that give
    the best bound. Slots are ignored.

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``. More than 256 different lengths are rounded up to 256 quantiles.
        seq_len: tokens per row, at most 2**20.
        most_units: most units of a row, 1 … 128. More units cost time in every row. Default 128.

    Returns:
        `Prices`, or None if prices would not help. That is so if they prove no bound on the fill rate below 99.5 %: the fullest
        rows are then best.

    Raises:
        ConfigError: the sample is empty, a length is not in ``1 … seq_len``, or a number is out of its range.
    """
    sizes = require_lengths(lengths, seq_len)
    require_int("seq_len", seq_len, 1, MOST_TOKENS)
    require_int("most_units", most_units, 1, 128)
    if not len(sizes):
        raise ConfigError("lengths must not be empty: prices are learnt from some thousand lengths")
    kinds = np.unique(sizes)
    if len(kinds) > 256:
        kinds = np.unique(np.quantile(sizes, np.linspace(0, 1, 257), method="inverted_cdf"))
    share = np.bincount(np.searchsorted(kinds, sizes)) / len(sizes)
    values = _dual_values(kinds, share, seq_len)
    bound, units, worth = 0.0, 0, kinds
    for scale in range(1, most_units + 1):
        rounded = np.rint(values * scale)
        best_row = max(1, round(_max_value_row(kinds, rounded, seq_len)[0]))
        needed = float(share @ rounded) / best_row  # a lower bound on rows per item, for any packing
        if best_row <= most_units and needed > bound * 1.0002:
            bound, units, worth = needed, best_row, rounded.astype(np.int64)
    if sizes.mean() > 0.995 * seq_len * bound:
        return None
    return Prices(seq_len, units, tuple((int(kinds[k]), int(worth[k])) for k in np.flatnonzero(np.diff(worth, prepend=0))))


def _dual_values(kinds: Int64, share: npt.NDArray[np.float64], seq_len: int) -> npt.NDArray[np.float64]:
    """Return the dual value of each kind, float64 ``[m]``, rising.

    No row is worth more than 1. Among all values of which this is true, the sample is worth the most with the returned values,
    to within 0.1 %.
    """
    inverse = np.diag(1.0 / (seq_len // kinds))  # inverse of the basis: at first, rows of one length each
    amount, cost, bound, found = inverse @ share, np.ones(len(kinds)), 0.0, np.zeros(len(kinds))
    for _ in range(40 * len(kinds) + 1000):  # a limit, because degenerate steps can cycle; normally far fewer
        dual = cost @ inverse
        column, k = np.zeros(len(kinds)), int(np.diff(dual, prepend=0.0).argmin())
        priced = dual[k] - (dual[k - 1] if k else 0.0) >= -1e-9
        if priced:
            dual = np.maximum.accumulate(dual)
            worth, column = _max_value_row(kinds, dual, seq_len)
            if share @ dual > bound * worth:
                bound, found = float(share @ dual) / worth, dual / worth
            if share @ dual <= 1.001 * bound:
                break
        else:  # a shorter item fits in place of a longer item (dual cut of Valério de Carvalho, 2005)
            column[k] = -1.0
            column[k - 1 : k] = 1.0  # the shortest kind has no shorter neighbour
        change = inverse @ column
        steps = np.divide(amount, change, out=np.full(len(kinds), np.inf), where=change > 1e-9)
        leaves = int(steps.argmin())
        if steps[leaves] == np.inf:
            break
        amount = np.maximum(amount - steps[leaves] * change, 0.0)
        amount[leaves], cost[leaves] = steps[leaves], float(priced)
        pivot = inverse[leaves] / change[leaves]
        inverse -= np.outer(change, pivot)
        inverse[leaves] = pivot
    return found


def _max_value_row(kinds: Int64, values: npt.NDArray[np.float64], seq_len: int) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the value of the best row, and the number of items of each kind in this row.

    Values are non-decreasing, so only the kinds at which the values rise are needed.
    """
    from patchpack.plan.packing import _kernels_prices as kernels

    first = np.flatnonzero(np.diff(values, prepend=0.0) > 1e-9)
    row, copies = np.zeros(len(first), dtype=np.int64), np.zeros(len(kinds))
    best, last = np.empty(seq_len + 1), np.empty(seq_len + 1, dtype=np.int64)
    value = kernels.best_row(kinds[first], values[first], best, last, row)
    copies[first] = row
    return float(value), copies
