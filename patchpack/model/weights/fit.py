"""The last step of loading weights: weights under patchpack's names are checked against the model and copied into the model."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from patchpack.errors import ConfigError
from patchpack.model.vit import ViT

OPTIONAL = re.compile(r"\bqkv\.bias$").search


def take_over(model: ViT, found: Mapping[str, Tensor]) -> None:
    """Load weights under patchpack's names into a model. Missing biases of queries, keys and values become zeros.

    Raises:
        ConfigError: weights are missing, left over, or of another shape. The error lists these weights. The model is then
            unchanged.
    """
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - found.keys() - {name for name in wanted if OPTIONAL(name)})
    extra = sorted(found.keys() - wanted.keys())
    shapes = [
        f"{name} is {list(found[name].shape)}, expected {list(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    problems = [
        f"{what}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("left over", extra), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise ConfigError(
            f"these weights do not fit the model: {'; '.join(problems)}. Make the model with the same parts as theirs"
        )
    model.load_state_dict({name: found.get(name, torch.zeros_like(value)) for name, value in wanted.items()})
