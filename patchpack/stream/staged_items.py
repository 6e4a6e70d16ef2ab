"""A torch dataset of the batches of a stage, for a `DataLoader` of the user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from patchpack.batch.packed import PackedBatch
from patchpack.stream.sources.shares import Share


class StagedItems(IterableDataset[PackedBatch[np.ndarray]]):
    """A torch dataset of the batches that a stage makes of an iterable. Each worker gets a share of the items.

    Args:
        stage: a function from items to batches, see `patchpack.Pack.over`.
        items: the iterable. An `IterableDataset` divides itself among workers.
    """

    def __init__(self, stage: Callable[[Iterable[Any]], Iterator[PackedBatch[np.ndarray]]], items: Iterable[Any]) -> None:
        self._stage, self._items = stage, items

    def __iter__(self) -> Iterator[PackedBatch[np.ndarray]]:
        """Yield the batches of this process."""
        worker = get_worker_info()
        if worker is None or isinstance(self._items, IterableDataset):
            return self._stage(self._items)
        return self._stage(Share(self._items, worker.id, worker.num_workers))
