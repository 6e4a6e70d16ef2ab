"""NaFlexViT in timm."""

from __future__ import annotations

from patchpack.adapters.inputs import ModelInputs
from patchpack.adapters.pad import padded, require_whole, rows_and_cols
from patchpack.types import PackedBatch


def timm_naflex(batch: PackedBatch, *, max_seq_len: int | None = None, patch_size: int | None = None) -> ModelInputs:
    """The dict that ``NaFlexVit`` takes: ``model(inputs)``, not ``model(**inputs)``.

    The model takes the largest row and column of an image as its grid, so an image must have all its patches. (It can drop
    patches itself, ``patch_drop_rate``.)

    Args:
        batch: made by ``recipes.siglip2_naflex``, or another that drops no patches.
        max_seq_len: tokens per image; None for those of the longest one.
        patch_size: the model's, to be compared with the batch's.

    Returns:
        ``patches`` float32 ``[N, max_seq_len, patch_size**2 * 3]``, ``patch_coord`` int64 ``[N, max_seq_len, 2]`` (row, col),
        ``patch_valid`` bool ``[N, max_seq_len]``; N readable images in (row, slot) order.

    Raises:
        ConfigError: an image that lost patches, or another patch size.
        ShapeError: an image of more than max_seq_len patches.
    """
    images = padded(batch, length=max_seq_len, patch_size=patch_size)
    require_whole(images.keys, images.num_tokens, images.grid_sizes, "timm's NaFlexViT")
    return ModelInputs(
        patches=images.patches, patch_coord=rows_and_cols(images, "timm's NaFlexViT"), patch_valid=images.token_mask
    )
