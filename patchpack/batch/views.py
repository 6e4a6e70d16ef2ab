"""Functions that derive masks, the ragged form and normalised patches from a `PackedBatch`. The results are not stored.

Every function takes a batch of numpy arrays or of torch tensors. The results are of the same kind as the arrays in the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
from typing_extensions import NamedTuple

from patchpack.batch import _arrays
from patchpack.batch._types import Array, ArrayT, Generic
from patchpack.batch.packed import PackedBatch

if TYPE_CHECKING:
    import torch


def token_mask(batch: PackedBatch[ArrayT]) -> ArrayT:
    """Return bool ``[B, S]``, True where a token belongs to a readable image: ``segment_ids > 0``."""
    return batch.segment_ids > 0


def attention_mask(batch: PackedBatch[ArrayT]) -> ArrayT:
    """Return bool ``[B, S, S]``, True where token i may attend to token j, because both belong to one image.

    ``mask[b, i, j] = segment_ids[b, i] == segment_ids[b, j] > 0``, so a padding token attends to nothing. The mask is block
    diagonal (NaViT 2307.06304 section 2.2). ``scaled_dot_product_attention`` needs an axis of heads: ``mask[:, None]``.
    """
    segments = batch.segment_ids
    mask: ArrayT = (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, None, :]
    return mask


def pool_mask(batch: PackedBatch[ArrayT]) -> ArrayT:
    """Return bool ``[B, E, S]``, True where token s belongs to the image in slot e.

    ``mask[b, e, s] = segment_ids[b, s] == e + 1``.
    """
    slots = _arrays.arange(batch.segment_ids, batch.slot_mask.shape[1]) + 1
    mask: ArrayT = batch.segment_ids[:, None, :] == slots[None, :, None]
    return mask


def sample_ids(batch: PackedBatch[ArrayT]) -> ArrayT:
    """Return int32 ``[B, E]``, the number of the sample in each slot, as in `PackedBatch.sample_ids`.

    If `PackedBatch.sample_ids` is None, every image is a sample by itself.
    """
    if batch.sample_ids is not None:
        return batch.sample_ids
    number = _arrays.arange(batch.num_images, batch.slot_mask.shape[1]) + 1
    number = number[None, :] * (number[None, :] <= batch.num_images[:, None])
    return number.astype(np.int32) if isinstance(number, np.ndarray) else number.int()


def fill_rate(batch: PackedBatch[ArrayT]) -> float:
    """Return the share of tokens that are not padding, 0 … 1. The result is 0 for a batch without rows."""
    mask = token_mask(batch)
    share: float = float(mask.sum()) / max(1, mask.shape[0] * mask.shape[1])
    return share


class Ragged(NamedTuple, Generic[Array]):
    """All images of a batch end to end, in the form that variable-length attention kernels take.

    Attributes:
        patches: ``[T, D]``, patches of all T tokens.
        position_ids: ``[T, A]``, position ids of all tokens.
        cu_seqlens: int32 ``[N + 1]``, the positions at which images begin and end: image i is
            ``patches[cu_seqlens[i]:cu_seqlens[i + 1]]``.
        max_seqlen: number of tokens of the longest image. With ``static=True`` it is S, the number of tokens in a row.
        places: int64 ``[N, 2]``, (row, slot) of each image, with which results can be written back. With ``static=True`` there
            are also segments of padding, which have (−1, −1).
    """

    patches: Array
    position_ids: Array
    cu_seqlens: Array
    max_seqlen: int
    places: Array


def ragged(batch: PackedBatch[ArrayT], static: bool = False) -> Ragged[ArrayT]:
    """Return all images of a batch end to end, without padding.

    Args:
        batch: the batch.
        static: True keeps all shapes fixed, for compiled models: ``T = B * S`` and ``N = B * E + B``. Every slot then counts as
            an image, and an empty slot has length 0. The padding comes last, as B segments of at most S tokens. Default False.

    Returns:
        `Ragged`, with images in row-major slot order, and the tokens of an image in raster order.
    """
    mask = token_mask(batch)
    num_rows, seq_len = mask.shape
    lengths = pool_mask(batch).sum(-1)  # [B, E]
    if static:
        order = _arrays.stable_argsort(~mask.reshape(-1))  # real tokens first, order kept
        patches, positions = (
            values.reshape(num_rows * seq_len, values.shape[2])[order] for values in (batch.patches, batch.position_ids)
        )
        slots = lengths.shape[1]
        count = _arrays.arange(lengths, num_rows * slots)
        places = _arrays.stack([count // max(1, slots), count % max(1, slots)])
        filler = _arrays.stack([_arrays.arange(lengths, num_rows) * 0 - 1] * 2)
        padding = mask.shape[0] * seq_len - lengths.sum()
        chunks = (padding - _arrays.arange(lengths, num_rows) * seq_len).clip(0, seq_len)
        all_lengths = _arrays.concatenate([lengths.reshape(-1), chunks])
        return Ragged(patches, positions, _arrays.cumulative(all_lengths), int(seq_len), _arrays.concatenate([places, filler]))
    readable = lengths > 0
    places = _arrays.nonzero(readable)
    used = lengths[readable]
    longest = int(used.max()) if len(used) else 0
    return Ragged(batch.patches[mask], batch.position_ids[mask], _arrays.cumulative(used), longest, places)


def standardize_patches(patches: ArrayT, norm: ArrayT, dtype: npt.DTypeLike | torch.dtype | None = None) -> ArrayT:
    """Return ``(patch − mean) / std`` per channel.

    Args:
        patches: uint8 or float ``[..., D]``, a numpy array or a torch tensor. The channel is the fastest axis.
        norm: float32 ``[2, C]``, mean and std of each channel on the scale of `patches`.
        dtype: dtype of the result, a numpy dtype for an array and a torch dtype for a tensor. Default None, float32. The
            arithmetic is always in float32.

    Returns:
        An array or a tensor with the shape of `patches`.
    """
    channels = norm.shape[1]
    pixels = patches.reshape(*patches.shape[:-1], patches.shape[-1] // channels, channels)
    if isinstance(patches, np.ndarray):
        pixels = pixels.astype(np.float32)
        value: ArrayT = ((pixels - norm[0]) / norm[1]).reshape(patches.shape)
        return value if dtype is None else value.astype(cast("npt.DTypeLike", dtype))
    value = ((pixels.float() - norm[0]) / norm[1]).reshape(patches.shape)
    return value if dtype is None else value.to(cast("torch.dtype", dtype))
