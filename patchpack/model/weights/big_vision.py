"""The conversion between our model and big_vision's npz files: ViT, FlexiViT and the image towers of SigLIP and SigLIP 2.

flax stores a linear map as ``[in, out]``, and a convolution as ``[height, width, in, out]``. Attention is stored by head:
``[width, heads, d]`` for queries, keys and values, and ``[heads, d, width]`` for the output. Blocks are separate arrays
(``encoderblock_0``, …). In models trained with ``scan=True``, blocks are stacked along a first axis (``encoderblock``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from patchpack.errors import ConfigError
from patchpack.model.positions import GridPositions
from patchpack.model.vit import ViT
from patchpack.model.weights.fit import take_over

Arrays = Mapping[str, np.ndarray]
Pairs = tuple[tuple[str, str], ...]
_ROOTS = ("params/img/", "params/", "img/", "opt/target/", "")
_BLOCK = "Transformer/encoderblock"
_LAYERS = (("norm_attention", "LayerNorm_0"), ("norm_mlp", "LayerNorm_1"))
_MLP = (("mlp.0", "MlpBlock_0/Dense_0"), ("mlp.2", "MlpBlock_0/Dense_1"))
_ATTENTION = "MultiHeadDotProductAttention_0"


def load_big_vision(model: ViT, weights: str | Path | Arrays) -> None:
    """Load the weights of a big_vision model.

    Args:
        model: a model with the same parts as the file, for instance from a preset. The model's weights are overwritten. For
            big_vision's MLPs the model needs ``BlockStyle(activation="gelu_tanh")``. If the file has a position for the class
            token, the position is added to the token.
        weights: path of an npz file, or a mapping from the names in such a file to the arrays.

    Raises:
        ConfigError: the file has no weights of an image tower, or weights are missing, left over, or of another shape. The
            model is then unchanged.
    """
    if isinstance(weights, str | Path):
        with np.load(weights) as file:
            weights = {name: file[name] for name in file.files}
    root = next((root for root in _ROOTS if f"{root}embedding/kernel" in weights), None)
    if root is None:
        raise ConfigError(
            f"expected the weights of an image tower, got none with embedding/kernel under {', '.join(map(repr, _ROOTS))}"
        )
    theirs = {name[len(root) :]: torch.from_numpy(np.array(w)) for name, w in weights.items() if name.startswith(root)}
    theirs = _apart(theirs)
    found: dict[str, Tensor] = {}
    kernel = theirs.pop("embedding/kernel")  # [height, width, 3, out], or [height · width · 3, out]: already our order
    found["embed.linear.weight"] = kernel.flatten(0, -2).T
    if (bias := theirs.pop("embedding/bias", None)) is not None:
        found["embed.linear.bias"] = bias
    token = theirs.pop("cls", None)
    table = theirs.pop("pos_embedding", theirs.pop("Transformer/posembed_input/pos_embedding", None))
    if table is not None and isinstance(model.positions, GridPositions):
        rows, cols, width = model.positions.table.shape
        table = table.reshape(-1, width) if table.shape[-1] == width else table
        if token is not None and len(table) == rows * cols + 1:
            token, table = token + table[0], table[1:]
        table = table.reshape(rows, cols, width) if len(table) == rows * cols else table
    if table is not None:
        found["positions.table"] = table
    if token is not None:
        found["prefix"] = token.reshape(1, -1)
    for i in range(len(model.blocks)):
        at = f"{_BLOCK}_{i}/"
        _layers(found, theirs, f"blocks.{i}.", at, (*_LAYERS, *_MLP))
        _attention(found, theirs, f"blocks.{i}.", f"{at}{_ATTENTION}/", with_query=True)
    if "MAPHead_0/probe" in theirs:
        _layers(found, theirs, "pool.", "MAPHead_0/", (("norm", "LayerNorm_0"), *_MLP))
        at = f"MAPHead_0/{_ATTENTION}/"
        found["pool.query"] = torch.einsum(
            "w,whd->hd", theirs.pop("MAPHead_0/probe").flatten(), theirs.pop(f"{at}query/kernel")
        )
        if (bias := theirs.pop(f"{at}query/bias", None)) is not None:
            found["pool.query"] = found["pool.query"] + bias
        _attention(found, theirs, "pool.", at, with_query=False)
    _layers(found, theirs, "", "", (("norm", "Transformer/encoder_norm"), ("head", "head")))
    take_over(model, found | theirs)


def save_big_vision(model: ViT, path: str | Path) -> None:
    """Write a model's weights as a big_vision npz file, which `load_big_vision` and timm's ``load_pretrained`` can read.

    Args:
        model: a model whose weights all have names in big_vision. It needs a table of positions for one grid, and biases. It
            must not have registers or layer scale.
        path: path of the file.

    Raises:
        ConfigError: big_vision has no name for some weights. The error lists these weights.
    """
    state = {name: value.detach().float().cpu() for name, value in model.state_dict().items()}
    side, width = model.patch_size, state["embed.linear.weight"].shape[0]
    theirs = {"embedding/kernel": state.pop("embed.linear.weight").T.reshape(side, side, 3, width)}
    if (bias := state.pop("embed.linear.bias", None)) is not None:
        theirs["embedding/bias"] = bias
    if isinstance(model.positions, GridPositions):
        theirs["pos_embedding"] = state.pop("positions.table").flatten(0, 1)[None]
    if model.num_prefix == 1 and model.class_token:
        theirs["cls"] = state.pop("prefix")[None]
    for i in range(len(model.blocks)):
        ours, at = f"blocks.{i}.", f"{_BLOCK}_{i}/"
        _layers_back(theirs, state, ours, at, (*_LAYERS, *_MLP))
        _attention_back(theirs, state, ours, f"{at}{_ATTENTION}/", model.heads)
    if "pool.query" in state:
        heads, d = state["pool.query"].shape
        at = f"MAPHead_0/{_ATTENTION}/"
        theirs["MAPHead_0/probe"] = state.pop("pool.query").reshape(1, 1, -1)
        theirs[f"{at}query/kernel"] = torch.eye(width).view(width, heads, d)
        theirs[f"{at}query/bias"] = torch.zeros(heads, d)
        _layers_back(theirs, state, "pool.", "MAPHead_0/", (("norm", "LayerNorm_0"), *_MLP))
        _attention_back(theirs, state, "pool.", at, heads)
    _layers_back(theirs, state, "", "", (("norm", "Transformer/encoder_norm"), ("head", "head")))
    if state:
        raise ConfigError(
            f"big_vision has no parameters like {', '.join(sorted(state)[:5])}: the model cannot be saved in its format"
        )
    np.savez(path, **{f"params/{name}": value.numpy() for name, value in theirs.items()})


def _apart(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Separate the blocks that are stacked along a first axis."""
    stacked = f"{_BLOCK}/"
    apart = {name: value for name, value in theirs.items() if not name.startswith(stacked)}
    for name, value in theirs.items():
        if name.startswith(stacked):
            apart |= {f"{_BLOCK}_{i}/{name[len(stacked) :]}": layer for i, layer in enumerate(value)}
    return apart


