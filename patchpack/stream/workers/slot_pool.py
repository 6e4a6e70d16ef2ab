"""Shared memory that worker processes paint into again and again. Only the number of a slot is sent between processes.

A shared tensor that is made for every batch has new pages in both processes, and mapping them costs as much as writing them.
The pages of a pool stay mapped.

Only the parent assigns slots, each with a plan. It gets a slot back when no object in its process refers to the slot's memory
anymore. No lock is shared, so a killed worker leaves no lock held. The memory has no name that could outlive the processes.
"""

from __future__ import annotations

import itertools
import mmap
from weakref import WeakValueDictionary, finalize

import numpy as np
import numpy.typing as npt
import torch

from patchpack._foreign.torch import shared_zeros
from patchpack.errors import ConfigError
from patchpack.plan.recipe import Recipe
from patchpack.types import Grid

MORE_ROOM = (
    "enlarge /dev/shm (docker run --shm-size=2g), use fewer workers, rows or prefetched batches (prefetch_factor), or threads"
)
SPARE = 3  # batches beyond those in flight: one that arrives, the current one, the previous one that is released next

_numbers = itertools.count()
_pools: WeakValueDictionary[int, SlotPool] = WeakValueDictionary()  # of this process: an arriving slot names its pool


class SlotPool:
    """A pool of slots in shared memory. The parent makes it. A worker, forked or spawned, has only the memory.

    Args:
        num_slots: number of batches that it holds.
        slot_bytes: bytes of a batch, see `slot_bytes_of`.
    """

    def __init__(self, num_slots: int, slot_bytes: int) -> None:
        self._stride = _whole_pages(slot_bytes)
        self._memory = shared_bytes(num_slots * self._stride)
        self._number = next(_numbers)
        # the slot that was returned last is used first: its pages are in the cache, and unneeded slots never get pages
        self._free = list(range(num_slots))
        self._given: set[int] = set()
        _pools[self._number] = self

    def __getstate__(self) -> dict[str, object]:
        return {"_stride": self._stride, "_memory": self._memory, "_number": self._number}

    def take(self) -> int | None:
        """Take a slot to paint one batch into. Return None if all are in use: the batch then gets memory of its own."""
        try:
            slot = self._free.pop()
        except IndexError:
            return None
        self._given.add(slot)
        return slot

    def recall(self) -> None:
        """Recall slots that were assigned and did not arrive. Call it only when no worker paints into this pool anymore."""
        while self._given:
            self._free.append(self._given.pop())

    def slot(self, number: int) -> Slot:
        """Return the memory of a slot, in a worker. It holds the bytes of its last batch."""
        return Slot(self._number, number, self._bytes(number, self._stride))

    def arrived(self, number: int, num_bytes: int) -> torch.Tensor:
        """Return the first bytes of a slot as a tensor, in the parent: uint8 ``[num_bytes]``, empty if the slot was recalled.

        The slot is free again when the tensor's storage ends, with the last tensor, view or numpy array of any part of it. (A
        process forked from this one sees the same memory and holds no slot.)
        """
        try:
            self._given.remove(number)  # once: a slot is never free twice
        except KeyError:
            return torch.empty(0, dtype=torch.uint8)
        held = self._bytes(number, num_bytes)
        # torch keeps this array as long as the storage exists; appending to a list needs no lock, in any thread
        finalize(held, self._free.append, number).atexit = False
        return torch.from_numpy(held)

    def _bytes(self, number: int, num_bytes: int) -> npt.NDArray[np.uint8]:
        start = number * self._stride
        view: npt.NDArray[np.uint8] = self._memory.numpy()[start : start + num_bytes]
        return view


class Slot:
    """A slot in the worker that paints into it. Pickled to the parent, it arrives as a tensor.

    Args:
        pool: number of its pool.
        number: number of the slot in the pool.
        memory: uint8 array of all its bytes.

    Attributes:
        memory: uint8 array of all its bytes.
        num_bytes: number of bytes that are sent.
    """

    def __init__(self, pool: int, number: int, memory: npt.NDArray[np.uint8]) -> None:
        self._pool, self._number = pool, number
        self.memory, self.num_bytes = memory, memory.size

    def __reduce__(self) -> tuple[object, ...]:
        return _arrive, (self._pool, self._number, self.num_bytes)


def _arrive(pool: int, number: int, num_bytes: int) -> torch.Tensor:
    # a pool exists as long as its iteration; a batch that arrives later is not used
    found = _pools.get(pool)
    return torch.empty(0, dtype=torch.uint8) if found is None else found.arrived(number, num_bytes)


def slot_bytes_of(recipe: Recipe, text_len: int | None = None) -> int:
    """Return the most bytes that a batch takes, in whole pages, with one number as the target of every image.

    Larger targets are sent beside the slot.

    Args:
        recipe: of the batches.
        text_len: text tokens per row, None without texts.
    """
    scheme = recipe.positions(Grid(1, 1))
    tubelet, clips = (1, 0) if recipe.video is None else (recipe.video.tubelet, 1)
    images = 8 + 8 + 1 + 4 + 8 + 4 * clips  # grid, size, mask, sample, target, times
    tokens = (clips + scheme.shape[1]) * scheme.itemsize + 4  # position, segment
    pixels = 3 * tubelet * np.dtype(recipe.dtype).itemsize
    row = max(recipe.row_len(p) * (p * p * pixels + tokens) for p in recipe.patch_sizes)
    text = 8 * (text_len or 0)  # id, segment
    return _whole_pages(
        recipe.rows_per_batch * (row + text + recipe.max_images * images + 4) + 1024
    )  # norm, and alignment of arrays


def _whole_pages(num_bytes: int) -> int:
    return -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def shared_bytes(num_bytes: int) -> torch.Tensor:
    """Return zeros that other processes can see, uint8 ``[num_bytes]``. No page is touched.

    Raises:
        ConfigError: there is not enough shared memory.
    """
    try:
        return shared_zeros(num_bytes)
    except RuntimeError as error:
        raise ConfigError(f"shared memory has no {num_bytes / (1 << 20):.1f} MiB free ({error}): {MORE_ROOM}") from None
