"""SigLIP 2 (NaFlex) in transformers."""

from __future__ import annotations

import torch

from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.pad import padded, require_whole
from patchpack.types import PackedBatch


def siglip2(batch: PackedBatch, *, max_num_patches: int | None = None, patch_size: int | None = None) -> ModelInputs:
    """Arguments of ``Siglip2VisionModel``.

    Position tables are resized to each image's grid, and token k of an image is patch k of it in raster order, so an image
    must have all its patches; the batch's position ids are not asked.

    Args:
        batch: made by ``recipes.siglip2_naflex``, or another that drops no patches.
        max_num_patches: tokens per image; None for those of the longest one. The model's outputs do not depend on it.
        patch_size: the model's, to be compared with the batch's.

    Returns:
        ``pixel_values`` float32 ``[N, max_num_patches, patch_size**2 * 3]``, ``pixel_attention_mask`` int32
        ``[N, max_num_patches]``, ``spatial_shapes`` int64 ``[N, 2]`` (rows, cols); N readable images in (row, slot) order.

    Raises:
        ConfigError: an image that lost patches, or another patch size.
        ShapeError: an image of more than max_num_patches.
    """
    images = padded(batch, length=max_num_patches, patch_size=patch_size)
    require_whole(images.keys, images.num_tokens, images.grid_sizes, "SigLIP 2")
    return ModelInputs(
        pixel_values=images.patches,
        pixel_attention_mask=images.token_mask.to(torch.int32),
        spatial_shapes=images.grid_sizes.long(),
    )
