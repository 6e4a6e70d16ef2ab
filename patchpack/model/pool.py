"""Tokens → one vector per image, put into its slot: attention pooling with one learned query.

The MAP head of big_vision (``models/vit.py``, `MAPHead`) without biases. Its query projection is applied to a constant,
so the projected query is what is learned here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchpack.model.attention import layer_norm, mlp
from patchpack.model.static import AnyLayout


class AttentionPool(nn.Module):
    """``[T, width] → [B, E, width]``. A slot without tokens is exactly zero and gives no gradient."""

    def __init__(self, *, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(heads, width // heads))
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm = layer_norm(width)
        self.mlp = mlp(width, mlp_ratio)

    def forward(self, x: Tensor, layout: AnyLayout) -> Tensor:
        """Pool each image's tokens; the MLP sees images, and empty slots only where shapes are static."""
        k, v = self.kv(x).unflatten(1, (2, self.heads, -1)).unbind(1)  # each [T, heads, d]
        scores = (k * self.query).sum(-1) * self.query.shape[1] ** -0.5
        weights = segment_softmax(scores, layout.images, layout.num_images)
        mixed = segment_sum(weights[:, :, None] * v, layout.images, layout.num_images)
        pooled = self.out(mixed.flatten(1))
        return layout.to_slots(pooled + self.mlp(self.norm(pooled)))


def segment_sum(values: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """``[T, ...] → [num_segments, ...]``: line i is the sum of the values whose segment is i."""
    return values.new_zeros(num_segments, *values.shape[1:]).index_add(0, segments, values)


def segment_softmax(scores: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """Softmax of ``[T, heads]`` scores within each segment, as stable as a softmax is: the largest exponent is 0."""
    index = segments[:, None].expand_as(scores)
    top = scores.new_full((num_segments, scores.shape[1]), -torch.inf)
    top = top.scatter_reduce(0, index, scores.detach(), "amax")
    exps = (scores - top.index_select(0, segments)).exp()
    return exps / segment_sum(exps, segments, num_segments).index_select(0, segments)
