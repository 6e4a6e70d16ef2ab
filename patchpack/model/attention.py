"""Attention among the tokens of one image. Every backend is one function, ``attend(q, k, v, layout)``, on ragged tokens.

All backends give the same numbers:

- `loop`: one call per image. Its result is the reference for all other backends.
- `bucketed`: one call for all images of equal length. There is no mask and no padding, so the cost is the sum of n² over images
  of n tokens. For T tokens there are at most ``sqrt(2 T)`` calls.
- `dense`: one call on whole rows under a block-diagonal mask, as in the NaViT paper's figure. The cost is ``B * S²``. All
  shapes follow from the shape of the batch, as a compiled model needs.
- `flex`: torch's FlexAttention on rows under a block-diagonal mask. Blocks of the mask in which no query may attend to
  a key are skipped. This backend is for CUDA, where FlexAttention is compiled.
- `varlen`: the flash kernel for ragged tokens, for CUDA with bfloat16 or float16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from patchpack.errors import ConfigError
from patchpack.model.layout import Layout
from patchpack.model.static import AnyLayout


class Attend(Protocol):
    """A function for attention among the tokens of each image. It returns ``[T, heads, d]``.

    The function takes queries, keys and values, each ``[T, heads, d]``, and the layout of the batch: a `Layout`, or a
    `StaticLayout` in a model made with ``static=True``.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: Any, /) -> Tensor: ...


AttentionName = Literal["auto", "loop", "bucketed", "dense", "flex", "varlen"]

FLEX_FROM = 1024
"""Row length in tokens from which skipping blocks of 128 tokens is faster on a GPU."""


def loop(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """Attend with one call per image, on tensors ``[heads, length, d]``.

    Args:
        q: queries ``[T, heads, d]``.
        k: keys ``[T, heads, d]``.
        v: values ``[T, heads, d]``.
        layout: layout of the batch.
    """
    lengths = layout.lengths.tolist()
    outs = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in image)).transpose(0, 1)
        for image in zip(*(torch.split(x, lengths) for x in (q, k, v)), strict=True)
    ]
    return torch.cat(outs) if outs else _nothing(q, k, v)


