"""The layout of a batch: the tokens that are not padding, and the image that each token belongs to.

The model runs on *ragged* tokens ``[T, ...]``: the real tokens of the whole batch, image after image, without padding. This
module converts rows ``[B, S, ...]`` to ragged tokens and back, and images ``[N, ...]`` to slots ``[B, E, ...]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from patchpack.errors import ShapeError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class Bucket(NamedTuple):
    """A run of neighbouring images with the same number of tokens."""

    images: int
    tokens: int


@dataclass(frozen=True, eq=False)
class Layout:
    """The layout of a batch's ragged tokens. Images are ordered by their number of tokens, shortest first.

    Attributes:
        segment_ids: int ``[B, S]`` as in the batch: 0 is padding, and k is the row's k-th image.
        max_images: E, slots per row.
        tokens: int64 ``[T]``, position of each ragged token in the flattened rows, ``row * S + column``.
        images: int64 ``[T]``, the image of each ragged token, ``0 … N - 1``, never decreasing.
        slots: int64 ``[N]``, position of each image in the flattened slots, ``row * E + slot``.
        lengths: int64 ``[N]``, tokens per image, >= 1, never decreasing.
    """

    segment_ids: Tensor
    max_images: int
    tokens: Tensor
    images: Tensor
    slots: Tensor
    lengths: Tensor

    @staticmethod
    def of(segment_ids: Tensor, max_images: int) -> Layout:
        """Read the layout from a batch's segment ids.

        An image's tokens need not be neighbours in their row. Padding may be anywhere.

        Raises:
            ShapeError: a segment id does not name one of the row's `max_images` slots.
        """
        check_segments(segment_ids, max_images)
        num_rows = segment_ids.shape[0]
        first_slot = torch.arange(num_rows, device=segment_ids.device)[:, None] * max_images
        tokens = segment_ids.flatten().nonzero()[:, 0]
        token_slots = (first_slot + segment_ids - 1).flatten()[tokens]
        slot_lengths = torch.bincount(token_slots, minlength=num_rows * max_images)

        slots = torch.argsort(slot_lengths, stable=True)
        slots = slots[slot_lengths[slots] > 0]
        image_of_slot = torch.empty_like(slot_lengths)
        image_of_slot[slots] = torch.arange(len(slots), device=slots.device)
        images, order = torch.sort(image_of_slot[token_slots], stable=True)
        return Layout(segment_ids, max_images, tokens[order], images, slots, slot_lengths[slots])

    def to_ragged(self, rows: Tensor) -> Tensor:
        """Convert rows to ragged tokens, ``[B, S, ...] → [T, ...]``.

        Padding is left out rather than masked, because NaN times a zero mask is NaN.
        """
        return rows.flatten(0, 1).index_select(0, self.tokens)

    def to_rows(self, ragged: Tensor) -> Tensor:
        """Convert ragged tokens to rows, ``[T, ...] → [B, S, ...]``, with zeros at padding."""
        return _place(ragged, self.tokens, self.segment_ids.shape[0], self.segment_ids.shape[1])

    def to_slots(self, images: Tensor) -> Tensor:
        """Convert images to slots, ``[N, ...] → [B, E, ...]``. Slots without tokens hold zeros and pass no gradient."""
        return _place(images, self.slots, self.segment_ids.shape[0], self.max_images)

    def from_slots(self, slots: Tensor) -> Tensor:
        """Convert slots to images, ``[B, E, ...] → [N, ...]``."""
        return slots.flatten(0, 1).index_select(0, self.slots)

    @property
    def num_images(self) -> int:
        """Number N of images in the whole batch that have at least one token."""
        return len(self.lengths)

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """The limits between images, int32 ``[N + 1]``: image i is ``ragged[cu_seqlens[i]:cu_seqlens[i + 1]]``."""
        ends = self.lengths.cumsum(0, dtype=torch.int32)
        return torch.cat([ends.new_zeros(1), ends])

    @cached_property
    def buckets(self) -> list[Bucket]:
        """A list of runs of images. The images of a run are neighbours and have equal numbers of tokens.

        There are at most ``sqrt(2 T)`` buckets, because all buckets have different lengths, and the sum of these lengths is at
        most T. A batch without any token has one bucket of no images. Such a batch runs like any other, with zero gradients.
        """
        lengths, counts = torch.unique_consecutive(self.lengths, return_counts=True)
        pairs = zip(counts.tolist(), lengths.tolist(), strict=True)
        return [Bucket(images, tokens) for images, tokens in pairs] or [Bucket(0, 1)]

    @cached_property
    def same_image(self) -> Tensor:
        """Mask of pairs, bool ``[B, 1, S, S]``: True where two tokens of a row belong to one image.

        Pairs of padding tokens are True as well, so that no softmax runs over an empty set. `to_ragged` leaves out the results
        of padding.
        """
        return (self.segment_ids[:, :, None] == self.segment_ids[:, None, :])[:, None]

    @cached_property
    def block_mask(self) -> BlockMask:
        """The mask `same_image` for FlexAttention, as a list of the blocks of 128 × 128 pairs that are not empty."""
        return block_mask(self.segment_ids)

    @property
    def seq_len(self) -> int:
        """Number S of tokens per row."""
        return self.segment_ids.shape[1]


def block_mask(segment_ids: Tensor) -> BlockMask:
    """Return the mask `Layout.same_image` as FlexAttention's `BlockMask` ``[B, 1, S, S]``.

    The mask is True where two tokens of a row belong to one image, or both are padding.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    def same_image(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return segment_ids[row, query] == segment_ids[row, key]

    rows, seq_len = segment_ids.shape
    return create_block_mask(same_image, rows, None, seq_len, seq_len, device=segment_ids.device)


def with_prefix(segment_ids: Tensor, slot_mask: Tensor, prefix: int) -> Tensor:
    """Return the segment ids of longer rows, ``[B, S + E · prefix]``. Each row ends in `prefix` more tokens for each slot.

    The model adds these tokens (class token, registers), slot after slot. For slots without an image the added tokens are
    padding. The batch and the recipe's tokens per row do not include the added tokens.

    Args:
        segment_ids: int ``[B, S]`` as in the batch.
        slot_mask: bool ``[B, E]``, True for slots with an image.
        prefix: number of tokens that the model adds per slot.
    """
    slots = torch.arange(1, slot_mask.shape[1] + 1, device=segment_ids.device, dtype=segment_ids.dtype)
    own = torch.where(slot_mask, slots, 0).repeat_interleave(prefix, dim=1)
    return torch.cat([segment_ids, own.to(segment_ids.dtype)], dim=1)


def check_segments(segment_ids: Tensor, max_images: int) -> None:
    """Raise `ShapeError` unless every segment id names a slot of its row. While compiling, only the shape is checked.

    Raises:
        ShapeError: the ids do not fit. The error gives the shape or the ids that were found.
    """
    if segment_ids.ndim != 2:
        raise ShapeError(f"segment_ids must be [B, S], got shape {list(segment_ids.shape)}")
    if torch.compiler.is_compiling():
        return
    low, high = (int(end) for end in segment_ids.aminmax()) if segment_ids.numel() else (0, 0)
    if low < 0 or high > max_images:
        raise ShapeError(f"segment_ids must be in 0 … {max_images} (a row has {max_images} slots), got {low} … {high}")


def _place(values: Tensor, index: Tensor, rows: int, columns: int) -> Tensor:
    flat = values.new_zeros(rows * columns, *values.shape[1:]).index_copy(0, index, values)
    return flat.view(rows, columns, *values.shape[1:])
