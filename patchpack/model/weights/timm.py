"""The conversion between timm's state dicts and our model.

Weights that timm stores in another form are converted. Convolution kernels become linear maps of (y, x, channel) patches.
Positions of class and register tokens are added to these tokens. A pooling query is multiplied by its projection. All other
weights are only renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from patchpack.errors import ConfigError
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.vit import ViT
from patchpack.model.weights.fit import take_over

Family = Literal["vit", "flexivit", "naflexvit"]

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


def load_timm(model: ViT, state: Mapping[str, Tensor]) -> None:
    """Load the weights of a timm model ``vit_*``, ``flexivit_*`` or ``naflexvit_*``.

    Args:
        model: a model with the same parts as the timm model, for instance from a preset. The model's weights are overwritten.
        state: timm's ``model.state_dict()``.

    Raises:
        ConfigError: weights are missing, left over, or of another shape. The error lists these weights. The model is then
            unchanged.

    Example:
        ``load_timm(presets.vit_b16(), timm.create_model("vit_base_patch16_224", pretrained=True).state_dict())``
    """
    theirs = {name.removeprefix("embeds."): value.detach() for name, value in state.items()}
    theirs = {name.replace("patch_embed.proj.", "proj."): value for name, value in theirs.items()}
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
        if table.ndim == 3 and isinstance(model.positions, GridPositions):
            rows, cols, _ = model.positions.table.shape
            table = table[0]
            if own is not None and len(table) == rows * cols + len(own):
                own, table = own + table[: len(own)], table[len(own) :]
            table = table.reshape(rows, cols, -1) if len(table) == rows * cols else table
        found["positions.table"] = table[0] if table.ndim == 4 else table
    if own is not None:
        found["prefix"] = own
    for name, axis in (("positions.rows", "pos_embed_y"), ("positions.cols", "pos_embed_x")):
        if (line := theirs.pop(axis, None)) is not None:
            found[name] = line[0]
    if "attn_pool.latent" in theirs:
        latent = theirs.pop("attn_pool.latent")[0, 0]
        query = theirs.pop("attn_pool.q.weight") @ latent
        query = query + theirs.pop("attn_pool.q.bias", torch.zeros_like(query))
        heads = getattr(model.pool, "heads", 1)
        found["pool.query"] = query.view(heads, -1)
    names = {their: ours for ours, their in _pairs(len(model.blocks))}
    for name, value in theirs.items():
        found[names.get(name, name)] = value
    take_over(model, found)


def to_timm(model: ViT, family: Family = "vit") -> dict[str, Tensor]:
    """Return a model's weights under timm's names, for ``timm_model.load_state_dict(to_timm(model))``.

    This function is the inverse of `load_timm`.

    Args:
        model: a model with a table of positions for one grid (`GridPositions`). For NaFlexViT the model may have factorised
            positions (`FactorizedPositions`) too.
        family: family of timm models that the result is for. ``"vit"``, the default, has positions for class and register
            tokens, which are set to zero. ``"flexivit"`` and ``"naflexvit"`` have no such positions.

    Raises:
        ConfigError: this family of timm models does not have the kind of positions that the model has.
    """
    state = {name: value.detach() for name, value in model.state_dict().items()}
    naflex = family == "naflexvit"
    at = "embeds." if naflex else ""
    theirs: dict[str, Tensor] = {}
    kernel = state.pop("embed.linear.weight")
    if not naflex:
        side = model.patch_size
        kernel = kernel.view(-1, side, side, 3).permute(0, 3, 1, 2).contiguous()
    theirs["embeds.proj.weight" if naflex else "patch_embed.proj.weight"] = kernel
    if (bias := state.pop("embed.linear.bias", None)) is not None:
        theirs["embeds.proj.bias" if naflex else "patch_embed.proj.bias"] = bias
    own = state.pop("prefix", None)
    registers = model.num_prefix - model.class_token
    if own is not None and model.class_token:
        theirs[f"{at}cls_token"] = own[None, :1]
    if own is not None and registers:
        theirs[f"{at}reg_token"] = own[None, -registers:]
    if isinstance(model.positions, GridPositions):
        table = state.pop("positions.table")
        if naflex:
            theirs["embeds.pos_embed"] = table[None]
        else:
            before = table.new_zeros(model.num_prefix if family == "vit" else 0, table.shape[2])
            theirs["pos_embed"] = torch.cat([before, table.flatten(0, 1)])[None]
    elif isinstance(model.positions, FactorizedPositions) and naflex:
        theirs["embeds.pos_embed_y"] = state.pop("positions.rows")[None]
        theirs["embeds.pos_embed_x"] = state.pop("positions.cols")[None]
    elif model.positions is not None:
        raise ConfigError(f"timm's {family} has no position embedding like {type(model.positions).__name__}")
    if (query := state.pop("pool.query", None)) is not None:
        width = query.numel()
        theirs["attn_pool.latent"] = query.reshape(1, 1, width)
        theirs["attn_pool.q.weight"] = torch.eye(width, dtype=query.dtype, device=query.device)
        if "pool.kv.bias" in state:
            theirs["attn_pool.q.bias"] = query.new_zeros(width)
    names = dict(_pairs(len(model.blocks)))
    return theirs | {names[name]: value for name, value in state.items()}


def _pairs(depth: int) -> list[tuple[str, str]]:
    """Return (patchpack's name, timm's name) of every weight that is only renamed."""
    modules = [(f"pool.{ours}", f"attn_pool.{their}") for ours, their in _POOL] + list(_REST)
    modules += [(f"blocks.{i}.{ours}", f"blocks.{i}.{their}") for i in range(depth) for ours, their in _BLOCK]
    return [(f"{ours}.{leaf}", f"{their}.{leaf}") for ours, their in modules for leaf in ("weight", "bias", "gamma")]
