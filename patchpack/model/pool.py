"""Pooling of tokens to one vector per image: `AttentionPool` (the MAP head), `MeanPool`, and `ClassToken`.

`AttentionPool` and `MeanPool` use the patches only, and leave out the class and register tokens that the model added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchpack.model.block import BlockStyle
from patchpack.model.static import AnyLayout


class AttentionPool(nn.Module):
    """Attention of one learned query over an image's tokens, then a residual MLP: ``[T, width] → [N, width]``.

    This is the MAP head of big_vision (``models/vit.py``, `MAPHead`). In big_vision the query projection is applied to a
    learned constant. Here the projected query itself is learned.

    Args:
        width: values per token, a multiple of `heads`.
        heads: number of attention heads.
        mlp_dim: hidden width of the MLP.
        style: settings of the norm, the linear maps and the activation.
    """

    def __init__(self, *, width: int, heads: int, mlp_dim: int, style: BlockStyle) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(heads, width // heads))
        self.kv = style.linear(width, 2 * width)
        self.out = style.linear(width, width)
        self.norm = style.norm(width)
        self.mlp = style.mlp(width, mlp_dim)

    def forward(self, x: Tensor, layout: AnyLayout, prefix: int = 0) -> Tensor:
        """Pool each image's patches, ``[T, width] → [N, width]``.

        Args:
            x: tokens ``[T, width]``.
            layout: layout of the tokens.
            prefix: number of tokens that the model added per slot. They stand at the end of each row. Default 0.
        """
        k, v = self.kv(x).unflatten(1, (2, self.heads, -1)).unbind(1)  # each [T, heads, d]
        scores = (k * self.query).sum(-1) * self.query.shape[1] ** -0.5
        if prefix:
            scores = scores.masked_fill(~patch_flags(layout, prefix), -torch.inf)
        weights = segment_softmax(scores, layout.images, layout.num_images)
        mixed = segment_sum(weights[:, :, None] * v, layout.images, layout.num_images)
        pooled: Tensor = self.out(mixed.flatten(1))
        pooled = pooled + self.mlp(self.norm(pooled))
        return pooled


class MeanPool(nn.Module):
    """Mean over the patches of an image, ``[T, width] → [N, width]``. Tokens that the model added are left out."""

    def forward(self, x: Tensor, layout: AnyLayout, prefix: int = 0) -> Tensor:
        """Return the mean of each image's patches.

        Args:
            x: tokens ``[T, width]``.
            layout: layout of the tokens.
            prefix: number of tokens that the model added per slot. They stand at the end of each row. Default 0.
        """
        patch = patch_flags(layout, prefix).to(x.dtype)
        total = segment_sum(x * patch, layout.images, layout.num_images)
        return total / segment_sum(patch, layout.images, layout.num_images).clamp(min=1)


class ClassToken(nn.Module):
    """The first of the tokens that the model adds to each image: ``[T, width] → [N, width]``."""

    def forward(self, x: Tensor, layout: AnyLayout, prefix: int = 1) -> Tensor:
        """Return the class token of each image.

        Args:
            x: tokens ``[T, width]``.
            layout: layout of the tokens.
            prefix: number of tokens that the model added per slot, >= 1. They stand at the end of each row, slot after slot.
                Default 1.
        """
        rows = layout.to_rows(x)
        return layout.from_slots(rows[:, rows.shape[1] - layout.max_images * prefix :: prefix])


def segment_sum(values: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """Sum values by segment, ``[T, ...] → [num_segments, ...]``. Entry i of the result is the sum of the values of segment i.

    Args:
        values: float ``[T, ...]``.
        segments: int64 ``[T]``, the segment of each value, ``0 … num_segments − 1``.
        num_segments: number of segments.
    """
    return values.new_zeros(num_segments, *values.shape[1:]).index_add(0, segments, values)


def segment_softmax(scores: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """Return the softmax of scores within each segment. It is as stable as torch's softmax, because the largest exponent is 0.

    A segment whose scores are all −∞ gets zeros, and gradients that are not NaN.

    Args:
        scores: float ``[T, heads]``.
        segments: int64 ``[T]``, the segment of each score, ``0 … num_segments − 1``.
        num_segments: number of segments.
    """
    index = segments[:, None].expand_as(scores)
    top = scores.new_full((num_segments, scores.shape[1]), -torch.inf)
    top = top.scatter_reduce(0, index, scores.detach(), "amax")
    top = top.masked_fill(top == -torch.inf, 0)
    exps = (scores - top.index_select(0, segments)).exp()
    total = segment_sum(exps, segments, num_segments).clamp(min=torch.finfo(exps.dtype).tiny)
    return exps / total.index_select(0, segments)


def patch_flags(layout: AnyLayout, prefix: int) -> Tensor:
    """Return bool ``[T, 1]``: True for a patch, False for one of the `prefix` tokens per slot at the end of each row."""
    rows, seq_len = layout.segment_ids.shape
    columns = torch.arange(seq_len, device=layout.segment_ids.device)
    return layout.to_ragged((columns < seq_len - layout.max_images * prefix).expand(rows, -1)[..., None])
