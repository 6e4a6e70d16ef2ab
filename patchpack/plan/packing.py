"""Lengths to rows under a token budget and a number of slots: greedy, as the items arrive, or all at once.

NaViT packs greedily together with batching: an image goes into the first open row that has room (2307.06304 appendix A.3).
`FirstFit` is that rule with a bounded number of open rows; `NextFit` and `BestFit` stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int


class Item(NamedTuple):
    """Something to pack: a name for it, its tokens (>= 1) and the slots it takes (>= 1)."""

    id: int
    num_tokens: int
    num_slots: int = 1


class Row(NamedTuple):
    """Items that share a row, in slot order."""

    items: tuple[Item, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens in this row."""
        return sum(item.num_tokens for item in self.items)

    @property
    def num_slots(self) -> int:
        """Slots taken in this row."""
        return sum(item.num_slots for item in self.items)


@runtime_checkable
class Packer(Protocol):
    """The one policy with state. Every item pushed comes back in exactly one row, from `push` or from `flush`."""

    def push(self, item: Item) -> list[Row]:
        """Take one item; the rows this closed, in order."""
        ...

    def flush(self) -> list[Row]:
        """Close and return everything still open."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """JSON-safe state: open rows and waiting items."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        ...


class PackerFactory(Protocol):
    """What a recipe holds: makes a fresh packer, so the recipe stays immutable and each stream owns its open rows."""

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """A packer for rows of seq_len tokens and max_images slots."""
        ...