def bucketed(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """Attend with one call per length. The n images of a length are ``[n, heads, length, d]``, a view of the ragged tokens.

    Args:
        q: queries ``[T, heads, d]``.
        k: keys ``[T, heads, d]``.
        v: values ``[T, heads, d]``.
        layout: layout of the batch.
    """
    sizes = [images * tokens for images, tokens in layout.buckets]
    outs = []
    for bucket, *qkv in zip(layout.buckets, *(torch.split(x, sizes) for x in (q, k, v)), strict=True):
        stacked = (x.view(*bucket, *x.shape[1:]).transpose(1, 2) for x in qkv)
        outs.append(F.scaled_dot_product_attention(*stacked).transpose(1, 2).flatten(0, 1))
    return torch.cat(outs)


def dense(q: Tensor, k: Tensor, v: Tensor, layout: AnyLayout) -> Tensor:
    """Attend with one call for the batch, on ``[B, heads, S, d]`` under the mask ``layout.same_image``.

    Args:
        q: queries ``[T, heads, d]``.
        k: keys ``[T, heads, d]``.
        v: values ``[T, heads, d]``.
        layout: layout of the batch.
    """
    q, k, v = (layout.to_rows(x).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=layout.same_image)
    return layout.to_ragged(out.transpose(1, 2))


def flex(q: Tensor, k: Tensor, v: Tensor, layout: AnyLayout) -> Tensor:
    """Compute attention with the tokens arranged in rows, ``[B, heads, S, d]``.

    Blocks of the mask in which no query may attend to a key are skipped.

    Args:
        q: queries ``[T, heads, d]``.
        k: keys ``[T, heads, d]``.
        v: values ``[T, heads, d]``.
        layout: layout of the batch.
    """
    attend = flex_attention() if torch.compiler.is_compiling() or not q.is_cuda else _compiled_flex_attention()
    q, k, v = (layout.to_rows(x).transpose(1, 2) for x in (q, k, v))
    out: Tensor = attend(q, k, v, block_mask=layout.block_mask)
    return layout.to_ragged(out.transpose(1, 2))


def varlen(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """Attend with one call of the variable-length flash kernel, on ``[T, heads, d]`` and ``cu_seqlens``.

    Args:
        q: queries ``[T, heads, d]``.
        k: keys ``[T, heads, d]``.
        v: values ``[T, heads, d]``.
        layout: layout of the batch.
    """
    if not layout.num_images:
        return _nothing(q, k, v)
    ends, longest = layout.cu_seqlens, int(layout.lengths[-1])  # never decreasing: the last is the longest
    out: Tensor = _varlen_attn()(q.contiguous(), k.contiguous(), v.contiguous(), ends, ends, longest, longest)
    return out


def auto(q: Tensor, k: Tensor, v: Tensor, layout: AnyLayout) -> Tensor:
    """Attend with the fastest backend for the device, dtype and shape. `bench/model/attention.py` measures the backends.

    On CPU the backend is `bucketed`. On CUDA the backend is `varlen` for 16-bit dtypes. For other dtypes on CUDA it is `flex`
    for rows of at least 1024 tokens, and `dense` for shorter rows. With static shapes the backend is `flex` for long rows on
    CUDA, and `dense` in all other cases.

    Args:
        q: queries ``[T, heads, d]``.
        k: keys ``[T, heads, d]``.
        v: values ``[T, heads, d]``.
        layout: layout of the batch.
    """
    rows = flex if q.is_cuda and layout.seq_len >= FLEX_FROM else dense
    if not isinstance(layout, Layout):
        return rows(q, k, v, layout)
    if q.is_cuda:
        half = q.dtype in (torch.float16, torch.bfloat16) and has_varlen()
        return (varlen if half else rows)(q, k, v, layout)
    return bucketed(q, k, v, layout)


NAMED: dict[str, Attend] = {
    "auto": auto, "loop": loop, "bucketed": bucketed, "dense": dense, "flex": flex, "varlen": varlen,
}  # fmt: skip
RAGGED = (loop, bucketed, varlen)
"""Backends whose shapes follow the images, which a model of static shapes cannot take."""


def backend(attention: AttentionName | Attend, *, static: bool = False) -> Attend:
    """Return the backend with a given name. A custom function is returned unchanged.

    Raises:
        ConfigError: the name is unknown, or `static` is True and the backend's shapes differ between batches.
    """
    if not callable(attention) and attention not in NAMED:
        raise ConfigError(f"attention must be one of {', '.join(map(repr, NAMED))}, or a function, got {attention!r}")
    attend = attention if callable(attention) else NAMED[attention]
    if static and attend in RAGGED:
        name = next(name for name, known in NAMED.items() if known is attend)
        raise ConfigError(f"attention={name!r} changes shapes with every batch: use 'auto', 'dense' or 'flex' with static=True")
    return attend


def has_varlen() -> bool:
    """Return True if the installed torch has the variable-length kernel."""
    try:
        _varlen_attn()
    except ConfigError:
        return False
    return True


def _nothing(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the result for zero tokens. It depends on q, k and v, so the parameters of q, k and v get zero gradients."""
    return q * 0 + k * 0 + v


@cache
def _varlen_attn() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        raise ConfigError(
            f"torch {torch.__version__} has no variable-length attention: use attention='dense' or 'flex'"
        ) from None
    return varlen_attn


def flex_attention() -> Callable[..., Tensor]:
    """Return FlexAttention uncompiled. It is for models that are compiled as a whole, and for the CPU.

    On CPU, FlexAttention computes the whole matrix.
    """
    try:
        from torch.nn.attention.flex_attention import flex_attention
    except ImportError:
        raise ConfigError(f"torch {torch.__version__} has no FlexAttention: use attention='dense'") from None
    return flex_attention


@cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    return torch.compile(flex_attention(), dynamic=True)
