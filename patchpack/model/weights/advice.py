"""The error about weights that do not fit a model: the differences, and the call of a preset that makes a fitting model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from patchpack.errors import ConfigError
from patchpack.model import presets
from patchpack.model.block import BlockStyle
from patchpack.model.interpolate import CONVENTIONS
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.vit import ViT
from patchpack.model.weights.fit import misfits
from patchpack.model.weights.parts import Parts, differences, parts_of_model

_TIMM = 'CONVENTIONS["timm"]'
_HEAD_WIDTH = 64  # values per head of nearly all ViTs
Convert = Callable[[int], Mapping[str, Tensor]]


class _Call:
    """A call of a preset: the arguments as values, to make the model, and as text, to show the call."""

    def __init__(self, name: str) -> None:
        self.name, self.values, self.texts = name, dict[str, Any](), list[str]()

    def add(self, name: str, value: object, text: str | None = None) -> None:
        self.values[name] = value
        self.texts.append(f"{name}={value!r}" if text is None else f"{name}={text}")

    def make(self) -> ViT:
        """Make the model on the meta device, where weights have shapes and no memory."""
        with torch.device("meta"):
            values = {name: value() if callable(value) else value for name, value in self.values.items()}
            model: ViT = getattr(presets, self.name)(**values)
        return model

    def __str__(self) -> str:
        return f"presets.{self.name}({', '.join(self.texts)})"


def misfit(theirs: Parts, ours: Parts, problems: str, *, flexible: bool, head: bool, convert: Convert) -> ConfigError:
    """Return the error about weights that do not fit.

    Args:
        theirs: parts of the weights.
        ours: parts of the model.
        problems: result of `misfits`.
        flexible: True if the model resizes its kernel to the batch's patch size.
        head: True if the head of the weights was to be loaded.
        convert: function from a number of heads to the weights under our names, without a resize.
    """
    different = differences(theirs, ours)
    facts = [_difference(name, theirs, ours, flexible) for name in different if name != "entries"]
    if theirs.entries is not None and theirs.grid is None:
        facts.append(
            f"the table has {theirs.entries} positions, and a state dict does not tell the rows and columns of this grid "
            f"(pass the timm model to tell them)"
        )
    call = _fitting(theirs, ours, flexible=flexible, convert=convert)
    if call is None or not facts:
        facts.append(problems)
    cures = [f"make the model with {call}{_assumed(theirs)}"] if call is not None else []
    if "grid" in different and None not in (theirs.grid, ours.grid):
        cures.append("pass resize_positions=True to resize the table of positions")
    if "patch_size" in different:
        cures.append("pass resize_kernel=True to resize the patch kernel")
    if "num_classes" in different and head:
        cures.append("pass head=False to leave out the head of the weights")
    cures = cures or ["make the model with the same parts as the weights"]
    if set(different) <= {"grid", "entries", "patch_size", "num_classes"} and call is not None and len(cures) > 1:
        ways = f"{cures[0]}, or {' and '.join(cures[1:])}"
    else:
        ways = "; ".join(cures)
    return ConfigError(f"these weights do not fit the model: {'; '.join(filter(None, facts))}. To load them, {ways}")


def _difference(name: str, theirs: Parts, ours: Parts, flexible: bool) -> str:
    values = [getattr(theirs, name), getattr(ours, name)]
    if name == "grid":
        shown = ["×".join(map(str, grid)) for grid in values]
        if flexible or any(rows != cols for rows, cols in values):
            values = shown
        else:
            name = "image_size"
            values = [
                f"{grid[0] * parts.patch_size} (grid {text})"
                for grid, parts, text in zip(values, (theirs, ours), shown, strict=True)
            ]
    if name == "patch_size" and flexible:
        name = "kernel_size"
    return f"{name}={values[0]} in the weights, {values[1]} in the model"


def _fitting(theirs: Parts, ours: Parts, *, flexible: bool, convert: Convert) -> _Call | None:
    """Return a call that makes a model which takes these weights. Return None if no preset makes such a model."""
    heads = _heads(theirs, ours)
    if theirs.mlp_dim is None or theirs.patch_size < 1:
        return None
    call = _call(theirs, ours, presets.Size(theirs.width, theirs.depth, theirs.mlp_dim, heads), flexible)
    try:
        model = call.make()
    except ConfigError:
        return None
    fits = not misfits(model, convert(heads)) and not differences(theirs, parts_of_model(model))
    return call if fits else None


def _call(theirs: Parts, ours: Parts, size: presets.Size, flexible: bool) -> _Call:
    call = _Call("flexivit" if flexible else "vit")
    named = next((name for name, known in presets.SIZES.items() if known == size), None)
    sizes = ", ".join(f"{name}={value}" for name, value in size._asdict().items())
    call.add("size", size, repr(named) if named else f"presets.Size({sizes})")
    call.add("kernel_size" if flexible else "patch_size", theirs.patch_size)
    square = theirs.grid is not None and theirs.grid[0] == theirs.grid[1]
    if theirs.grid is not None and square:
        if flexible:
            call.add("grid", theirs.grid[0])
        else:
            call.add("image_size", theirs.grid[0] * theirs.patch_size)
    call.add("num_classes", theirs.num_classes or 0)
    if flexible:
        call.add("how", CONVENTIONS["timm"], _TIMM)
    if square:
        call.add("positions_how" if flexible else "how", CONVENTIONS["timm"], _TIMM)
    elif theirs.grid is not None:
        grid, width = theirs.grid, theirs.width
        text = f"GridPositions(grid={grid}, width={width}, how={_TIMM})"
        call.add("positions", lambda: GridPositions(grid=grid, width=width, how=CONVENTIONS["timm"]), text)
    elif theirs.max_len is not None:
        length, width = theirs.max_len, theirs.width
        text = f"FactorizedPositions(width={width}, max_len={length}, fractional=True)"
        call.add("positions", lambda: FactorizedPositions(width=width, max_len=length, fractional=True), text)
    else:
        call.add("positions", None)
    if not theirs.class_token:
        call.add("class_token", False)
    if theirs.registers:
        call.add("registers", theirs.registers)
    pool = theirs.pool or ("mean" if theirs.norm == "after" else "class")
    if pool != "class":
        call.add("pool", pool)
    if theirs.norm != "before":
        call.add("norm", theirs.norm)
    _add_style(call, theirs, ours)
    return call


def _add_style(call: _Call, theirs: Parts, ours: Parts) -> None:
    activation = theirs.activation or ours.activation or "gelu"
    options: dict[str, Any] = {}
    if not theirs.bias:
        options["bias"] = False
    if theirs.qk_norm:
        options["qk_norm"] = True
    if theirs.layer_scale:
        options["layer_scale"] = 1e-5
    if activation != "gelu":
        options["activation"] = activation
    if options:
        text = ", ".join(f"{name}={value!r}" for name, value in options.items())
        call.add("style", BlockStyle(**options), f"BlockStyle({text})")


def _heads(theirs: Parts, ours: Parts) -> int:
    if theirs.heads is not None:
        return theirs.heads
    known = (theirs.width, theirs.depth, theirs.mlp_dim)
    named = next((size.heads for size in presets.SIZES.values() if size[:3] == known), None)
    if named is not None:
        return named
    if theirs.width == ours.width and ours.heads is not None:
        return ours.heads
    return max(1, theirs.width // _HEAD_WIDTH) if theirs.width % _HEAD_WIDTH == 0 else 1


def _assumed(theirs: Parts) -> str:
    """Return a remark that the number of heads is assumed, unless a module or a preset tells it."""
    known = any(size[:3] == (theirs.width, theirs.depth, theirs.mlp_dim) for size in presets.SIZES.values())
    return "" if theirs.heads is not None or known else " (a state dict does not tell the number of heads, which is assumed)"