class GreedyPacker:
    """Any-fit packing over a bounded list of open rows, oldest first.

    A row closes when it is full in tokens or slots. When nothing has room and ``open_rows`` are open, the fullest one is
    closed first (the oldest of equals). `flush` returns the open rows fullest first, so what is left is in the last.
    """

    def __init__(self, seq_len: int, max_images: int, *, open_rows: int, best: bool) -> None:
        self._seq_len, self._max_images, self._open_rows, self._best = seq_len, max_images, open_rows, best
        self._rows: list[_OpenRow] = []

    def push(self, item: Item) -> list[Row]:
        """See `Packer`. Raises `ConfigError` for an item that no row can hold."""
        if not (1 <= item.num_tokens <= self._seq_len and 1 <= item.num_slots <= self._max_images):
            raise ConfigError(f"{item} does not fit a row of {self._seq_len} tokens and {self._max_images} slots")
        closed = []
        row = self._find(item)
        if row is None:
            if len(self._rows) == self._open_rows:
                fullest = min(self._rows, key=lambda r: r.room)
                self._rows.remove(fullest)
                closed.append(fullest.close())
            row = _OpenRow(self._seq_len, self._max_images)
            self._rows.append(row)
        row.add(item)
        if row.room == 0 or row.slots == 0:
            self._rows.remove(row)
            closed.append(row.close())
        return closed

    def flush(self) -> list[Row]:
        """See `Packer`."""
        rows = sorted(self._rows, key=lambda r: r.room)
        self._rows = []
        return [row.close() for row in rows]

    def state_dict(self) -> dict[str, Any]:
        """``{"rows": [[[id, num_tokens, num_slots], ...], ...]}``, oldest row first."""
        return {"rows": [[list(item) for item in row.items] for row in self._rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Packer`."""
        self._rows = []
        for items in state["rows"]:
            row = _OpenRow(self._seq_len, self._max_images)
            for item in items:
                row.add(Item(*item))
            self._rows.append(row)

    def _find(self, item: Item) -> _OpenRow | None:
        found = None
        for row in self._rows:
            if row.room >= item.num_tokens and row.slots >= item.num_slots:
                if not self._best:
                    return row
                if found is None or row.room < found.room:
                    found = row
        return found


class _OpenRow:
    __slots__ = ("items", "room", "slots")

    def __init__(self, room: int, slots: int) -> None:
        self.items: list[Item] = []
        self.room, self.slots = room, slots

    def add(self, item: Item) -> None:
        self.items.append(item)
        self.room -= item.num_tokens
        self.slots -= item.num_slots

    def close(self) -> Row:
        return Row(tuple(self.items))


@dataclass(frozen=True)
class FirstFit:
    """NaViT's greedy: the oldest open row that has room.

    Attributes:
        open_rows: rows kept open, the bound on how far a place can be from arrival order.
    """

    open_rows: int = 16

    def __post_init__(self) -> None:
        _require_open_rows(self.open_rows)

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """See `PackerFactory`."""
        return GreedyPacker(seq_len, max_images, open_rows=self.open_rows, best=False)


@dataclass(frozen=True)
class BestFit:
    """The open row that the item leaves fullest; the oldest of equals.

    Attributes:
        open_rows: rows kept open.
    """

    open_rows: int = 16

    def __post_init__(self) -> None:
        _require_open_rows(self.open_rows)

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """See `PackerFactory`."""
        return GreedyPacker(seq_len, max_images, open_rows=self.open_rows, best=True)


@dataclass(frozen=True)
class NextFit:
    """Strict arrival order: one open row, closed by the first item that does not fit."""

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """See `PackerFactory`."""
        return GreedyPacker(seq_len, max_images, open_rows=1, best=False)


class Packing(NamedTuple):
    """Rows as numpy CSR: row r holds ``items[offsets[r]:offsets[r + 1]]``, in arrival order.

    Attributes:
        items: int64 ``[n]``, indices into the lengths.
        offsets: int64 ``[rows + 1]``.
    """

    items: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def row(self, r: int) -> npt.NDArray[np.int64]:
        """Indices of the items in row r."""
        return self.items[self.offsets[r] : self.offsets[r + 1]]


Method = Literal["first_fit", "next_fit", "best_fit"]


def pack_lengths(
    lengths: Sequence[int] | npt.NDArray[Any],
    *,
    seq_len: int,
    max_images: int | None = None,
    method: Method = "first_fit",
) -> Packing:
    """Pack variable-length sequences into rows, in arrival order, with every row left open to the end.

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``.
        seq_len: tokens per row.
        max_images: items per row, None for no limit.
        method: ``first_fit`` (oldest row with room), ``best_fit`` (the row left fullest; of equals the one changed last) or
            ``next_fit`` (newest row or a new one).

    Returns:
        `Packing`; every index appears once.

    Raises:
        ConfigError: a length that is not an integer in ``1 … seq_len`` (it names the first), or a cap below 1.

    Example:
        >>> packing = pack_lengths([4, 6, 5, 2], seq_len=10)
        >>> [packing.row(r).tolist() for r in range(packing.num_rows)]
        [[0, 1], [2, 3]]
    """
    from patchpack.plan import _kernels  # numba costs 0.15 s to import: only when rows are made

    sizes = _require_lengths(lengths, seq_len)
    if max_images is not None:
        require_int("max_images", max_images, 1, 1 << 30)
    cap = len(sizes) + 1 if max_images is None else max_images
    row_of = np.empty(len(sizes), dtype=np.int64)
    if method == "first_fit":
        leaves = 1 << max(0, len(sizes) - 1).bit_length()
        tree = np.full(2 * leaves, seq_len, dtype=np.int64)
        num_rows = _kernels.first_fit(sizes, seq_len, cap, tree, np.zeros(leaves, dtype=np.int64), row_of)
    elif method == "best_fit":
        top = np.full(seq_len + 1, -1, dtype=np.int64)
        links, used = np.empty_like(row_of), np.empty_like(row_of)
        num_rows = _kernels.best_fit(sizes, cap, top, links, used, row_of)
    elif method == "next_fit":
        num_rows = _kernels.next_fit(sizes, seq_len, cap, row_of)
    else:
        raise ConfigError(f"unknown method {method!r}: choose first_fit, best_fit or next_fit")
    counts = np.bincount(row_of, minlength=num_rows)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Packing(np.argsort(row_of, kind="stable").astype(np.int64), offsets)


def _require_lengths(lengths: Any, seq_len: int) -> npt.NDArray[np.int64]:
    array = np.asarray(lengths)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ConfigError(f"lengths must be a flat sequence of integers, got {array.dtype} of shape {array.shape}")
    require_int("seq_len", seq_len, 1, 1 << 30)
    bad = np.flatnonzero((array < 1) | (array > seq_len))
    if bad.size:
        raise ConfigError(
            f"lengths[{bad[0]}] = {array[bad[0]]} is not in 1 … seq_len={seq_len} ({bad.size} such lengths): "
            f"raise seq_len or shorten them"
        )
    return array.astype(np.int64)


def _require_open_rows(open_rows: int) -> None:
    require_int("open_rows", open_rows, 1, 1 << 30)
