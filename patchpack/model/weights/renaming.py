"""timm's names and forms of weights, and patchpack's names and forms.

Weights that timm stores in another form are converted. Convolution kernels become linear maps of (y, x, channel) patches.
Positions of class and register tokens are added to these tokens. A pooling query is multiplied by its projection. All other
weights are only renamed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# (ours, timm's), for weight and bias alike
_BLOCK = (
    ("norm_attention", "norm1"),
    ("qkv", "attn.qkv"),
    ("norm_q", "attn.q_norm"),
    ("norm_k", "attn.k_norm"),
    ("out", "attn.proj"),
    ("scale_attention", "ls1"),
    ("norm_mlp", "norm2"),
    ("mlp.0", "mlp.fc1"),
    ("mlp.2", "mlp.fc2"),
    ("scale_mlp", "ls2"),
)
_POOL = (("kv", "kv"), ("out", "proj"), ("norm", "norm"), ("mlp.0", "mlp.fc1"), ("mlp.2", "mlp.fc2"))
_REST = (("norm", "norm"), ("norm_pooled", "fc_norm"), ("head", "head"))


def pairs(depth: int) -> list[tuple[str, str]]:
    """Return (patchpack's name, timm's name) of every weight that is only renamed, for a model of `depth` blocks."""
    modules = [(f"pool.{ours}", f"attn_pool.{their}") for ours, their in _POOL] + list(_REST)
    modules += [(f"blocks.{i}.{ours}", f"blocks.{i}.{their}") for i in range(depth) for ours, their in _BLOCK]
    return [(f"{ours}.{leaf}", f"{their}.{leaf}") for ours, their in modules for leaf in ("weight", "bias", "gamma")]


def short_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return timm's weights under names that ViT, FlexiViT and NaFlexViT share: ``proj.weight``, ``pos_embed``, …"""
    theirs = {name.removeprefix("embeds."): value for name, value in state.items()}
    return {name.replace("patch_embed.proj.", "proj."): value for name, value in theirs.items()}


def from_timm(theirs: Mapping[str, Tensor], *, depth: int, heads: int, grid: tuple[int, int] | None) -> dict[str, Tensor]:
    """Return timm's weights under patchpack's names and in its forms. Weights that patchpack has no name for keep their names.

    Args:
        theirs: weights under the names that `short_names` gives.
        depth: number of blocks.
        heads: number of heads of the attention pooling.
        grid: rows and columns of the table of positions. None leaves the table in timm's form,
            ``[1, entries, width]``.
    """
    theirs = dict(theirs)
    found: dict[str, Tensor] = {}
    if (kernel := theirs.pop("proj.weight", None)) is not None:
        if kernel.ndim == 4:
            kernel = kernel.permute(0, 2, 3, 1).flatten(1)  # [width, 3, p, p] → pixels (y, x, channel)
        found["embed.linear.weight"] = kernel
    if (bias := theirs.pop("proj.bias", None)) is not None:
        found["embed.linear.bias"] = bias
    prefix = [theirs.pop(name)[0] for name in ("cls_token", "reg_token") if name in theirs]
    own = torch.cat(prefix) if prefix else None
    if (table := theirs.pop("pos_embed", None)) is not None:
        if table.ndim == 3 and grid is not None:
            entries = grid[0] * grid[1]
            table = table[0]
            if own is not None and len(table) == entries + len(own):
                own, table = own + table[: len(own)], table[len(own) :]
            table = table.reshape(*grid, -1)
        found["positions.table"] = table[0] if table.ndim == 4 else table
    if own is not None:
        found["prefix"] = own
    for name, axis in (("positions.rows", "pos_embed_y"), ("positions.cols", "pos_embed_x")):
        if (line := theirs.pop(axis, None)) is not None:
            found[name] = line[0]
    if "attn_pool.latent" in theirs and "attn_pool.q.weight" in theirs:
        latent = theirs.pop("attn_pool.latent")[0, 0]
        query = theirs.pop("attn_pool.q.weight") @ latent
        query = query + theirs.pop("attn_pool.q.bias", torch.zeros_like(query))
        found["pool.query"] = query.view(heads, -1) if not len(query) % heads else query
    names = {their: ours for ours, their in pairs(depth)}
    return found | {names.get(name, name): value for name, value in theirs.items()}
