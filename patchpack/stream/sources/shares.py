"""The division of an iterable among several readers. Each reader takes every num_shares-th item."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from patchpack.errors import ConfigError
from patchpack.stream.sample.source import tell_epoch


class Share(Iterable[Any]):
    """The items of an iterable at positions `number`, ``number + num_shares``, ...

    If the iterable raises an error for an item, the item still counts as a position. Only the share of this position raises the
    error.

    Args:
        items: the iterable, or a map-style dataset.
        number: number of the share, from 0.
        num_shares: number of shares, at least 1.
    """

    def __init__(self, items: Iterable[Any], number: int, num_shares: int) -> None:
        self.items, self.number, self.num_shares = items, number, num_shares

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the iterable, if it has a method `set_epoch`."""
        tell_epoch(self.items, epoch)

    def __iter__(self) -> Iterator[Any]:
        """Iterate from the beginning."""
        return _ShareIterator(iter(in_order(self.items)), self.number, self.num_shares)


class _ShareIterator(Iterator[Any]):
    """An iterator over a share. Unlike a generator it continues after an error."""

    def __init__(self, items: Iterator[Any], number: int, num_shares: int) -> None:
        self._items, self._number, self._num_shares = items, number, num_shares
        self._position = 0

    def __next__(self) -> Any:
        while True:
            mine = self._position % self._num_shares == self._number
            self._position += 1
            try:
                item = next(self._items)
            except StopIteration:
                raise
            except Exception:
                if mine:
                    raise
                continue
            if mine:
                return item


class ByNumber(Iterable[Any]):
    """The items of a dataset with ``dataset[i]`` and ``len(dataset)``, in order.

    Python's own iteration of such an object continues until the dataset raises `IndexError`. Some datasets never raise it.
    """

    def __init__(self, dataset: Any) -> None:
        self.items = dataset

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the dataset, if it has a method `set_epoch`."""
        tell_epoch(self.items, epoch)

    def __iter__(self) -> Iterator[Any]:
        """Iterate from the beginning. An error of an item does not end the iteration."""
        return map(self.items.__getitem__, range(len(self.items)))


def in_order(items: Iterable[Any]) -> Iterable[Any]:
    """Return an iterable of all items, in order.

    Iteration over a map-style dataset stops after ``len(dataset)`` items. Any other iterable is returned unchanged.
    """
    kind = type(items)
    if hasattr(kind, "__iter__") or not (hasattr(kind, "__getitem__") and hasattr(kind, "__len__")):
        return items
    return ByNumber(items)


def origin_of(items: Iterable[Any]) -> Iterable[Any]:
    """Return the user's object that a `Share` or `ByNumber` was made of. Any other object is returned unchanged."""
    while isinstance(items, (Share, ByNumber)):
        items = items.items
    return items


def require_items(items: Any) -> None:
    """Raise `ConfigError` for paths, and for an object that cannot be iterated. Paths are for `patchpack.load`."""
    paths = items if isinstance(items, (list, tuple)) and items else [items]
    if all(isinstance(path, (str, os.PathLike)) for path in paths):
        raise ConfigError(
            f"Pack takes a stream of samples, and {os.fspath(paths[0])!r} is a path: patchpack.load(path, recipe) reads files"
        )
    kind = type(items)
    if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
        raise ConfigError(f"Pack takes a stream of samples, got a {kind.__name__}, which cannot be iterated")
