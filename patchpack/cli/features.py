"""A model's features of the images in a preview, as colours laid back on their patches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import patchpack as pp
from patchpack.batch._types import ArrayT
from patchpack.batch.unpack import PackedImage
from patchpack.model import ViT, presets
from patchpack.model.inspect import pca_colours
from patchpack.model.weights import load_big_vision, load_timm


def load_model(name: str, weights: str | None) -> ViT:
    """A preset, with the weights of a file: big_vision's ``.npz``, or a state dict of timm's or ours that torch saved.

    Raises:
        ConfigError: no such preset or file, or weights of another model.
    """
    known = sorted(key for key, value in vars(presets).items() if isinstance(value, partial))
    if name not in known:
        raise pp.errors.ConfigError(f"--model={name!r} is not one of {', '.join(known)}")
    make = getattr(presets, name)
    torch.manual_seed(0)
    model: ViT = make(num_classes=0)
    if weights is None:
        return model.eval()
    path = Path(weights)
    try:
        if path.suffix == ".npz":
            load_big_vision(model, _headless(dict(np.load(path))))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            take = load_timm if any(key.endswith("norm1.weight") for key in state) else _load_ours
            take(model, _headless(state))
    except OSError as error:
        raise pp.errors.ConfigError(f"--weights cannot be read, {type(error).__name__}: {error}") from error
    return model.eval()


@torch.no_grad()
def feature_pictures(batch: pp.PackedBatch[ArrayT], images: list[PackedImage[ArrayT]], model: ViT) -> dict[str, Image.Image]:
    """Each image's tokens as three principal components of all these images' tokens, one pixel per patch; grey where dropped.

    Args:
        batch: of numpy arrays.
        images: of this batch.
    """
    tensors = {name: torch.from_numpy(value) for name, value in batch._asdict().items() if isinstance(value, np.ndarray)}
    tokens = model.tokens(batch._replace(**tensors))  # type: ignore[arg-type]
    own = [tokens[image.row][torch.from_numpy(batch.segment_ids[image.row] == image.slot + 1)] for image in images]
    colours = pca_colours(torch.cat(own)).numpy()
    pictures, start = {}, 0
    for image in images:
        rows, cols = image.grid
        cells = np.full((rows, cols, 3), 230, dtype=np.uint8)
        stop = start + len(image.patches)
        cells[image.position_ids[:, 0], image.position_ids[:, 1]] = colours[start:stop]
        pictures[image.key], start = Image.fromarray(cells), stop
    return pictures


def _headless(state: dict[str, Any]) -> dict[str, Any]:
    """Without the classifier, which features have no use for."""
    return {name: value for name, value in state.items() if not name.removeprefix("params/").startswith(("head.", "head/"))}


def _load_ours(model: ViT, state: dict[str, Any]) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise pp.errors.ConfigError(f"--weights are not of this model: {str(error).splitlines()[-1].strip()}") from error
