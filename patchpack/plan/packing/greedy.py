"""Greedy packers with a bounded number of open rows.

NaViT packs greedily while it makes batches: an image goes into the first open row that has room (2307.06304 appendix A.3).
`FirstFit` is this rule. `NextFit` and `BestFit` are alternatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int
from patchpack.plan.packing.protocol import Item, Packer, Row


class GreedyPacker:
    """A packer that puts each item into one of a limited number of open rows.

    A row closes when its tokens or its slots are full. If no open row has room for an item and `open_rows` rows are open, the
    fullest row is closed (of equally full rows, the oldest). `flush` returns the open rows in order of fill, the fullest first.

    Args:
        seq_len: tokens per row.
        max_images: slots per row.
        open_rows: most rows that are open at a time, >= 1.
        best: True takes the row with the least room that suffices for the item. False takes the oldest row with enough room.
    """

    def __init__(self, seq_len: int, max_images: int, *, open_rows: int, best: bool) -> None:
        self._seq_len, self._max_images, self._open_rows, self._best = seq_len, max_images, open_rows, best
        self._rows: list[_OpenRow] = []

    def push(self, item: Item) -> list[Row]:
        """See `Packer`. Raise `ConfigError` for an item that no row can hold."""
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

    def state_dict(self) -> dict[str, object]:
        """Return ``{"rows": [[[id, num_tokens, num_slots], ...], ...]}``, oldest row first."""
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
    """The factory of NaViT's greedy packer: an item goes into the oldest open row that has room.

    Attributes:
        open_rows: most rows that are open at a time, >= 1. This number limits how far an item moves from arrival order. Default
            16.
    """

    open_rows: int = 16

    def __post_init__(self) -> None:
        _require_open_rows(self.open_rows)

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """See `PackerFactory`."""
        return GreedyPacker(seq_len, max_images, open_rows=self.open_rows, best=False)


@dataclass(frozen=True)
class BestFit:
    """The factory of a packer that puts an item into the fullest open row with room (of equally full rows, the oldest).

    Attributes:
        open_rows: most rows that are open at a time, >= 1. Default 16.
    """

    open_rows: int = 16

    def __post_init__(self) -> None:
        _require_open_rows(self.open_rows)

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """See `PackerFactory`."""
        return GreedyPacker(seq_len, max_images, open_rows=self.open_rows, best=True)


@dataclass(frozen=True)
class NextFit:
    """The factory of a packer in strict arrival order: one open row, closed by the first item that does not fit."""

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """See `PackerFactory`."""
        return GreedyPacker(seq_len, max_images, open_rows=1, best=False)


def _require_open_rows(open_rows: int) -> None:
    require_int("open_rows", open_rows, 1, 1 << 30)
