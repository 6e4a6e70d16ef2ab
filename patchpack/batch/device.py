"""A batch on its way to a device: moved without waiting, normalised there."""

from __future__ import annotations

import torch

from patchpack.batch._types import ArrayT, Device
from patchpack.batch.packed import PackedBatch
from patchpack.batch.views import standardize, token_mask
from patchpack.errors import ConfigError


def to_device(
    batch: PackedBatch[ArrayT], device: Device, dtype: torch.dtype | None = None, non_blocking: bool = True
) -> PackedBatch:
    """Move a batch and normalise its patches there.

    Args:
        batch: numpy or torch.
        device: anything torch takes.
        dtype: dtype of the patches. None is float32 for uint8 patches, and leaves float patches unchanged.
        non_blocking: passed to ``Tensor.to``; overlaps where the batch is pinned.

    Returns:
        The batch on the device, patches normalised, zero where padding, norm (0, 1): nothing is normalised twice.

    Raises:
        ConfigError: `dtype` is not one of torch's.
    """
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ConfigError(f"dtype must be one of torch's, such as torch.float16, got {dtype!r}")
    moved: PackedBatch = PackedBatch._make(_move(field, device, non_blocking) for field in batch)
    patches = moved.patches
    if patches.dtype == torch.uint8:
        value = standardize(patches, moved.norm, dtype or torch.float32)
        patches = torch.where(token_mask(moved)[:, :, None], value, value.new_zeros(()))
    elif dtype is not None:
        patches = patches.to(dtype)
    identity = torch.zeros_like(moved.norm)
    identity[1] = 1
    return moved._replace(patches=patches, norm=identity)


def _move(field: object, device: Device, non_blocking: bool) -> object:
    if isinstance(field, dict):
        return {name: _move(entry, device, non_blocking) for name, entry in field.items()}
    if isinstance(field, torch.Tensor) or hasattr(field, "__array_interface__"):
        return torch.as_tensor(field).to(device, non_blocking=non_blocking)
    return field
