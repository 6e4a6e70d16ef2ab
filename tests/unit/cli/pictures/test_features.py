"""Features as colours."""

from __future__ import annotations

import numpy as np
import torch

import patchpack as pp
from patchpack.cli.pictures.features import draw_features
from patchpack.model import ViT


def test_colours_lie_on_their_patches() -> None:
    """A model whose features are the place of a patch: colours fall along rows and columns, and dropped patches stay grey."""

    class Place(ViT):
        def tokens(self, batch: pp.PackedBatch) -> torch.Tensor:
            return batch.position_ids.float() * torch.tensor([10.0, 1.0])

    image = np.zeros((64, 96, 3), dtype=np.uint8)
    recipe = pp.recipes.navit(resize=pp.resize.Native(24), seq_len=32, rows_per_batch=1, drop=pp.drop.Constant(0.25))
    planner = pp.Planner([pp.Sample("a", image)], recipe)
    batch = pp.Painter(planner)[next(iter(planner))]
    images = list(pp.unpack(batch))
    colours = np.asarray(draw_features(batch, images, Place(width=8, depth=0, heads=1))["a"])
    assert colours.shape == (4, 6, 3)
    ids = images[0].position_ids
    first = colours[ids[:, 0], ids[:, 1], 0].astype(int)
    assert len(set(first)) > 6
    assert abs(np.corrcoef(first, ids[:, 0])[0, 1]) > 0.95
    kept = np.zeros((4, 6), dtype=bool)
    kept[ids[:, 0], ids[:, 1]] = True
    assert (colours[~kept] == 230).all()
