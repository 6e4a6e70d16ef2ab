"""The last step of loading weights: weights under patchpack's names are checked against the model and copied into the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

import torch
from torch import Tensor

from patchpack.errors import ConfigError
from patchpack.model.vit import ViT

OPTIONAL = re.compile(r"\bqkv\.bias$").search


def take_over(model: ViT, found: Mapping[str, Tensor], keep: Set[str] = frozenset()) -> None:
    """Load weights under patchpack's names into a model. Missing biases of queries, keys and values become zeros.

    Args:
        model: the model.
        found: patchpack's name → weight.
        keep: names of weights that keep the model's values. `found` does not have these names. Default: no names.

    Raises:
        ConfigError: weights are missing, left over, or of another shape. The error lists these weights. The model is then
            unchanged.
    """
    if problems := misfits(model, found, keep):
        raise ConfigError(f"these weights do not fit the model: {problems}. Make the model with the same parts as theirs")
    state = model.state_dict()
    rest = {name: value if name in keep else torch.zeros_like(value) for name, value in state.items()}
    model.load_state_dict(rest | dict(found))


def misfits(model: ViT, found: Mapping[str, Tensor], keep: Set[str] = frozenset()) -> str:
    """Return a list of the weights that are missing, left over, or of another shape, as text. It is empty if all weights fit.

    Args:
        model: the model, which may be on the meta device.
        found: patchpack's name → weight.
        keep: names of weights that keep the model's values.
    """
    wanted = {name: value for name, value in model.state_dict().items() if name not in keep}
    missing = sorted(wanted.keys() - found.keys() - {name for name in wanted if OPTIONAL(name)})
    extra = sorted(found.keys() - wanted.keys())
    shapes = [
        f"{name} is {list(found[name].shape)}, expected {list(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    return "; ".join(
        f"{what}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("left over", extra), ("of another shape", shapes))
        if names
    )
