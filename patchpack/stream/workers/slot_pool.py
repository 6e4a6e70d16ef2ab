"""A pool of slots: pieces of shared memory that workers paint batches into again and again. Only slot numbers are sent.

If a shared tensor were made for every batch, both processes would map new memory pages. Mapping pages costs as much as writing
them. The pages of a pool stay mapped.

Only the parent process assigns slots, each together with a plan. A slot is free again when no object in the parent refers to
its memory anymore. No lock is shared, so a killed worker leaves no lock held. The memory has no name that could outlive the
processes.
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
    """A pool of slots in shared memory. The parent makes the pool. A worker, forked or spawned, has only the pool's memory.

    Args:
        num_slots: number of slots, each for one batch.
        slot_bytes: size of a slot in bytes, see `slot_bytes_of`.
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
        """Take a free slot to paint one batch into. Return None if all slots are in use. The batch then gets new memory."""
        try:
            slot = self._free.pop()
        except IndexError:
            return None
        self._given.add(slot)
        return slot

    def recall(self) -> None:
        """Free the slots that were assigned and whose batch did not arrive.

        Call this only when no worker paints into the pool anymore.
        """
        while self._given:
            self._free.append(self._given.pop())

    def slot(self, number: int) -> Slot:
        """Return the memory of a slot, in a worker. The memory still holds the bytes of the slot's last batch."""
        return Slot(self._number, number, self._bytes(number, self._stride))

    def arrived(self, number: int, num_bytes: int) -> torch.Tensor:
        """Return the first `num_bytes` bytes of a slot, in the parent, as a uint8 tensor. It is empty if the slot was recalled.

        The slot is free again when the last tensor, view or numpy array of its memory is deleted. (A process forked from the
        parent sees this memory too, but does not keep a slot from being freed.)
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
    """A slot as a worker has it, to paint a batch into. When the worker sends the slot, the parent receives a tensor.

    Args:
        pool: number of the slot's pool.
        number: number of the slot in the pool.
        memory: uint8 array of all bytes of the slot.

    Attributes:
        memory: uint8 array of all bytes of the slot.
        num_bytes: size of the batch in the slot, in bytes. The parent gets only these bytes.
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
    """Return the largest number of bytes that a batch takes, rounded up to whole pages.

    A target counts as one number per image. Larger targets are sent outside the slot.

    Args:
        recipe: recipe of the batches.
        text_len: number of text tokens per row. Default None: no texts.
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
    """Return zeros that other processes can see, uint8 ``[num_bytes]``. Pages take no memory before they are written.

    Raises:
        ConfigError: there is not enough shared memory.
    """
    try:
        return shared_zeros(num_bytes)
    except RuntimeError as error:
        raise ConfigError(f"shared memory has no {num_bytes / (1 << 20):.1f} MiB free ({error}): {MORE_ROOM}") from None
