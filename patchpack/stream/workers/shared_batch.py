"""A batch that is sent between two processes, with all of its arrays in one piece of shared memory.

Every tensor that is sent costs the training thread a file descriptor and about 0.1 ms, and a batch has ten tensors. A slot is a
piece of shared memory that is used for one batch after another. Only the number of the slot is sent, which costs neither a file
descriptor nor this time. If no slot is free, the batch gets one new tensor for all of its arrays.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from patchpack._foreign.torch import collate_with
from patchpack.batch._types import Array, ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError
from patchpack.stream.workers.slot_pool import MORE_ROOM, Slot, shared_bytes

_SHARED = "/dev/shm"  # Linux's folder of shared memory
_ALIGNMENT = 64  # bytes: a view of another dtype needs at least its own size, and vector units prefer more


class Place(NamedTuple):
    """The location of an array in the shared memory."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int


class SharedBatch(NamedTuple):
    """A batch in the form that a worker sends. Torch's loader traverses and pins it like any tuple.

    Attributes:
        shared: uint8 ``[num_bytes]``, the memory of all arrays, the patches first. In a worker it is a `Slot`, which the parent
            receives as this tensor.
        batch: a `PackedBatch` with a `Place` instead of each array. An array that does not fit into the slot is sent unchanged.
    """

    shared: torch.Tensor | Slot
    batch: PackedBatch[Place]


def wrap(blank: PackedBatch[np.ndarray], slot: Slot | None = None) -> tuple[SharedBatch, PackedBatch[np.ndarray]]:
    """Move a blank batch of numpy arrays to shared memory.

    Args:
        blank: the blank batch. Its patches are not copied.
        slot: the slot to use. Default None: new shared memory.

    Returns:
        Two values: the shared batch, and the blank batch after its arrays were moved to shared memory. Painting into this blank
        batch needs no further copy.
    """
    allocator = _Allocator(None if slot is None else slot.memory.size)
    places: PackedBatch[Place] = PackedBatch._make(map(allocator.place, blank))
    shared: torch.Tensor | Slot
    if slot is None:
        shared = shared_bytes(allocator.end)
        memory = shared.numpy()
    else:
        shared, memory = slot, slot.memory
        slot.num_bytes = min(allocator.end, memory.size)
    inside: PackedBatch[np.ndarray] = _filled(
        places, lambda p: memory[p.start : p.start + p.num_bytes].view(p.dtype).reshape(p.shape)
    )
    for mine, given in zip(inside[1:], blank[1:], strict=True):
        _copy(mine, given)
    return SharedBatch(shared, places), inside


def unwrap(sent: SharedBatch) -> PackedBatch:
    """Return the tensors of a shared batch as a `PackedBatch`.

    The patches are a view of the shared memory. The other tensors, a few per cent of the bytes, are copied. So code that keeps
    the targets of an epoch does not keep the memory of the pixels.
    """
    shared, places = sent
    assert isinstance(shared, torch.Tensor)
    first = _aligned(places.patches.num_bytes)
    rest = shared[first:].clone()
    if shared.is_pinned():
        rest = rest.pin_memory()

    def view(place: Place) -> torch.Tensor:
        source, start = (shared, place.start) if place.start < first else (rest, place.start - first)
        dtype = torch.from_numpy(np.empty(0, place.dtype)).dtype
        return source[start : start + place.num_bytes].view(dtype).reshape(place.shape)

    return _filled(places, view)


def as_sent(sent: Any) -> Any:
    """Return a batch of tensors, or a `SharedBatch` unchanged. This is the collate function of a DataLoader."""
    return sent if isinstance(sent, SharedBatch) else as_tensors(sent)


def as_tensors(sent: PackedBatch[ArrayT]) -> PackedBatch:
    """Convert the arrays of a batch to tensors. Torch's own function would visit every key and every counter too."""
    batch: PackedBatch = PackedBatch._make(
        torch.from_numpy(field) if isinstance(field, np.ndarray) else field for field in sent
    )
    if isinstance(batch.targets, dict):
        of_labels = batch.targets.items()
        return batch._replace(targets={name: v if isinstance(v, list) else torch.as_tensor(v) for name, v in of_labels})
    return batch


def _refuse_to_stack(batches: list[PackedBatch[np.ndarray]], **_: object) -> NoReturn:
    """Raise `ConfigError`. Torch calls this function if a DataLoader was made without ``batch_size=None``."""
    raise ConfigError(
        f"this DataLoader would stack {len(batches)} batches, which are packed already: pass batch_size=None to DataLoader"
    )


collate_with(PackedBatch, _refuse_to_stack)


def require_room(num_bytes: int, batches: int) -> None:
    """Raise `ConfigError` if `batches` batches of `num_bytes` bytes each do not fit into the free shared memory.

    If shared memory runs out, the system kills the worker that writes to it, or workers of other loaders. Torch's error does
    not give this reason.
    """
    if not os.path.isdir(_SHARED):
        return
    free = shutil.disk_usage(_SHARED).free
    if free < num_bytes * batches:
        raise ConfigError(
            f"{_SHARED} has {free >> 20} MiB free, but {batches} batches of {num_bytes / (1 << 20):.1f} MiB may be in flight: "
            f"{MORE_ROOM}"
        )


def share(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in memory that other processes see."""
    shared: torch.Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return shared


class _Allocator:
    """An allocator that gives each array the next free position in a piece of memory, if enough memory is left."""

    def __init__(self, room: int | None) -> None:
        self.end, self._room = 0, room

    def place(self, array: object) -> object:
        if isinstance(array, dict):
            return {name: self.place(entry) for name, entry in array.items()}
        if not isinstance(array, np.ndarray) or (self._room is not None and self.end + array.nbytes > self._room):
            return array
        start, self.end = self.end, self.end + _aligned(array.nbytes)
        return Place(array.dtype.str, array.shape, start, array.nbytes)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT


def _filled(places: PackedBatch[Place], make: Callable[[Place], Array]) -> PackedBatch[Array]:
    return PackedBatch._make(_fill(field, make) for field in places)


def _fill(field: object, make: Callable[[Place], object]) -> object:
    # not a closure that calls itself: such a cycle would hold the memory until the collector finds it
    if isinstance(field, dict):
        return {name: _fill(entry, make) for name, entry in field.items()}
    return make(field) if isinstance(field, Place) else field


def _copy(mine: object, given: object) -> None:
    if isinstance(given, dict) and isinstance(mine, dict):
        for name, entry in given.items():
            _copy(mine[name], entry)
    elif isinstance(given, np.ndarray) and isinstance(mine, np.ndarray):
        mine[...] = given
