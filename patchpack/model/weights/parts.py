"""The sizes and parts of a ViT, read from the model or from timm's weights, so that the two can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from patchpack.model.block import LayerScale
from patchpack.model.interpolate import Interpolation
from patchpack.model.pool import AttentionPool, MeanPool
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.vit import ViT

_TABLE, _LINES, _NONE = "one table", "a table of rows and a table of columns", "none"
TOLD_BY_MODULE = frozenset({"heads", "how", "preserve_aspect", "pool", "activation", "eps", "block"})
"""The parts of a timm model that only the module tells. Weights have the same names and shapes without them."""

_EPS = 1e-6  # of every LayerNorm of a patchpack model


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The sizes and parts of a ViT. None stands for a value that the weights do not tell.

    Attributes:
        width: values per token.
        depth: number of blocks.
        mlp_dim: hidden width of an MLP.
        heads: number of attention heads. Weights tell this number only through the norm of queries and keys.
        patch_size: pixels per side of the stored patch kernel.
        grid: rows and columns of the table of positions.
        entries: number of entries of the table of positions that belong to patches.
        positions: kind of positions, as the words of an error.
        how: rule by which the table is resized for each image. Only a NaFlexViT tells it.
        preserve_aspect: True if the table is resized to a square (see `GridPositions`). Only a NaFlexViT tells it.
        max_len: number of entries of factorised tables of positions.
        num_classes: logits per image, 0 without a head.
        class_token: True if images have a class token.
        registers: number of register tokens.
        pool: ``"map"``, ``"mean"`` or ``"class"``. Any other name is a pooling that patchpack does not have.
        norm: place of the final LayerNorm, ``"before"`` or ``"after"`` pooling.
        bias: True if the linear maps have biases.
        qk_norm: True if queries and keys are normalised.
        layer_scale: True if branches end in a learned scale.
        activation: ``"gelu"`` or ``"gelu_tanh"``. Any other name is an activation that patchpack does not have.
        eps: the number that a LayerNorm adds to the variance.
        block: name of timm's class of blocks, ``"Block"`` for the blocks that patchpack has.
    """

    width: int
    depth: int
    mlp_dim: int | None
    heads: int | None
    patch_size: int
    grid: tuple[int, int] | None
    entries: int | None
    positions: str
    how: Interpolation | None
    preserve_aspect: bool | None
    max_len: int | None
    num_classes: int | None
    class_token: bool
    registers: int
    pool: str | None
    norm: str
    bias: bool
    qk_norm: bool
    layer_scale: bool
    activation: str | None
    eps: float | None
    block: str | None


def parts_of_model(model: ViT) -> Parts:
    """Return the parts of a patchpack model."""
    block: Any = model.blocks[0] if len(model.blocks) else None
    positions = model.positions
    grid = (positions.table.shape[0], positions.table.shape[1]) if isinstance(positions, GridPositions) else None
    gelu = None if block is None else block.mlp[1]
    return Parts(
        width=model.embed.linear.out_features,
        depth=len(model.blocks),
        mlp_dim=None if block is None else block.mlp[0].out_features,
        heads=model.heads,
        patch_size=model.patch_size,
        grid=grid,
        entries=math.prod(grid) if grid else None,
        positions=_kind(positions),
        how=positions.how if isinstance(positions, GridPositions) else None,
        preserve_aspect=positions.preserve_aspect if isinstance(positions, GridPositions) else None,
        max_len=positions.max_len if isinstance(positions, FactorizedPositions) else None,
        num_classes=model.head.out_features if isinstance(model.head, nn.Linear) else 0,
        class_token=model.class_token,
        registers=model.num_prefix - model.class_token,
        pool="map" if isinstance(model.pool, AttentionPool) else "mean" if isinstance(model.pool, MeanPool) else "class",
        norm="before" if isinstance(model.norm, nn.LayerNorm) else "after",
        bias=block is None or block.out.bias is not None,
        qk_norm=block is not None and isinstance(block.norm_q, nn.LayerNorm),
        layer_scale=block is not None and isinstance(block.scale_attention, LayerScale),
        activation=None if gelu is None else "gelu" if gelu.approximate == "none" else "gelu_tanh",
        eps=_EPS,
        block="Block",
    )


