"""Rows from a bounded pool of waiting items: close to arrival order, and as full as the pool allows.

Each row is the fullest that contains the oldest item; or, where few lengths occur and the fullest row of today leaves a worse
pool for tomorrow, the dearest under prices per length: the dual values of Gilmore and Gomory's linear program (Operations
Research 9, 1961), learnt from a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, require_int
from patchpack.plan.packing.offline import Packing, _require_lengths, _require_slots
from patchpack.plan.packing.protocol import Item, Packer, Row

MOST_WAITING, MOST_TOKENS, MOST_UNITS = 1 << 12, 1 << 20, 255
NEAR, LAYERS = 6, 9  # mean lengths (or slots) left when the completion is searched; slots 0 … 8 it may count
_UNLIMITED = 1 << 30
Lengths = Sequence[int] | npt.NDArray[Any]


@dataclass(frozen=True)
class Prices:
    """What lengths are worth in a row, in whole units: a step function of the length.

    A length below the first step is worth 0, others as much as the longest step that is not above it.

    Attributes:
        seq_len: tokens of a row.
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
        """Worth of each length: int64 ``[seq_len + 1]``."""
        worth = np.zeros(self.seq_len + 1, dtype=np.int64)
        for length, units in self.steps:
            worth[length:] = units
        return worth


@dataclass(frozen=True)
class Lookahead:
    """Items wait in a pool; when it is full, or an item must go, one row is built from it and closed.

    Without prices the row takes the oldest items that fit until about 6 mean lengths (or 6 slots) are left, then the fullest
    completion there is, found as a subset sum over the pool; of the fullest the one that waits for the fewest young items.
    The oldest item is in every row. With prices the row is the most expensive one, made of what waits most.

    No item waits longer than `longest_wait`: at every push one item at most, the oldest, reaches that age, because no two
    have the same; and the row that this push then closes contains it.

    A row is built from the pool alone, so `waiting` should be several times the number of images in a row: three are
    enough for small smooth lengths, sixteen for large ones.

    Attributes:
        waiting: items in the pool, 1 … 4096; a row is closed at the push that fills it.
        longest_wait: items pushed after an item before its row is closed, >= 0; None for ``8 * waiting``.
        prices: of `learn_prices`, for lists where few lengths occur (native grids of one camera); None for the fullest row.
    """

    waiting: int = 64
    longest_wait: int | None = None
    prices: Prices | None = None

    def __post_init__(self) -> None:
        require_int("waiting", self.waiting, 1, MOST_WAITING)
        if self.longest_wait is not None:
            require_int("longest_wait", self.longest_wait, 0, 1 << 30)
        if not (self.prices is None or isinstance(self.prices, Prices)):
            raise ConfigError(f"prices must be Prices or None, got {self.prices!r}: learn_prices makes them from lengths")

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """See `PackerFactory`. Raises `ConfigError` for prices of another seq_len, and above 2**20 tokens."""
        require_int("max_images", max_images, 1, _UNLIMITED)
        return LookaheadPacker(self, seq_len, max_images)

    @property
    def longest(self) -> int:
        """The bound on the wait that holds."""
        return 8 * self.waiting if self.longest_wait is None else self.longest_wait

    def table(self, seq_len: int) -> Int64:
        """Worth of each length, int64 ``[seq_len + 1]``; zeros without prices."""
        require_int("seq_len", seq_len, 1, MOST_TOKENS)
        if self.prices is None:
            return np.zeros(seq_len + 1, dtype=np.int64)
        if self.prices.seq_len != seq_len:
            raise ConfigError(f"prices are for seq_len={self.prices.seq_len}, rows have {seq_len}: learn prices for {seq_len}")
        return self.prices.table()


