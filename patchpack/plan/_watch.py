"""A packer factory that measures how long items wait. It wraps the packers of another factory."""

from __future__ import annotations

from typing import Any

from patchpack.plan.packing import Item, Packer, PackerFactory, Row


class Watch:
    """A packer factory that records how long items wait. Its packers behave like the packers of the wrapped factory."""

    def __init__(self, factory: PackerFactory) -> None:
        self._factory = factory
        self.waits: dict[int, int] = {}  # by position; an item that is packed again goes on waiting
        self.at_end: set[int] = set()  # positions in rows that were open when the epoch ended
        self.now = 0

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        return _Watched(self._factory(seq_len, max_images), self)


class _Watched:
    def __init__(self, packer: Packer, watch: Watch) -> None:
        self._packer, self._watch = packer, watch

    def __repr__(self) -> str:
        return repr(self._packer)

    def __getattr__(self, name: str) -> Any:  # attributes that a packer has beyond the protocol
        return getattr(self._packer, name)

    def push(self, item: Item) -> list[Row]:
        self._watch.now = max(self._watch.now, item.id)
        self._watch.at_end.discard(item.id)
        return self._note(self._packer.push(item))

    def flush(self) -> list[Row]:
        rows = self._note(self._packer.flush())
        self._watch.at_end.update(item.id for row in rows for item in row.items)
        return rows

    def _note(self, rows: list[Row]) -> list[Row]:
        self._watch.waits.update((item.id, self._watch.now - item.id) for row in rows for item in row.items)
        return rows
