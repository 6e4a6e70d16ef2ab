"""A batch whose patches are standardised, on the device where it is."""

from __future__ import annotations

import torch

from patchpack.batch.packed import PackedBatch
from patchpack.batch.views import standardize_patches, token_mask
from patchpack.errors import ConfigError


def standardize(batch: PackedBatch, dtype: torch.dtype | None = None) -> PackedBatch:
    """Return a batch with standardised patches: ``(patch − mean) / std`` with the mean and std of `PackedBatch.norm`.

    Move the batch first, ``standardize(batch.to(device))``: uint8 patches are a quarter of the bytes, and the arithmetic runs
    on the device.

    Args:
        batch: a batch of tensors.
        dtype: dtype of the patches. None is float32 for uint8 patches, and leaves float patches unchanged.

    Returns:
        The batch with patches standardised, zero where padding, norm (0, 1): nothing is standardised twice.

    Raises:
        ConfigError: `dtype` is not one of torch's.
    """
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ConfigError(f"dtype must be one of torch's, such as torch.float16, got {dtype!r}")
    patches = batch.patches
    if patches.dtype == torch.uint8:
        value = standardize_patches(patches, batch.norm, dtype or torch.float32)
        patches = torch.where(token_mask(batch)[:, :, None], value, value.new_zeros(()))
    elif dtype is not None:
        patches = patches.to(dtype)
    identity = torch.zeros_like(batch.norm)
    identity[1] = 1
    return batch._replace(patches=patches, norm=identity)
