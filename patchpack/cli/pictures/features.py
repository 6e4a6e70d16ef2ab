"""A model's features of images, drawn as colours, one for each patch."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from patchpack.batch._types import ArrayT
from patchpack.batch.packed import PackedBatch
from patchpack.batch.unpack import PackedImage
from patchpack.model import ViT
from patchpack.model.inspect import pca_colours

_DROPPED = 230  # grey


@torch.no_grad()
def draw_features(batch: PackedBatch[ArrayT], images: list[PackedImage[ArrayT]], model: ViT) -> dict[str, Image.Image]:
    """Return, by key, a picture of the features of each image. A picture has one pixel per patch.

    Colours are the first three principal components of the tokens of all these images. Dropped patches are grey.

    Args:
        batch: a batch of numpy arrays.
        images: the images of the batch to draw.
        model: the model that computes the tokens.
    """
    tensors = {name: torch.from_numpy(value) for name, value in batch._asdict().items() if isinstance(value, np.ndarray)}
    tokens = model.tokens(batch._replace(**tensors))  # type: ignore[arg-type]
    own = [tokens[image.row][torch.from_numpy(batch.segment_ids[image.row] == image.slot + 1)] for image in images]
    colours = pca_colours(torch.cat(own)).numpy()
    pictures, start = {}, 0
    for image in images:
        rows, cols = image.grid
        cells = np.full((rows, cols, 3), _DROPPED, dtype=np.uint8)
        stop = start + len(image.patches)
        cells[image.position_ids[:, 0], image.position_ids[:, 1]] = colours[start:stop]
        pictures[image.key], start = Image.fromarray(cells), stop
    return pictures
