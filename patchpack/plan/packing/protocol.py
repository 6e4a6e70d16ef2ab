"""The interface of an online packer, which receives items as they arrive and returns rows as they close."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable


class Item(NamedTuple):
    """An item to pack: its id, number of tokens (>= 1) and number of slots (>= 1, default 1)."""

    id: int
    num_tokens: int
    num_slots: int = 1


class Row(NamedTuple):
    """Items that share a row, in slot order."""

    items: tuple[Item, ...]

    @property
    def num_tokens(self) -> int:
        """Number of tokens in this row."""
        return sum(item.num_tokens for item in self.items)

    @property
    def num_slots(self) -> int:
        """Number of slots that the items of this row take."""
        return sum(item.num_slots for item in self.items)


def fewest_tokens(num_tokens: int, packer: object) -> int:
    """Return the fewest tokens that a packer may leave to an item: ``num_tokens - floor(max_cut * num_tokens)``, at least 1."""
    max_cut: float = getattr(packer, "max_cut", 0.0)
    return max(1, num_tokens - int(max_cut * num_tokens))


@runtime_checkable
class Packer(Protocol):
    """A packer. It returns every pushed item in exactly one row, from `push` or from `flush`.

    A packer may have an attribute `max_cut`, a share in [0, 1). Such a packer may return an item with up to
    ``floor(max_cut * num_tokens)`` fewer tokens, so that the row ends exactly full. Without the attribute, items must be
    returned unchanged.
    """

    def push(self, item: Item) -> list[Row]:
        """Take one item and return the rows that were closed by it, in order."""
        ...

    def flush(self) -> list[Row]:
        """Close and return all open rows."""
        ...

    def state_dict(self) -> dict[str, object]:
        """Return the state, JSON-safe: open rows and waiting items."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        ...


class PackerFactory(Protocol):
    """The type of `Recipe.packer`. A factory makes a new packer for each stream, so the recipe stays immutable."""

    def __call__(self, seq_len: int, max_images: int) -> Packer:
        """Return a packer for rows of `seq_len` tokens and `max_images` slots."""
        ...
