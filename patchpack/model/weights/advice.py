"""The error about weights that do not fit a model: the differences, and the call of a preset that makes a fitting model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from patchpack.errors import ConfigError
from patchpack.model import presets
from patchpack.model.block import BlockStyle
from patchpack.model.interpolate import CONVENTIONS, Interpolation
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.vit import ViT
from patchpack.model.weights.fit import misfits
from patchpack.model.weights.parts import Parts, differences, parts_of_model

_HEAD_WIDTH = 64  # values per head of nearly all ViTs
Convert = Callable[[int], Mapping[str, Tensor]]


class _Call:
    """A call of a preset: the arguments as values, to make the model, and as text, to show the call."""

    def __init__(self, name: str) -> None:
        self.name, self.values, self.texts = name, dict[str, Any](), list[str]()

    def add(self, name: str, value: object, text: str | None = None, *, shown: bool = True) -> None:
        """Add an argument. Its name is not shown if it is a positional argument."""
        self.values[name] = value
        text = repr(value) if text is None else text
        self.texts.append(f"{name}={text}" if shown else text)

    def make(self) -> ViT:
        """Make the model without changing torch's random state. The model has one block at most, to save time and memory."""
        size: presets.Size = self.values["size"]
        with torch.random.fork_rng(devices=[]):
            values = {name: value() if callable(value) else value for name, value in self.values.items()}
            model: ViT = getattr(presets, self.name)(**values | {"size": size._replace(depth=min(1, size.depth))})
        return model

    def __str__(self) -> str:
        return f"presets.{self.name}({', '.join(self.texts)})"


def misfit(theirs: Parts, ours: Parts, problems: str, *, flexible: bool, head: bool, convert: Convert) -> ConfigError:
    """Return the error about weights that do not fit.

    Args:
        theirs: parts of the weights, after the resizes that the user asked for.
        ours: parts of the model.
        problems: result of `misfits`.
        flexible: True if the model resizes its kernel to the batch's patch size.
        head: True if the head of the weights was to be loaded.
        convert: function from a number of heads to the weights under patchpack's names.
    """
    different = set(differences(theirs, ours)) - {"entries"}
    facts = [_difference(name, theirs, ours, flexible) for name in differences(theirs, ours) if name in different]
    unknown = theirs.entries is not None and theirs.grid is None
    if unknown:
        facts.append(f"the table has {theirs.entries} positions, which is not the number of a square grid")
    call = None if unknown else _fitting(theirs, ours, flexible=flexible, keep=not head, convert=convert)
    if call is None or not facts:
        facts.append(problems)
    options = _options(different, theirs, ours)
    passed = " and ".join(f"{option} ({effect})" for option, effect in options.values())
    if call is None:
        way = "make the model with the same parts as the weights"
        if unknown:
            way = "pass the timm model instead of its state dict, because the model tells the rows and columns"
    else:
        way = f"make the model with {call}{_assumed(theirs, ours)}"
        if options and different == options.keys():
            way += f", or pass {passed}"
        elif options:
            way += f". The {' and the '.join(sorted(options))} may differ if you pass {passed}"
    return ConfigError(f"these weights do not fit the model: {'; '.join(filter(None, facts))}. To load them, {way}")


def _options(different: set[str], theirs: Parts, ours: Parts) -> dict[str, tuple[str, str]]:
    """Return the part that differs → the option of `load_timm` that makes it fit, and the effect of this option."""
    options = {}
    if "grid" in different:
        options["grid"] = ("resize_positions=True", "the table of positions is resized")
    if "patch_size" in different:
        options["patch_size"] = ("resize_kernel=True", "the patch kernel is resized")
    if "num_classes" in different:
        kept = "the model keeps its own head" if ours.num_classes else "the head of the weights is left out"
        options["num_classes"] = ("head=False", kept)
    return options


def _difference(name: str, theirs: Parts, ours: Parts, flexible: bool) -> str:
    values = [getattr(theirs, name), getattr(ours, name)]
    if name == "grid":
        shown = ["×".join(map(str, grid)) for grid in values]
        square = all(rows == cols for rows, cols in values)
        if flexible or not square:
            values = [rows for rows, _ in values] if square else shown
        else:
            name = "image_size"
            values = [
                f"{grid[0] * parts.patch_size} (grid {text})"
                for grid, parts, text in zip(values, (theirs, ours), shown, strict=True)
            ]
    if name == "patch_size" and flexible:
        name = "kernel_size"
    if name == "how":
        values = [_rule(how) for how in values]
    return f"{name}={values[0]} in the weights, {values[1]} in the model"


