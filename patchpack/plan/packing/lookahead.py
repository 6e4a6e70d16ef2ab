"""A packer that makes rows from a limited pool of waiting items: close to arrival order, and as full as the pool allows.

Each row is the fullest row that contains the oldest item. If the list has few different lengths, the fullest row may leave
items that fit later rows badly. Such a list can have a price for each length, its worth in a row (see `prices`). Each row is
then the row of the highest total price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from patchpack._arrays import BoolArray, Int32Array, Int64Array, UInt64Array
from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, require_int
from patchpack.plan.packing.lengths import Lengths, Packing, require_lengths, require_slots
from patchpack.plan.packing.prices import MOST_TOKENS, Prices
from patchpack.plan.packing.protocol import Item, Packer, Row, fewest_tokens

LEAST_WAITING, MOST_WAITING = 64, 1 << 12
NEAR, LAYERS = 6, 33  # room, in mean lengths or slots, at which the search for a row's last items begins; number of slot steps
_UNLIMITED = 1 << 30


@dataclass(frozen=True)
class Lookahead:
    """The factory of a packer with a pool of waiting items. A row is made and closed when the pool is full, or an item is due.

    Without prices a row begins with the oldest items that fit, until room for about 6 items of mean length is left. Then the
    packer searches the pool for the items that fill the row best (a subset sum). Among equally good choices it prefers older
    items. The oldest item is in every row. If items take more than two slots on average (text tokens are counted as slots), the
    search also begins when 6 times this mean number of slots is left. The search then divides the remaining slots into 32
    steps, and counts the slots of an item in steps, rounded up.

    With prices each row has the highest total price. Among equal rows the packer prefers items whose price many waiting items
    have, and within a price the oldest items.

    No item waits for more than `longest_wait` later items. When the oldest item reaches this age, the next row contains it.

    A row is filled from the pool only, so `waiting` should be several times the number of images in a row: three times if most
    lengths are small, sixteen times if most are large.

    With `max_cut` the longest item of a row may lose tokens, so that the row ends exactly full. NaViT 2307.06304 appendix A.3
    mentions a similar step. An item is cut only if it loses fewer tokens than would otherwise stay empty in the row.

    Attributes:
        waiting: number of items in the pool, 1 … 4096. The push that fills the pool closes a row. Default None: the number of
            slots of a row, within 64 … 4096, or 64 if slots are unlimited.
        longest_wait: largest number of items that may be pushed between an item and the closing of its row, >= 0. Default None:
            8 times the number of items in the pool.
        prices: result of `learn_prices`, for lists with few different lengths (such as images of one camera at their native
            size). Default None, each row is the fullest row.
        max_cut: share of an item's tokens that may be cut off, in [0, 1). An item of n tokens keeps at least
            ``n − floor(max_cut * n)`` tokens, and at least 1. At most one item of a row is cut. Default 0.
    """

    waiting: int | None = None
    longest_wait: int | None = None
    prices: Prices | None = None
    max_cut: float = 0.0

    def __post_init__(self) -> None:
        if self.waiting is not None:
            require_int("waiting", self.waiting, 1, MOST_WAITING)
        number = isinstance(self.max_cut, (int, float)) and not isinstance(self.max_cut, bool)
        if not number or not 0 <= self.max_cut < 1:
            raise ConfigError(f"max_cut must be a number in [0, 1), the share of an item's tokens, got {self.max_cut!r}")
        if self.longest_wait is not None:
            require_int("longest_wait", self.longest_wait, 0, 1 << 30)
        if not (self.prices is None or isinstance(self.prices, Prices)):
            raise ConfigError(f"prices must be Prices or None, got {self.prices!r}: learn_prices makes them from lengths")

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """See `PackerFactory`. Raise `ConfigError` for prices of another `seq_len`, and for a `seq_len` above 2**20."""
        require_int("max_images", max_images, 1, _UNLIMITED)
        return LookaheadPacker(self, seq_len, max_images)

    def limits(self, max_images: int | None) -> tuple[int, int]:
        """Return the size of the pool and the longest wait, in items, for rows of `max_images` slots (None: no limit)."""
        slots = 1 if max_images is None else max_images
        waiting = min(max(slots, LEAST_WAITING), MOST_WAITING) if self.waiting is None else self.waiting
        return waiting, 8 * waiting if self.longest_wait is None else self.longest_wait

    def table(self, seq_len: int) -> Int64:
        """Return the worth of each length, int64 ``[seq_len + 1]``. Without prices all are 0."""
        require_int("seq_len", seq_len, 1, MOST_TOKENS)
        if self.prices is None:
            return np.zeros(seq_len + 1, dtype=np.int64)
        if self.prices.seq_len != seq_len:
            raise ConfigError(
                f"the prices are for seq_len={self.prices.seq_len}, but rows have {seq_len}: learn prices for {seq_len}"
            )
        return self.prices.table()


class LookaheadPacker:
    """The packer that `Lookahead` makes.

    Args:
        options: the `Lookahead` with the size of the pool, the longest wait, the prices and `max_cut`.
        seq_len: tokens per row, 1 … 2**20.
        max_images: slots per row, 1 … 2**30. 2**30 means no limit.
    """

    def __init__(self, options: Lookahead, seq_len: int, max_images: int) -> None:
        self._seq_len, self._max_images, self.max_cut = seq_len, max_images, float(options.max_cut)
        waiting, self._longest = options.limits(None if max_images == _UNLIMITED else max_images)
        self._table = options.table(seq_len)
        self._pool = np.zeros((4, waiting), dtype=np.int64)
        self._scratch = _scratch(options, waiting, seq_len)
        self._items: list[Item] = []
        self._pushed = 0

    def push(self, item: Item) -> list[Row]:
        """See `Packer`. Close at most one row. Raise `ConfigError` for an item that no row can hold."""
        self._add(item, self._pushed)
        self._pushed += 1
        due = self._pushed - 1 - int(self._pool[3, 0]) >= self._longest
        return [self._close(due)] if due or len(self._items) == self._pool.shape[1] else []

    def flush(self) -> list[Row]:
        """See `Packer`. Each row contains the oldest item that is left."""
        return [self._close(True) for _ in iter(lambda: len(self._items), 0)]

    def state_dict(self) -> dict[str, object]:
        """Return ``{"waiting": [[id, num_tokens, num_slots, age], ...]}``, oldest first.

        The age of an item is the number of items that were pushed after it.
        """
        born = self._pool[3].tolist()
        return {"waiting": [[*item, self._pushed - 1 - born[k]] for k, item in enumerate(self._items)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Packer`. Raise `ConfigError` if an item does not fit a row, or if there are too many items for the pool."""
        if len(state["waiting"]) >= self._pool.shape[1]:
            raise ConfigError(
                f"the state has {len(state['waiting'])} waiting items, more than waiting={self._pool.shape[1]} allows: raise it"
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
        kernels.choose(self._pool, count, due, self._seq_len, self._max_images, NEAR, self.max_cut, *self._scratch)
        gone, tokens = taken[:count].tolist(), self._pool[0, :count].tolist()
        kernels.remove(self._pool, count, taken)
        # an item that was not cut comes back unchanged
        whole = zip(self._items, gone, tokens, strict=True)
        row = tuple(item if n == item.num_tokens else item._replace(num_tokens=n) for item, out, n in whole if out)
        self._items = [item for item, out in zip(self._items, gone, strict=True) if not out]
        return Row(row)


def pack_stream(
    lengths: Lengths,
    *,
    seq_len: int,
    max_images: int | None = None,
    slots: Lengths | None = None,
    packer: Lookahead | None = None,
) -> Packing:
    """Pack a whole list as a `Lookahead` packer does: push the items one by one, then flush.

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``.
        seq_len: tokens per row, at most 2**20.
        max_images: slots per row. Default None, no limit.
        slots: integers ``[n]``, slots of each item, each in ``1 … max_images``. Default None, one slot per item.
        packer: options of the packer. Default None, ``Lookahead()``.

    Returns:
        `Packing`. Every index appears once, and rows are in the order in which they close. With `Lookahead.max_cut`,
        `Packing.cuts` has the number of tokens that are cut off each item.

    Raises:
        ConfigError: a length or a number of slots fits no row (the message names the first), or `packer` has prices for another
            `seq_len`.

    Example:
        >>> packing = pack_stream([6, 7, 4, 3], seq_len=10, packer=Lookahead(waiting=3))
        >>> [packing.row(r).tolist() for r in range(packing.num_rows)]
        [[0, 2], [1, 3]]
    """
    from patchpack.plan.packing import _kernels_lookahead as kernels  # numba costs 0.15 s to import

    options, sizes = packer or Lookahead(), require_lengths(lengths, seq_len)
    cap = _UNLIMITED if max_images is None else max_images
    require_int("max_images", cap, 1, _UNLIMITED)
    widths = np.ones_like(sizes) if slots is None else require_slots(slots, len(sizes), cap)
    table = options.table(seq_len)
    waiting, longest = options.limits(max_images)
    items, offsets = np.empty(len(sizes), dtype=np.int64), np.empty(len(sizes) + 1, dtype=np.int64)
    cuts = np.zeros(len(sizes) if options.max_cut else 0, dtype=np.int64)
    pool, scratch = np.zeros((4, waiting), dtype=np.int64), _scratch(options, waiting, seq_len)
    num_rows = kernels.stream(
        sizes, widths, table, longest, pool, seq_len, cap, NEAR, float(options.max_cut), items, offsets, cuts, *scratch
    )
    return Packing(items, offsets[: num_rows + 1].copy(), cuts if options.max_cut else None)


def _scratch(
    options: Lookahead, waiting: int, seq_len: int
) -> tuple[UInt64Array, Int32Array, Int64Array, Int64Array, Int64Array, BoolArray]:
    """Return the working memory of the kernel `choose`, in the order of its arguments."""
    places, units = waiting + 1, 0 if options.prices is None else options.prices.units
    longest = 2 * seq_len - fewest_tokens(seq_len, options)  # most tokens of a row before an item is cut
    return (
        np.empty((places, LAYERS, longest // 64 + 1), dtype=np.uint64),
        np.empty((places, units + 1), dtype=np.int32),
        *np.empty((2, units + 1), dtype=np.int64),
        np.empty(waiting, dtype=np.int64),
        np.empty(waiting, dtype=np.bool_),
    )
