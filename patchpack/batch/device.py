"""Standardisation of a batch's patches, on the device that holds the batch."""

from __future__ import annotations

import torch

from patchpack.batch.packed import PackedBatch
from patchpack.batch.views import standardize_patches, token_mask
from patchpack.errors import ConfigError


def standardize(batch: PackedBatch, dtype: torch.dtype | None = None) -> PackedBatch:
    """Return a batch with standardised patches: ``(patch − mean) / std`` with the mean and std of `PackedBatch.norm`.

    Move the batch to the device first: ``standardize(batch.to(device))``. The patches are then moved as uint8, which takes a
    quarter of the bytes of float32, and the device does the arithmetic.

    Args:
        batch: a batch of tensors.
        dtype: dtype of the returned patches. Default None: float32 for uint8 patches, and an unchanged dtype for float patches.

    Returns:
        A batch with standardised patches, which are 0 at padding. Its `norm` has mean 0 and std 1, so a second call changes
        nothing.

    Raises:
        ConfigError: `dtype` is not a floating-point dtype of torch, or the batch holds numpy arrays.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype must be a floating-point dtype of torch, such as torch.float16, got {dtype!r}")
    patches = batch.patches
    if not isinstance(patches, torch.Tensor):
        raise ConfigError("standardize takes a batch of tensors, got one of arrays: call batch.to(device) first")
    if patches.dtype == torch.uint8:
        value = standardize_patches(patches, batch.norm, dtype or torch.float32)
        patches = torch.where(token_mask(batch)[:, :, None], value, value.new_zeros(()))
    elif dtype is not None:
        patches = patches.to(dtype)
    identity = torch.zeros_like(batch.norm)
    identity[1] = 1
    return batch._replace(patches=patches, norm=identity)
