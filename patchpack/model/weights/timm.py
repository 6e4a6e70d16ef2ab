"""The conversion between timm's weights and a patchpack model. `patchpack.model.weights.renaming` has the names and forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from patchpack.errors import ConfigError
from patchpack.model.interpolate import CONVENTIONS, resize_grid
from patchpack.model.kernel import resize_kernel as resized_kernel
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.vit import ViT
from patchpack.model.weights.advice import misfit
from patchpack.model.weights.checkpoint import read_checkpoint
from patchpack.model.weights.fit import misfits, take_over
from patchpack.model.weights.parts import TOLD_BY_MODULE, differences, parts_of_model, parts_of_weights
from patchpack.model.weights.renaming import from_timm, pairs, short_names

Family = Literal["vit", "flexivit", "naflexvit"]
_HOW = CONVENTIONS["timm"]


class Loaded(NamedTuple):
    """The names of the weights that `load_timm` left out, resized, or did not change in the model.

    Attributes:
        fresh: names of the model's weights that keep the values from before, sorted.
        left_out: names of weights in the checkpoint that were not loaded, without prefixes, sorted.
        resized: names of the model's weights that were resized.
    """

    fresh: tuple[str, ...]
    left_out: tuple[str, ...]
    resized: tuple[str, ...]


def load_timm(
    model: ViT,
    weights: Mapping[str, Any] | str | Path | nn.Module,
    *,
    head: bool | str = True,
    entry: str | None = None,
    resize_positions: bool = False,
    resize_kernel: bool = False,
) -> Loaded:
    """Load the weights of a timm model ``vit_*``, ``flexivit_*`` or ``naflexvit_*``.

    Args:
        model: a model with the same parts as the timm model, for instance from a preset. The model's weights are overwritten.
        weights: one of these forms:

            - a timm model,
            - the path of a file that ``torch.save`` or safetensors wrote. The file is read without running code from it,
            - a mapping such as ``model.state_dict()``.

            In a file or a mapping, the weights may be nested (``{"state_dict": …}``, ``{"model": {"backbone": …}}``), and their
            names may have a prefix (``module.``, ``backbone.``, ``encoder.``). Any nesting and any prefix is found by the name
            of the patch kernel.
        head: True, the default, loads the weights of the head (timm's module ``head``) into the model's head. False leaves them
            out, and the model's head keeps its values. Use False to train a fresh head for other classes. A name, such as
            ``"classifier"``, does the same for weights whose head has this name.
        entry: name of the part of the checkpoint to load, such as ``"state_dict_ema"`` or ``"teacher.backbone"``, where the
            checkpoint has weights of several models. Weights outside this part are not read. Default None: the checkpoint has
            weights of one model.
        resize_positions: True resizes the table of positions to the grid of the model's table, with timm's rule (bicubic with
            antialias, `resample_abs_pos_embed`). False, the default, raises an error if the grids differ. A model with the grid
            of the weights takes images of every size too, because it resizes the table in each forward pass.
        resize_kernel: True resizes the patch kernel to the model's patch size, with timm's rule (the pseudo-inverse method of
            FlexiViT, bicubic with antialias, `resample_patch_embed`). False, the default, raises an error if the sizes differ.

    Returns:
        The names of the weights that are fresh, left out or resized.

    Raises:
        ConfigError: the file cannot be read, the checkpoint has weights of no or of several timm models, `head` names no
            weights, or the weights do not fit the model. If the weights do not fit, the error names the sizes that differ and
            the arguments of a preset that makes a fitting model. The model is unchanged after every error. A state dict does
            not tell the number of heads, the pooling of a model with a class token, the activation, the order of norms, and
            NaFlexViT's rule for resizing its table. These parts are compared only if `weights` is a timm model.

    Example:
        ``load_timm(presets.vit_b16(), timm.create_model("vit_base_patch16_224", pretrained=True))``
    """
    if not isinstance(head, bool | str):
        raise ConfigError(f"head must be True, False or the name of the head in the weights, got {head!r}")
    state, module = read_checkpoint(weights, entry)
    left_out = _of_head(state, head)
    theirs = short_names({name: value for name, value in state.items() if name not in left_out})
    keep = {name for name in model.state_dict() if name.startswith("head.")} if head is not True else set()
    ours = parts_of_model(model)
    told = parts_of_weights(theirs, module, ours)
    resized = []
    if head is not True:
        told = replace(told, num_classes=None)
    if resize_kernel and told.patch_size != ours.patch_size and _is_kernel(theirs["proj.weight"], told.patch_size):
        theirs["proj.weight"] = _kernel_to(theirs["proj.weight"], told.patch_size, ours.patch_size)
        told = replace(told, patch_size=ours.patch_size)
        resized.append("embed.linear.weight")
    to = ours.grid if resize_positions and told.grid is not None and told.grid != ours.grid else None
    from_grid = told.grid
    if to is not None:
        told = replace(told, grid=to, entries=ours.entries)
        resized.append("positions.table")

    def convert(heads: int) -> dict[str, Tensor]:
        found = from_timm(theirs, depth=told.depth, heads=heads, grid=from_grid)
        if to is not None:
            found["positions.table"] = resize_grid(found["positions.table"].float(), *to, told.how or _HOW)
        return found

    found = convert(model.heads)
    problems = misfits(model, found, keep)
    if problems or TOLD_BY_MODULE & set(differences(told, ours)):
        raise misfit(told, ours, problems, flexible=model.embed.flexible is not None, head=head is True, convert=convert)
    take_over(model, found, keep)
    return Loaded(tuple(sorted(keep)), tuple(sorted(left_out)), tuple(resized))


def _of_head(state: Mapping[str, Tensor], head: bool | str) -> set[str]:
    """Return the names of the weights of the head that is left out."""
    if head is True:
        return set()
    name = "head" if head is False else head
    names = {key for key in state if key.startswith(f"{name}.")}
    if not names and head is not False:
        parts = sorted({key.split(".")[0] for key in state})
        raise ConfigError(f"head={head!r} names no weights. The parts of these weights are {', '.join(parts)}")
    return names


def _is_kernel(kernel: Tensor, size: int) -> bool:
    return kernel.ndim == 4 or (kernel.ndim == 2 and kernel.shape[1] == 3 * size * size)


def _kernel_to(kernel: Tensor, stored: int, size: int) -> Tensor:
    """Return timm's patch kernel, a convolution or a linear map, for another patch size, in the same form."""
    if kernel.ndim == 4:
        return resized_kernel(kernel.float(), (size, size), how=_HOW)
    pixels = kernel.float().view(len(kernel), stored, stored, -1)
    return resized_kernel(pixels, (size, size), how=_HOW, dims=(1, 2)).flatten(1)


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
    names = dict(pairs(len(model.blocks)))
    return theirs | {names[name]: value for name, value in state.items()}
