"""The layout of a compiled model. No shape depends on which images are in the batch.

`patchpack.model.layout` gathers the real tokens, whose number differs from batch to batch. ``torch.compile`` then breaks its
graph or recompiles. Here no tokens are gathered. All ``T = B * S`` tokens stay in row order. All ``B * E`` slots count as
images. Padding belongs to one more image, whose results are not used. The cost is that the model also computes on padding. A
packed batch has little padding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from patchpack.model.layout import Layout, block_mask, check_segments

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@dataclass(frozen=True, eq=False)
class StaticLayout:
    """A layout with the same interface as `Layout`. The shapes of its tensors depend only on B, S and E.

    B is the number of rows, S the number of tokens per row, and E the number of slots per row.

    Attributes:
        segment_ids: int ``[B, S]`` as in the batch.
        real: bool ``[B, S]``, True for the tokens of images and False for padding.
        max_images: E, slots per row.
        images: int64 ``[T]``, the image of each token, ``row * E + slot``. The image of padding is ``B * E``.
        used: bool ``[B, E]``, True for slots with at least one token.
        same_image: bool ``[B, 1, S, S]``: True where two tokens of a row belong to one image. Pairs of padding tokens are
            True as well, so that no softmax runs over an empty set.
    """

    segment_ids: Tensor
    real: Tensor
    max_images: int
    images: Tensor
    used: Tensor
    same_image: Tensor
    _block_mask: list[BlockMask] = field(default_factory=list, repr=False)

    @staticmethod
    def of(segment_ids: Tensor, max_images: int) -> StaticLayout:
        """Read the layout from a batch's segment ids, int ``[B, S]``. Tokens may be in any order, as in `Layout.of`.

        Raises:
            ShapeError: a segment id does not name one of the row's `max_images` slots. This is not checked while compiling.
        """
        check_segments(segment_ids, max_images)
        num_rows = segment_ids.shape[0]
        real = segment_ids > 0
        first_slot = torch.arange(num_rows, device=segment_ids.device)[:, None] * max_images
        images = torch.where(real, first_slot + segment_ids - 1, num_rows * max_images).flatten()
        used = images.new_zeros(num_rows * max_images + 1, dtype=torch.bool).index_fill(0, images, True)[:-1]
        same_image = (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]
        return StaticLayout(segment_ids, real, max_images, images, used.view(num_rows, max_images), same_image)

    def to_ragged(self, rows: Tensor) -> Tensor:
        """Convert rows to tokens, ``[B, S, ...] → [T, ...]``, with zeros at padding.

        Padding is replaced by zeros, not multiplied by zero, because NaN times zero is NaN.
        """
        return _only(self.real, rows).flatten(0, 1)

    def to_rows(self, ragged: Tensor) -> Tensor:
        """Convert tokens to rows, ``[T, ...] → [B, S, ...]``, with zeros at padding."""
        return _only(self.real, ragged.view(*self.real.shape, *ragged.shape[1:]))

    def to_slots(self, images: Tensor) -> Tensor:
        """Convert images to slots, ``[B * E + 1, ...] → [B, E, ...]``. Slots without tokens hold zeros and pass no gradient."""
        return _only(self.used, images[:-1].view(*self.used.shape, *images.shape[1:]))

    def from_slots(self, slots: Tensor) -> Tensor:
        """Convert slots to images, ``[B, E, ...] → [B * E + 1, ...]``. The last image, to which padding belongs, gets zeros."""
        flat = slots.flatten(0, 1)
        return torch.cat([flat, flat.new_zeros(1, *flat.shape[1:])])

    @property
    def num_images(self) -> int:
        """Number of images, ``B * E + 1``: one per slot, full or empty, and one for padding."""
        return self.used.numel() + 1

    @property
    def seq_len(self) -> int:
        """Number S of tokens per row."""
        return self.segment_ids.shape[1]

    @property
    def block_mask(self) -> BlockMask:
        """The mask `same_image` for FlexAttention, computed once.

        The mask is stored in a list, because the compiler cannot trace the lock of a cached property.
        """
        if not self._block_mask:
            self._block_mask.append(block_mask(self.segment_ids))
        return self._block_mask[0]


AnyLayout = Layout | StaticLayout


def _only(mask: Tensor, values: Tensor) -> Tensor:
    """Return `values` where the mask is True, and zeros elsewhere. The mask has the first axes of `values`."""
    return torch.where(mask.view(*mask.shape, *[1] * (values.ndim - mask.ndim)), values, values.new_zeros(()))
