"""Unpacking of batches to one image per row, for models that do not take packed rows. Also checks of the unpacked batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from patchpack.batch._types import ArrayT, Objects, Targets
from patchpack.batch.packed import PackedBatch
from patchpack.batch.views import ragged, standardize_patches
from patchpack.errors import ConfigError, ShapeError
from patchpack.stream.workers.shared_batch import as_tensors

ImageTargets = Tensor | dict[str, Tensor | list[object]] | list[object] | None  # one per image, of the types of `Targets`


class Padded(NamedTuple):
    """The readable images of a batch, one in each row.

    Attributes:
        patches: float32 ``[N, L, D]``, normalised patches, with zeros at padding. The values of a patch have the order (y, x,
            channel).
        position_ids: ``[N, L, A]``, the batch's position ids, with zeros at padding.
        token_mask: bool ``[N, L]``, True at tokens and False at padding. Tokens come first in each row.
        num_tokens: int64 ``[N]``, number of tokens of each image.
        grid_sizes: int32 ``[N, 2]``, (rows, cols) of each image in patches.
        source_sizes: int32 ``[N, 2]``, (height, width) of each image in pixels.
        targets: targets of the images, in the same form as in the batch: an array ``[N, ...]``, a list, a dict of arrays and
            lists, or None.
        keys: keys of the images.
        places: int64 ``[N, 2]``, the (row, slot) that each image had in the batch.
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
    """Return the readable images of a batch with one image per row, in (row, slot) order.

    Empty slots and images that could not be read are left out.

    Args:
        batch: a batch of torch tensors or numpy arrays. uint8 patches are normalised here. Float patches are already
            normalised.
        length: number L of tokens per row in the result. None (default) takes the length of the longest image.
        patch_size: patch size of the model. It must equal the patch size of the batch. None (default) skips the comparison.

    Raises:
        ShapeError: an image has more tokens than `length`.
        ConfigError: the patch sizes differ, or the batch holds clips.
    """
    if batch.times is not None:
        raise ConfigError(
            "the batch holds tubelets of clips, the model takes patches of images: pack with a recipe of video=None. Qwen's "
            "models take clips, see adapters.qwen_vl"
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
            f"{names[longest]} has {flat.max_seqlen} tokens, more than the {length} of a row: set the length to at least "
            f"{flat.max_seqlen}, or lower the budget of the recipe's resize policy"
        )
    image = torch.repeat_interleave(torch.arange(len(names), device=starts.device), num_tokens)
    place = torch.arange(len(image), device=starts.device) - starts[image]
    patches = flat.patches.new_zeros((len(names), length, flat.patches.shape[1]), dtype=torch.float32)
    patches[image, place] = standardize_patches(flat.patches, tensors.norm)
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
    """Return the keys of the readable images in (row, slot) order. Key i belongs to image i in the result of an adapter."""
    return [batch.keys[row][slot] for row, slot in torch.as_tensor(batch.slot_mask).nonzero().tolist()]


def require_patch_size(batch: PackedBatch[ArrayT], patch_size: int | None) -> None:
    """Raise `ConfigError` if the batch has another patch size than the model. If `patch_size` is None, skip the check."""
    if patch_size is not None and batch.patch_size != patch_size:
        raise ConfigError(
            f"the batch has patches of {batch.patch_size} pixels, the model takes {patch_size}: pack with a recipe of "
            f"patch_size={patch_size}"
        )


def require_whole(names: list[str], num_tokens: Tensor, grid_sizes: Tensor, model: str) -> None:
    """Raise `ConfigError` if an image lost patches. Models that infer positions from the grid need this check.

    Args:
        names: names of the images, for the error.
        num_tokens: int64 ``[N]``, tokens of each image.
        grid_sizes: ``[N, 2]`` (rows, cols), or ``[N, 3]`` (times, rows, cols), of each image.
        model: name of the model, for the error.
    """
    wanted = grid_sizes.long().prod(-1)
    short = (num_tokens != wanted).nonzero()
    if len(short):
        i = int(short[0])
        raise ConfigError(
            f"{names[i]} keeps {int(num_tokens[i])} of its {int(wanted[i])} patches. {model} infers where a patch was from the "
            f"grid, so no patch may be missing: use drop=NoDrop() and a packer that does not shorten, as recipe.for_eval() does"
        )


def rows_and_cols(images: Padded, model: str) -> Tensor:
    """Return the (row, col) of each token in its grid, as int64 ``[N, L, 2]``, with zeros at padding.

    Raises:
        ConfigError: patches are missing and the batch's positions are not whole numbers.
    """
    cols = images.grid_sizes[:, 1:].long().clamp(min=1)
    if bool((images.num_tokens == images.grid_sizes.long().prod(-1)).all()):
        number = torch.arange(images.token_mask.shape[1], device=cols.device)[None]
    elif images.position_ids.is_floating_point():
        raise ConfigError(
            f"{model} takes rows and columns as whole numbers, the batch has fractions of an image: use "
            f"positions=Absolute(), or drop no patches, so that positions follow from the grid"
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
        return {name: _one_at(values, row, slot) for name, values in targets.items()}
    return _one_at(targets, row, slot)


def _one_at(targets: Tensor | Objects, row: Tensor, slot: Tensor) -> Tensor | list[object]:
    if isinstance(targets, list):
        return [targets[r][s] for r, s in zip(row.tolist(), slot.tolist(), strict=True)]
    return targets[row, slot]
