"""Attention among the tokens of one image, and the transformer block around it.

The seam is one function, ``attend(q, k, v, layout)`` on ragged tokens. Two are here and give the same numbers:

- `bucketed`: images of equal length are stacked and attended together. No mask, no padding, so cost is the sum of n²
  over images; at most ``sqrt(2 T)`` calls for T tokens.
- `dense`: whole rows under a block-diagonal mask, as the paper draws it. Cost is ``B * S²``; shapes are the batch's, so it
  is the one for a compiled model.

Queries and keys are normalised per head (ViT-22B, 2302.05442 §2), and nothing has a bias.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchpack.errors import ConfigError
from patchpack.model.layout import Layout
from patchpack.model.static import AnyLayout


class Attend(Protocol):
    """Attention restricted to tokens of the same image: q, k, v ``[T, heads, d]`` → ``[T, heads, d]``.

    The layout is a `Layout`, or a `StaticLayout` in a model made with ``static=True``.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: Any, /) -> Tensor: ...


AttentionName = Literal["auto", "bucketed", "dense"]


def bucketed(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """One call per length: ``[n, heads, length, d]`` of n images is a view of their ragged tokens."""
    sizes = [images * tokens for images, tokens in layout.buckets]
    outs = []
    for bucket, *qkv in zip(layout.buckets, *(torch.split(x, sizes) for x in (q, k, v)), strict=True):
        stacked = (x.view(*bucket, *x.shape[1:]).transpose(1, 2) for x in qkv)
        outs.append(F.scaled_dot_product_attention(*stacked).transpose(1, 2).flatten(0, 1))
    return torch.cat(outs)


def dense(q: Tensor, k: Tensor, v: Tensor, layout: AnyLayout) -> Tensor:
    """One call for the batch: ``[B, heads, S, d]`` under the mask ``layout.same_image``."""
    q, k, v = (layout.to_rows(x).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=layout.same_image)
    return layout.to_ragged(out.transpose(1, 2))


def backend(attention: AttentionName | Attend, *, static: bool = False) -> Attend:
    """The function behind a name; a function of your own passes through.

    ``"auto"`` is `bucketed`: faster than `dense` on CPU, or level with it (rows of 256 tokens at width 64). With static
    shapes it is `dense`.

    Raises:
        ConfigError: for an unknown name, or for `bucketed` with static shapes.
    """
    named: dict[str, Attend] = {"auto": dense if static else bucketed, "bucketed": bucketed, "dense": dense}
    if not callable(attention) and attention not in named:
        raise ConfigError(f"attention={attention!r} is not one of {', '.join(map(repr, named))}, nor a function")
    attend = attention if callable(attention) else named[attention]
    if static and attend is bucketed:
        raise ConfigError("attention='bucketed' has other shapes for every batch. Take 'dense' with static=True")
    return attend


class Block(nn.Module):
    """Pre-norm transformer block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, *, width: int, heads: int, mlp_ratio: float, attend: Attend) -> None:
        super().__init__()
        self.attend = attend
        self.heads = heads
        self.norm_attention = layer_norm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q = layer_norm(width // heads)
        self.norm_k = layer_norm(width // heads)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp = layer_norm(width)
        self.mlp = mlp(width, mlp_ratio)

    def forward(self, x: Tensor, layout: AnyLayout) -> Tensor:
        """``[T, width] → [T, width]``."""
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(1, (3, self.heads, -1)).unbind(1)  # each [T, heads, d]
        mixed = self.attend(self.norm_q(q), self.norm_k(k), v, layout)
        x = x + self.out(mixed.flatten(1))
        tokens: Tensor = x + self.mlp(self.norm_mlp(x))
        return tokens


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm with a scale and no bias."""
    return nn.LayerNorm(width, eps=1e-6, bias=False)


def mlp(width: int, ratio: float) -> nn.Sequential:
    """Two linear maps with a GELU between, ``ratio`` times as wide inside."""
    hidden = round(width * ratio)
    return nn.Sequential(nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False))