def _fitting(theirs: Parts, ours: Parts, *, flexible: bool, keep: bool, convert: Convert) -> _Call | None:
    """Return a call that makes a model which takes these weights. Return None if no preset makes such a model."""
    heads = _heads(theirs, ours)
    if theirs.mlp_dim is None or theirs.patch_size < 1:
        return None
    call = _call(theirs, ours, presets.Size(theirs.width, theirs.depth, theirs.mlp_dim, heads), flexible)
    try:
        model = call.make()
    except ConfigError:
        return None
    kept = {name for name in model.state_dict() if keep and name.startswith("head.")}
    found = _one_block(convert(heads), theirs.depth)
    made = replace(parts_of_model(model), depth=theirs.depth)
    return call if found is not None and not misfits(model, found, kept) and not differences(theirs, made) else None


def _one_block(found: Mapping[str, Tensor], depth: int) -> dict[str, Tensor] | None:
    """Return the weights without all blocks but the first. Return None unless all blocks have the same names and shapes."""
    blocks: list[dict[str, torch.Size]] = [{} for _ in range(depth)]
    for name, value in found.items():
        if (block := re.match(r"blocks\.(\d+)\.", name)) is not None:
            blocks[int(block[1])][name[block.end() :]] = value.shape
    if any(block != blocks[0] for block in blocks):
        return None
    return {name: value for name, value in found.items() if not re.match(r"blocks\.0*[1-9]", name)}


def _call(theirs: Parts, ours: Parts, size: presets.Size, flexible: bool) -> _Call:
    call = _Call("flexivit" if flexible else "vit")
    named = next((name for name, known in presets.SIZES.items() if known == size), None)
    sizes = ", ".join(f"{name}={value}" for name, value in size._asdict().items())
    call.add("size", size, f'"{named}"' if named else f"presets.Size({sizes})", shown=False)
    call.add("kernel_size" if flexible else "patch_size", theirs.patch_size, shown=flexible)
    _add_positions(call, theirs, flexible)
    call.add("num_classes", ours.num_classes if theirs.num_classes is None else theirs.num_classes)
    if not theirs.class_token:
        call.add("class_token", False)
    if theirs.registers:
        call.add("registers", theirs.registers)
    pool = theirs.pool or (ours.pool if ours.class_token and ours.pool != "map" else None)
    pool = pool or ("mean" if theirs.norm == "after" else "class")
    if pool != "class":
        call.add("pool", pool, f'"{pool}"')
    if theirs.norm != "before":
        call.add("norm", theirs.norm, f'"{theirs.norm}"')
    _add_style(call, theirs, ours)
    return call


def _add_positions(call: _Call, theirs: Parts, flexible: bool) -> None:
    grid, width, length = theirs.grid, theirs.width, theirs.max_len
    how = theirs.how or CONVENTIONS["timm"]
    text = _rule(how)
    plain = grid is not None and grid[0] == grid[1] and not theirs.preserve_aspect
    if grid is not None and plain:
        call.add("grid" if flexible else "image_size", grid[0] * (1 if flexible else theirs.patch_size))
    if flexible:
        call.add("how", CONVENTIONS["timm"], _rule(CONVENTIONS["timm"]))
    if plain:
        call.add("positions_how" if flexible else "how", how, text)
    elif grid is not None:
        square = ", preserve_aspect=True" if theirs.preserve_aspect else ""
        preserve = bool(theirs.preserve_aspect)
        call.add(
            "positions",
            lambda: GridPositions(grid=grid, width=width, how=how, preserve_aspect=preserve),
            f"GridPositions(grid={grid}, width={width}, how={text}{square})",
        )
    elif length is not None:
        text = f"FactorizedPositions(width={width}, max_len={length}, fractional=True)"
        call.add("positions", lambda: FactorizedPositions(width=width, max_len=length, fractional=True), text)
    else:
        call.add("positions", None)


def _rule(how: Interpolation) -> str:
    """Return a rule as text, by its name if it has one. Of two names for one rule the last is taken."""
    names = [name for name, known in CONVENTIONS.items() if known == how]
    return f'CONVENTIONS["{names[-1]}"]' if names else repr(how)


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
        text = ", ".join(f"{name}={value!r}".replace("'", '"') for name, value in options.items())
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


def _assumed(theirs: Parts, ours: Parts) -> str:
    """Return a remark that the number of heads is assumed, unless a module, a preset or the user's model tells it."""
    known = any(size[:3] == (theirs.width, theirs.depth, theirs.mlp_dim) for size in presets.SIZES.values())
    if theirs.heads is not None or known or theirs.width == ours.width:
        return ""
    return " (a state dict does not tell the number of heads, which is assumed)"
