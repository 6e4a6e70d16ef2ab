"""Pix2Struct in transformers."""

from __future__ import annotations

import torch

from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.pad import padded, rows_and_cols
from patchpack.types import PackedBatch


def pix2struct(batch: PackedBatch, *, max_patches: int | None = None, patch_size: int | None = None) -> ModelInputs:
    """Arguments of ``Pix2StructVisionModel`` and of ``Pix2StructForConditionalGeneration``.

    A patch carries its row and column, so images may have lost patches.

    Args:
        batch: made by ``recipes.pix2struct``: the model is trained on images that are standardised one by one.
        max_patches: tokens per image; None for those of the longest one.
        patch_size: the model's, to be compared with the batch's.

    Returns:
        ``flattened_patches`` float32 ``[N, max_patches, 2 + patch_size**2 * 3]``, first row and column from 1 on, 0 where
        padding; ``attention_mask`` float32 ``[N, max_patches]``; N readable images in (row, slot) order.

    Raises:
        ConfigError: patches dropped from an image whose positions are fractions; another patch size.
        ShapeError: an image of more than max_patches.
    """
    images = padded(batch, length=max_patches, patch_size=patch_size)
    ids = rows_and_cols(images, "Pix2Struct") + images.token_mask[:, :, None]
    return ModelInputs(
        flattened_patches=torch.cat([ids.to(torch.float32), images.patches], dim=-1),
        attention_mask=images.token_mask.to(torch.float32),
    )
