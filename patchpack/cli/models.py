"""The loading of the model that ``--model`` and ``--weights`` name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchpack.errors import ConfigError
from patchpack.model import ViT, presets
from patchpack.model.weights import load_big_vision, load_timm
from patchpack.model.weights.checkpoint import read_file


def load_model(name: str, weights: str | None) -> ViT:
    """Return a model without a classifier, in evaluation mode.

    Args:
        name: name of a preset in `patchpack.model.presets`.
        weights: path of the weights: a ``.npz`` file from big_vision, or a file from torch or safetensors with the
            weights of timm or of patchpack. None gives random weights, which do not differ between runs.

    Raises:
        ConfigError: the preset or the file does not exist, or the weights belong to another model.
    """
    known = sorted(key for key, value in vars(presets).items() if isinstance(value, partial))
    if name not in known:
        raise ConfigError(f"--model={name!r} is not one of {', '.join(known)}")
    make = getattr(presets, name)
    torch.manual_seed(0)
    model: ViT = make(num_classes=0)
    if weights is None:
        return model.eval()
    path = Path(weights)
    try:
        if path.suffix == ".npz":
            load_big_vision(model, _without_classifier(dict(np.load(path))))
        else:
            path.stat()
            state = read_file(path)
            if isinstance(state, dict) and "embed.linear.weight" in state:
                _load_own(model, _without_classifier(state))
            else:
                _load_theirs(model, state)
    except OSError as error:
        raise ConfigError(f"--weights cannot be read, {type(error).__name__}: {error}") from error
    return model.eval()


def _without_classifier(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if not name.removeprefix("params/").startswith(("head.", "head/"))}


def _load_theirs(model: ViT, state: Any) -> None:
    try:
        load_timm(model, state, head=False)
    except ConfigError as error:
        raise ConfigError(f"--weights are not of this model: {error}") from error


def _load_own(model: ViT, state: dict[str, Any]) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"--weights are not of this model: {str(error).splitlines()[-1].strip()}") from error
