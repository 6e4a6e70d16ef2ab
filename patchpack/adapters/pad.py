"""Rows taken apart: one image per row, as models without packing take them; and what such a model cannot be told."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from patchpack.batch._types import ArrayT, Targets
from patchpack.batch.packed import PackedBatch
from patchpack.batch.views import ragged, standardize
from patchpack.errors import ConfigError, ShapeError
from patchpack.stream.workers.shared_batch import as_tensors

ImageTargets = Tensor | dict[str, Tensor] | list[object] | None  # of images, as `Targets` are of slots


class Padded(NamedTuple):
    """The readable images of a batch, one in each row.

    Attributes:
        patches: float32 ``[N, L, D]``, normalised, (y, x, channel) inside a patch; zeros where padding.
        position_ids: ``[N, L, A]`` as in the batch; zeros where padding.
        token_mask: bool ``[N, L]``, true at an image's own tokens, which come first.
        num_tokens: int64 ``[N]``.
        grid_sizes, source_sizes: int32 ``[N, 2]``.
        targets: ``[N, ...]``, a dict of these, a list, or None, as in the batch.
        keys: of the images.
        places: int64 ``[N, 2]`` (row, slot) of each image in the batch.
        patch_size: pixels per side of a patch.
    """

    patches: Tensor
    position_ids: Tensor
    token_mask: Tensor
    num_tokens: Tensor
    grid_sizes: Tensor
    source_sizes: Tensor
    targets: ImageTargets
    keys: list[str]
    places: Tensor
    patch_size: int


def padded(batch: PackedBatch[ArrayT], *, length: int | None = None, patch_size: int | None = None) -> Padded:
    """One image per row, in (row, slot) order; slots that are empty or could not be read are left out.

    Args:
        batch: of torch or numpy, its patches uint8 or normalised already: they are normalised once.
        length: tokens per row, L; None for those of the longest image.
        patch_size: what the model is built for; None to take the batch's.

    Raises:
        ShapeError: an image longer than length.
        ConfigError: a batch of another patch size, or of clips.
    """
    if batch.times is not None:
        raise ConfigError(
            "the batch is of tubelets, the model takes patches of images: pack with a recipe of video=None. Qwen's models take "
            "clips, see adapters.qwen_vl"
        )
    require_patch_size(batch, patch_size)
    tensors = as_tensors(batch)
    flat = ragged(tensors)
    starts = flat.cu_seqlens.long()
    num_tokens = starts.diff()
    names = keys(tensors)
    if length is None:
        length = flat.max_seqlen
    elif flat.max_seqlen > length:
        longest = int(num_tokens.argmax())
        raise ShapeError(
            f"{names[longest]} has {flat.max_seqlen} tokens, a row has {length}: ask for rows of {flat.max_seqlen} at least, "
            f"or lower the budget of the recipe's resize policy"
        )
    image = torch.repeat_interleave(torch.arange(len(names), device=starts.device), num_tokens)
    place = torch.arange(len(image), device=starts.device) - starts[image]
    patches = flat.patches.new_zeros((len(names), length, flat.patches.shape[1]), dtype=torch.float32)
    patches[image, place] = standardize(flat.patches, tensors.norm)
    position_ids = flat.position_ids.new_zeros((len(names), length, flat.position_ids.shape[1]))
    position_ids[image, place] = flat.position_ids
    row, slot = flat.places[:, 0], flat.places[:, 1]
    return Padded(
        patches,
        position_ids,
        torch.arange(length, device=starts.device) < num_tokens[:, None],
        num_tokens,
        tensors.grid_sizes[row, slot],
        tensors.source_sizes[row, slot],
        _at(tensors.targets, row, slot),
        names,
        flat.places,
        tensors.patch_size,
    )


def keys(batch: PackedBatch[ArrayT]) -> list[str]:
    """Of the readable images in (row, slot) order: what an adapter's image i is called."""
    return [batch.keys[row][slot] for row, slot in torch.as_tensor(batch.slot_mask).nonzero().tolist()]


def require_patch_size(batch: PackedBatch[ArrayT], patch_size: int | None) -> None:
    """Raise `ConfigError` for a batch of another patch size than the model's, if that is known."""
    if patch_size is not None and batch.patch_size != patch_size:
        raise ConfigError(
            f"the batch has patches of {batch.patch_size} pixels, the model takes {patch_size}: pack with a recipe of "
            f"patch_size={patch_size}"
        )


def require_whole(names: list[str], num_tokens: Tensor, grid_sizes: Tensor, model: str) -> None:
    """Raise `ConfigError` for the first image that lost patches, where a model knows them by their number in the grid."""
    wanted = grid_sizes.long().prod(-1)
    short = (num_tokens != wanted).nonzero()
    if len(short):
        i = int(short[0])
        raise ConfigError(
            f"{names[i]} keeps {int(num_tokens[i])} of its {int(wanted[i])} patches. {model} infers where a patch was from the "
            f"grid, so all must be there: use drop=NoDrop() and a packer that does not shorten, as recipe.for_eval() does"
        )


def rows_and_cols(images: Padded, model: str) -> Tensor:
    """int64 ``[N, L, 2]``: where in its grid each token was; zeros where padding.

    Raises `ConfigError` where patches are missing and positions are not whole numbers.
    """
    cols = images.grid_sizes[:, 1:].long().clamp(min=1)
    if bool((images.num_tokens == images.grid_sizes.long().prod(-1)).all()):
        number = torch.arange(images.token_mask.shape[1], device=cols.device)[None]
    elif images.position_ids.is_floating_point():
        raise ConfigError(
            f"{model} takes rows and columns as whole numbers, the batch has fractions of an image: use "
            f"positions=Absolute(), or drop no patches, then the grid says where each is"
        )
    elif images.position_ids.shape[2] == 2:
        return images.position_ids.long()
    else:
        number = images.position_ids[:, :, 0].long()
    ids = torch.stack([number // cols, number % cols], dim=-1)
    return torch.where(images.token_mask[:, :, None], ids, 0)


def _at(targets: Targets, row: Tensor, slot: Tensor) -> ImageTargets:
    if targets is None:
        return None
    if isinstance(targets, dict):
        return {name: values[row, slot] for name, values in targets.items()}
    if isinstance(targets, list):
        return [targets[r][s] for r, s in zip(row.tolist(), slot.tolist(), strict=True)]
    return targets[row, slot]
