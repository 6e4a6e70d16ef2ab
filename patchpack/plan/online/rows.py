"""The rows of one epoch. Samples wait in the packer's open rows, then in closed rows until a batch takes the row."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from patchpack.errors import PackingError
from patchpack.plan.online.budget import Budget
from patchpack.plan.online.decisions import SampleDecision
from patchpack.plan.packing import Item, PackerFactory, Row, fewest_tokens

_RELIEF = 0.75  # if the lookahead is exceeded, it is reduced to this share, so that the next image does not exceed it again


class Rows:
    """A packer together with its waiting samples and its closed rows. Each row that the packer returns is checked.

    Args:
        factory: factory of the packer.
        seq_len: tokens per row.
        budget: capacity of a row for images and text.
        lookahead: largest number of samples that may wait in open rows. If more wait, the fullest rows are closed, and the
            other samples are packed again. Default None, no limit besides the packer's own.
        lookahead_bytes: largest number of bytes (`Header.num_bytes`) that the samples in open rows may hold. If they hold
            more, the fullest rows are closed, and the other samples are packed again. Default None, no limit.
    """

    def __init__(
        self,
        factory: PackerFactory,
        seq_len: int,
        budget: Budget,
        lookahead: int | None = None,
        lookahead_bytes: int | None = None,
    ) -> None:
        self._factory, self._seq_len, self._budget = factory, seq_len, budget
        self._lookahead, self._lookahead_bytes = lookahead, lookahead_bytes
        self._packer = budget.packer(factory, seq_len)
        self._waiting: dict[int, SampleDecision] = {}  # by position, open and closed
        self._closed: deque[Row] = deque()
        self._queued: set[int] = set()  # positions in the closed rows
        self._open_bytes = 0

    def __len__(self) -> int:
        """Return the number of closed rows that no batch has taken."""
        return len(self._closed)

    def push(self, decision: SampleDecision) -> None:
        """Give the packer a sample.

        Raises:
            PackingError: the packer broke its contract.
        """
        self._waiting[decision.position] = decision
        self._open_bytes += decision.num_bytes
        if closed := self._packer.push(self._item(decision)):
            self._close(closed)
        if self._exceeds(1.0):
            self._close_fullest()

    def flush(self) -> None:
        """Close all open rows.

        Raises:
            PackingError: the packer broke its contract, or did not return an item.
        """
        self._close(self._packer.flush())
        lost = [decision.header.key for decision in self.waiting() if decision.position not in self._queued]
        if lost:
            raise PackingError(f"{self._packer!r} did not return {len(lost)} items at flush, the first is {lost[0]}")

    def take(self, count: int) -> list[list[SampleDecision]]:
        """Remove and return the `count` rows that closed first, or all closed rows if there are fewer."""
        rows = [self._closed.popleft() for _ in range(min(count, len(self._closed)))]
        self._queued.difference_update(item.id for row in rows for item in row.items)
        return [[self._waiting.pop(item.id).shortened(item.num_tokens) for item in row.items] for row in rows]

    def waiting(self) -> list[SampleDecision]:
        """Return every sample in open and in closed rows, in arrival order."""
        return [self._waiting[position] for position in sorted(self._waiting)]

    def state_dict(self) -> dict[str, object]:
        """Return the state as JSON-safe values. Samples are given by their positions.

        The state is ``{"packer": ..., "closed": [[[position, tokens, slots], ...], ...]}``.
        """
        return {"packer": self._packer.state_dict(), "closed": [[list(item) for item in row.items] for row in self._closed]}

    def load_state_dict(self, state: dict[str, Any], decisions: Sequence[SampleDecision]) -> None:
        """Continue from a state of `state_dict`. `decisions` holds the decisions about all waiting samples, before any cut."""
        self._packer.load_state_dict(state["packer"])
        self._waiting = {decision.position: decision for decision in decisions}
        self._closed = deque(Row(tuple(Item(*item) for item in items)) for items in state["closed"])
        self._queued = {item.id for row in self._closed for item in row.items}
        self._open_bytes = sum(decision.num_bytes for decision in decisions if decision.position not in self._queued)

    def _close(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._check(row)
            self._closed.append(row)
            self._queued.update(item.id for item in row.items)
            self._open_bytes -= sum(self._waiting[item.id].num_bytes for item in row.items)

    def _check(self, row: Row) -> None:
        ids = [item.id for item in row.items]
        if not ids or len(set(ids)) != len(ids) or any(i not in self._waiting or i in self._queued for i in ids):
            raise PackingError(f"{self._packer!r} closed a row that is empty or has repeated or unknown items: {ids}")
        for item in row.items:
            given = self._waiting[item.id].num_tokens
            if item.num_tokens != given and not (least := fewest_tokens(given, self._packer)) <= item.num_tokens < given:
                raise PackingError(
                    f"{self._packer!r} made {item.num_tokens} of the {given} tokens of an item: it must keep {least} … {given}"
                )
        tokens, images = row.num_tokens, sum(self._waiting[item.id].num_images for item in row.items)
        text, limit = sum(self._waiting[item.id].num_text for item in row.items), self._budget
        if tokens > self._seq_len or images > limit.max_images:
            raise PackingError(
                f"{self._packer!r} put {tokens} tokens and {images} images in a row of seq_len={self._seq_len} and "
                f"max_images={limit.max_images}"
            )
        if limit.text_len is not None and text > limit.text_len:
            raise PackingError(f"{self._packer!r} put {text} text tokens in a row of text_len={limit.text_len}")

    def _exceeds(self, share: float) -> bool:
        if self._lookahead is not None and len(self._waiting) - len(self._queued) > share * self._lookahead:
            return True
        return self._lookahead_bytes is not None and self._open_bytes > share * self._lookahead_bytes

    def _close_fullest(self) -> None:
        rows = deque(sorted(self._packer.flush(), key=lambda row: row.num_tokens, reverse=True))
        while rows and self._exceeds(_RELIEF):
            self._close([rows.popleft()])
        for row in rows:
            self._check(row)
        self._packer = self._budget.packer(self._factory, self._seq_len)
        for position in sorted(item.id for row in rows for item in row.items):
            self._close(self._packer.push(self._item(self._waiting[position])))

    def _item(self, decision: SampleDecision) -> Item:
        return Item(decision.position, decision.num_tokens, self._budget.charge(decision.num_images, decision.num_text))