def parts_of_weights(theirs: Mapping[str, Tensor], module: nn.Module | None, like: Parts) -> Parts:
    """Return the parts of a timm model.

    Args:
        theirs: timm's weights under the names that `short_names` gives, with a patch kernel.
        module: the timm model, if the user passed it. It tells parts that weights do not tell.
        like: parts of the patchpack model. If the table can have several grids, this model's grid is preferred.
    """
    kernel = theirs["proj.weight"]
    side = kernel.shape[-1] if kernel.ndim == 4 else math.isqrt(kernel.shape[1] // 3)
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    registers = shapes["reg_token"][1] if "reg_token" in theirs else 0
    class_token = "cls_token" in theirs
    stored = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    hints = [(int(grid[0]), int(grid[1])) for grid in (stored, like.grid) if grid is not None]
    grid, entries = _grid(shapes.get("pos_embed"), class_token + registers, hints)
    norm_of_head = shapes.get("blocks.0.attn.q_norm.weight")
    after = "fc_norm.weight" in theirs
    parts = Parts(
        width=kernel.shape[0],
        depth=1 + max((int(name.split(".")[1]) for name in theirs if _is_block(name)), default=-1),
        mlp_dim=shapes.get("blocks.0.mlp.fc1.weight", (None,))[0],
        heads=kernel.shape[0] // norm_of_head[0] if norm_of_head and norm_of_head[0] else None,
        patch_size=side,
        grid=grid,
        entries=entries,
        positions=_TABLE if "pos_embed" in theirs else _LINES if "pos_embed_y" in theirs else _NONE,
        how=None,
        preserve_aspect=None,
        max_len=shapes["pos_embed_y"][1] if "pos_embed_y" in theirs else None,
        num_classes=shapes["head.weight"][0] if "head.weight" in theirs else 0,
        class_token=class_token,
        registers=registers,
        pool="map" if "attn_pool.latent" in theirs else None if class_token else "mean",
        norm="after" if after else "before",
        bias="blocks.0.attn.proj.bias" in theirs or "blocks.0.attn.proj.weight" not in theirs,
        qk_norm=norm_of_head is not None,
        layer_scale="blocks.0.ls1.gamma" in theirs,
        activation=None,
        eps=None,
        block=None,
    )
    return parts if module is None else _with_module(parts, module)


def differences(theirs: Parts, ours: Parts) -> list[str]:
    """Return the names of the attributes that differ. Values that are None do not differ from any value."""
    return [
        name
        for name in Parts.__dataclass_fields__
        if None not in (getattr(theirs, name), getattr(ours, name)) and getattr(theirs, name) != getattr(ours, name)
    ]


def _kind(positions: nn.Module | None) -> str:
    if isinstance(positions, GridPositions):
        return _TABLE
    if isinstance(positions, FactorizedPositions):
        return _LINES
    return _NONE if positions is None else type(positions).__name__


def _is_block(name: str) -> bool:
    return name.startswith("blocks.") and name.split(".")[1].isdecimal()


def _grid(
    table: tuple[int, ...] | None, prefix: int, hints: list[tuple[int, int]]
) -> tuple[tuple[int, int] | None, int | None]:
    """Return the grid of a table of positions and its number of entries for patches.

    The table may hold positions of class and register tokens too.

    Args:
        table: shape of timm's table, ``[1, entries, width]`` or ``[1, rows, cols, width]``. None means no table.
        prefix: number of class and register tokens.
        hints: grids that the table may have. Without a hint that fits, the grid is square. The grid is None if the number of
            entries is not a square number.
    """
    if table is None:
        return None, None
    if len(table) == 4:
        return (table[1], table[2]), table[1] * table[2]
    counts = [table[1] - prefix, table[1]]
    squares = [(math.isqrt(count), math.isqrt(count)) for count in counts if count > 0]
    fitting = [grid for grid in (*hints, *squares) if math.prod(grid) in counts]
    return (fitting[0], math.prod(fitting[0])) if fitting else (None, table[1])


def _with_module(parts: Parts, module: nn.Module) -> Parts:
    """Return the parts with the values that the timm model tells, beside its weights."""
    block: Any = next(iter(getattr(module, "blocks", ())), None)
    attention, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    pool = getattr(module, "global_pool", None)
    embeds: Any = getattr(module, "embeds", None)
    how = _rule(embeds) if parts.positions == _TABLE else None
    return replace(
        parts,
        heads=getattr(attention, "num_heads", parts.heads),
        how=how,
        preserve_aspect=None if how is None else bool(embeds.pos_embed_ar_preserving),
        pool={"token": "class", "avg": "mean", "": parts.pool, None: parts.pool}.get(pool, pool),
        activation=_activation(getattr(mlp, "act", None)),
        eps=getattr(getattr(block, "norm1", None), "eps", None),
        block=None if block is None else type(block).__name__,
    )


def _rule(embeds: Any) -> Interpolation | None:
    """Return the rule by which timm's NaFlexViT resizes its table for each image. Return None for other models."""
    if embeds is None or not hasattr(embeds, "pos_embed_ar_preserving"):
        return None
    if embeds.pos_embed_use_grid_sample:
        return Interpolation()
    return Interpolation(kernel=embeds.pos_embed_interp_mode, antialias=embeds.pos_embed_antialias)


def _activation(act: nn.Module | None) -> str | None:
    if isinstance(act, nn.GELU):
        return "gelu" if act.approximate == "none" else "gelu_tanh"
    return None if act is None else {"GELUTanh": "gelu_tanh"}.get(type(act).__name__, type(act).__name__)