class LookaheadPacker:
    """The packer that `Lookahead` makes."""

    def __init__(self, options: Lookahead, seq_len: int, max_images: int) -> None:
        self._seq_len, self._max_images, self._longest = seq_len, max_images, options.longest
        self._table = options.table(seq_len)
        self._pool = np.zeros((4, options.waiting), dtype=np.int64)
        self._scratch = _scratch(options, seq_len)
        self._items: list[Item] = []
        self._pushed = 0

    def push(self, item: Item) -> list[Row]:
        """See `Packer`; one row at most. Raises `ConfigError` for an item that no row can hold."""
        self._add(item, self._pushed)
        self._pushed += 1
        due = self._pushed - 1 - int(self._pool[3, 0]) >= self._longest
        return [self._close(due)] if due or len(self._items) == self._pool.shape[1] else []

    def flush(self) -> list[Row]:
        """See `Packer`; each row contains the item that is the oldest by then."""
        return [self._close(True) for _ in iter(lambda: len(self._items), 0)]

    def state_dict(self) -> dict[str, Any]:
        """``{"waiting": [[id, num_tokens, num_slots, age], ...]}``, oldest first; the age is the items pushed since."""
        born = self._pool[3].tolist()
        return {"waiting": [[*item, self._pushed - 1 - born[k]] for k, item in enumerate(self._items)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Packer`. Raises `ConfigError` for items that do not fit, and where as many wait as close a row."""
        if len(state["waiting"]) >= self._pool.shape[1]:
            raise ConfigError(
                f"{len(state['waiting'])} items wait in the state: raise waiting={self._pool.shape[1]} above that"
            )
        self._items, self._pushed = [], 0
        for *item, age in state["waiting"]:
            self._add(Item(*item), -1 - age)

    def _add(self, item: Item, born: int) -> None:
        if not (1 <= item.num_tokens <= self._seq_len and 1 <= item.num_slots <= self._max_images):
            raise ConfigError(f"{item} does not fit a row of {self._seq_len} tokens and {self._max_images} slots")
        self._pool[:, len(self._items)] = item.num_tokens, item.num_slots, self._table[item.num_tokens], born
        self._items.append(item)

    def _close(self, due: bool) -> Row:
        from patchpack.plan.packing import _kernels_lookahead as kernels  # numba costs 0.15 s to import

        count, taken = len(self._items), self._scratch[-1]
        kernels.choose(self._pool, count, due, self._seq_len, self._max_images, NEAR, *self._scratch)
        kernels.remove(self._pool, count, taken)
        gone = taken[:count].tolist()
        row = Row(tuple(item for item, out in zip(self._items, gone, strict=True) if out))
        self._items = [item for item, out in zip(self._items, gone, strict=True) if not out]
        return row


def pack_stream(
    lengths: Lengths,
    *,
    seq_len: int,
    max_images: int | None = None,
    slots: Lengths | None = None,
    packer: Lookahead | None = None,
) -> Packing:
    """What a `Lookahead` packer makes of a whole list: the rows of pushing it item by item and flushing, in that order.

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``.
        seq_len: tokens per row, at most 2**20.
        max_images: slots per row, None for no limit.
        slots: integers ``[n]``, slots of each item, each in ``1 … max_images``; None for one each.
        packer: the options, ``Lookahead()`` if None.

    Returns:
        `Packing`; every index appears once, and rows are in the order they close.

    Raises:
        ConfigError: a length or a number of slots that no row holds (it names the first), or prices of another seq_len.

    Example:
        >>> packing = pack_stream([6, 7, 4, 3], seq_len=10, packer=Lookahead(waiting=3))
        >>> [packing.row(r).tolist() for r in range(packing.num_rows)]
        [[0, 2], [1, 3]]
    """
    from patchpack.plan.packing import _kernels_lookahead as kernels  # numba costs 0.15 s to import

    options, sizes = packer or Lookahead(), _require_lengths(lengths, seq_len)
    cap = _UNLIMITED if max_images is None else max_images
    require_int("max_images", cap, 1, _UNLIMITED)
    widths = np.ones_like(sizes) if slots is None else _require_slots(slots, len(sizes), cap)
    table = options.table(seq_len)
    items, offsets = np.empty(len(sizes), dtype=np.int64), np.empty(len(sizes) + 1, dtype=np.int64)
    pool, scratch = np.zeros((4, options.waiting), dtype=np.int64), _scratch(options, seq_len)
    num_rows = kernels.stream(sizes, widths, table, options.longest, pool, seq_len, cap, NEAR, items, offsets, *scratch)
    return Packing(items, offsets[: num_rows + 1].copy())


def learn_prices(lengths: Lengths, *, seq_len: int, most_units: int = 128) -> Prices | None:
    """What each length is worth, from a sample of them: a few thousand lengths, a tenth of a second.

    The dual values of the linear program over all possible rows, by column generation with a revised simplex (Gilmore and
    Gomory 1961), made non-decreasing, then rounded to the whole units that keep the bound best. Slots play no part.

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``; more than 256 different ones are rounded up to 256 quantiles.
        seq_len: tokens per row, at most 2**20.
        most_units: units of a row, at most; more cost time in every row. 1 … 128.

    Returns:
        `Prices`; None where they put no bound below 99.5 % on the fill, because there the fullest row is best.

    Raises:
        ConfigError: for an empty sample, and as `pack_stream`.
    """
    sizes = _require_lengths(lengths, seq_len)
    require_int("seq_len", seq_len, 1, MOST_TOKENS)
    require_int("most_units", most_units, 1, 128)
    if not len(sizes):
        raise ConfigError("lengths is empty: prices are learnt from a sample, some thousand lengths")
    kinds = np.unique(sizes)
    if len(kinds) > 256:
        kinds = np.unique(np.quantile(sizes, np.linspace(0, 1, 257), method="inverted_cdf"))
    share = np.bincount(np.searchsorted(kinds, sizes)) / len(sizes)
    values = _dual_values(kinds, share, seq_len)
    bound, units, worth = 0.0, 0, kinds
    for scale in range(1, most_units + 1):
        rounded = np.rint(values * scale)
        richest = max(1, round(_richest(kinds, rounded, seq_len)[0]))
        needed = float(share @ rounded) / richest  # rows per item that any packing needs
        if richest <= most_units and needed > bound * 1.0002:
            bound, units, worth = needed, richest, rounded.astype(np.int64)
    if sizes.mean() > 0.995 * seq_len * bound:
        return None
    return Prices(seq_len, units, tuple((int(kinds[k]), int(worth[k])) for k in np.flatnonzero(np.diff(worth, prepend=0))))


def _dual_values(kinds: Int64, share: npt.NDArray[np.float64], seq_len: int) -> npt.NDArray[np.float64]:
    """Values ``[m]``, rising, of which no row holds more than 1 and the sample nearly the most: within 0.1 % of optimal."""
    inverse = np.diag(1.0 / (seq_len // kinds))  # of the basis: first, rows of one length each
    amount, cost, bound, found = inverse @ share, np.ones(len(kinds)), 0.0, np.zeros(len(kinds))
    for _ in range(40 * len(kinds) + 1000):  # ends long before; a limit, because degenerate steps can cycle
        dual = cost @ inverse
        column, k = np.zeros(len(kinds)), int(np.diff(dual, prepend=0.0).argmin())
        priced = dual[k] - (dual[k - 1] if k else 0.0) >= -1e-9
        if priced:
            dual = np.maximum.accumulate(dual)
            worth, column = _richest(kinds, dual, seq_len)
            if share @ dual > bound * worth:
                bound, found = float(share @ dual) / worth, dual / worth
            if share @ dual <= 1.001 * bound:
                break
        else:  # the place of a longer item may hold a shorter one (dual cut of Valério de Carvalho, 2005)
            column[k] = -1.0
            column[k - 1 : k] = 1.0  # of the shortest, none
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


def _richest(kinds: Int64, values: npt.NDArray[np.float64], seq_len: int) -> tuple[float, npt.NDArray[np.float64]]:
    """Value of the best row and how many of each kind it has; values do not fall, so only where they rise is a kind needed."""
    from patchpack.plan.packing import _kernels_lookahead as kernels

    first = np.flatnonzero(np.diff(values, prepend=0.0) > 1e-9)
    row, copies = np.zeros(len(first), dtype=np.int64), np.zeros(len(kinds))
    best, last = np.empty(seq_len + 1), np.empty(seq_len + 1, dtype=np.int64)
    value = kernels.richest(kinds[first], values[first], best, last, row)
    copies[first] = row
    return float(value), copies


def _scratch(options: Lookahead, seq_len: int) -> tuple[npt.NDArray[Any], ...]:
    """Working memory of `choose`, in its order; pages that are never touched cost nothing."""
    places, units = options.waiting + 1, 0 if options.prices is None else options.prices.units
    return (
        np.empty((places, LAYERS, seq_len // 64 + 1), dtype=np.uint64),
        np.empty((places, units + 1), dtype=np.int32),
        *np.empty((2, units + 1), dtype=np.int64),
        np.empty(options.waiting, dtype=np.int64),
        np.empty(options.waiting, dtype=np.bool_),
    )