def _layers(found: dict[str, Tensor], theirs: dict[str, Tensor], ours: str, at: str, pairs: Pairs) -> None:
    """Rename the weights of norms and linear maps from big_vision's names to patchpack's names."""
    for our, their in pairs:
        for leaf, name in (("weight", "scale"), ("weight", "kernel"), ("bias", "bias")):
            if (value := theirs.pop(f"{at}{their}/{name}", None)) is not None:
                found[f"{ours}{our}.{leaf}"] = value.T if name == "kernel" else value


def _layers_back(theirs: dict[str, Tensor], state: dict[str, Tensor], ours: str, at: str, pairs: Pairs) -> None:
    for our, their in pairs:
        if (weight := state.pop(f"{ours}{our}.weight", None)) is not None:
            theirs[f"{at}{their}/{'kernel' if weight.ndim == 2 else 'scale'}"] = weight.T if weight.ndim == 2 else weight
        if (bias := state.pop(f"{ours}{our}.bias", None)) is not None:
            theirs[f"{at}{their}/bias"] = bias


def _attention(found: dict[str, Tensor], theirs: dict[str, Tensor], ours: str, at: str, *, with_query: bool) -> None:
    """Convert the weights of attention: queries, keys and values of all heads are put side by side in one matrix."""
    names, our = (("query", "key", "value"), "qkv") if with_query else (("key", "value"), "kv")
    for leaf, turn in (("kernel", lambda w: w.flatten(1).T), ("bias", torch.flatten)):
        if all(f"{at}{name}/{leaf}" in theirs for name in names):
            parts = [turn(theirs.pop(f"{at}{name}/{leaf}")) for name in names]
            found[f"{ours}{our}.{'weight' if leaf == 'kernel' else leaf}"] = torch.cat(parts)
    if (out := theirs.pop(f"{at}out/kernel", None)) is not None:
        found[f"{ours}out.weight"] = out.flatten(0, 1).T
    if (bias := theirs.pop(f"{at}out/bias", None)) is not None:
        found[f"{ours}out.bias"] = bias


def _attention_back(theirs: dict[str, Tensor], state: dict[str, Tensor], ours: str, at: str, heads: int) -> None:
    our = "qkv" if f"{ours}qkv.weight" in state else "kv"
    names = ("query", "key", "value")[-len(our) :]
    width = state[f"{ours}out.weight"].shape[0]
    for name, part in zip(names, state.pop(f"{ours}{our}.weight").chunk(len(names)), strict=True):
        theirs[f"{at}{name}/kernel"] = part.T.reshape(width, heads, -1)
    if (bias := state.pop(f"{ours}{our}.bias", None)) is not None:
        for name, part in zip(names, bias.chunk(len(names)), strict=True):
            theirs[f"{at}{name}/bias"] = part.view(heads, -1)
    theirs[f"{at}out/kernel"] = state.pop(f"{ours}out.weight").T.reshape(heads, -1, width)
    if (bias := state.pop(f"{ours}out.bias", None)) is not None:
        theirs[f"{at}out/bias"] = bias
