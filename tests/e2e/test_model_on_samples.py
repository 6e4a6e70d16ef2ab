"""The shipped photographs-in-shards through the model: dropping in the loader is slicing, and budgets know no class token."""

from __future__ import annotations

import pytest
import torch

import patchpack as pp
from patchpack.batch.unpack import PackedImage
from patchpack.batch_info import BatchInfo
from patchpack.model import ViT, presets
from patchpack.model.presets import Size

SHARDS = pp.samples.shards("val")[:1]
RECIPE = pp.recipes.navit(
    resize=pp.resize.NaViT((48, 128)), seq_len=256, max_images=32, rows_per_batch=2, drop=pp.drop.NoDrop()
)


@pytest.fixture(scope="module")
def model() -> ViT:
    torch.manual_seed(0)
    return presets.navit(Size(32, 2, 64, 2), 16, num_classes=10).eval()


@torch.no_grad()
def answers(model: ViT, recipe: pp.Recipe) -> dict[str, tuple[PackedImage, torch.Tensor]]:
    return {
        image.key: (image, logits)
        for batch in pp.load(SHARDS, recipe)
        for image, (_, logits) in zip(pp.unpack(batch), pp.unpack(batch, model(batch)), strict=True)
    }


def test_dropping_in_the_loader_is_slicing_its_tokens(model: ViT) -> None:
    """Which patches survive changes nothing about them: pixels, places, and what the model makes of exactly these."""
    whole, dropped = answers(model, RECIPE), answers(model, RECIPE.replace(drop=pp.drop.Beta(0.5, 0.9)))
    assert whole.keys() == dropped.keys()
    norm, shorter = next(iter(pp.load(SHARDS, RECIPE))).norm, 0
    for key, (image, logits) in dropped.items():
        full = whole[key][0]
        place = {tuple(ids): i for i, ids in enumerate(full.position_ids.tolist())}
        kept = [place[tuple(ids)] for ids in image.position_ids.tolist()]
        assert torch.equal(image.patches, full.patches[kept])
        alone = pp.PackedBatch(
            patches=full.patches[None, kept], position_ids=full.position_ids[None, kept],
            segment_ids=torch.ones(1, len(kept), dtype=torch.int32), num_images=torch.ones(1, dtype=torch.int32),
            grid_sizes=torch.tensor([[full.grid]], dtype=torch.int32), source_sizes=torch.tensor([[full.source_size]]),
            slot_mask=torch.ones(1, 1, dtype=torch.bool), targets=None, norm=norm, keys=[[key]], patch_size=16,
            info=BatchInfo(),
        )  # fmt: skip
        with torch.no_grad():
            torch.testing.assert_close(logits, model(alone)[0, 0], rtol=2e-5, atol=2e-5)
        shorter += len(kept) < full.grid.num_patches
    assert shorter > len(dropped) // 2


def test_a_class_token_does_not_count_in_the_budget() -> None:
    """Rows that are full to the last token take one more per slot inside the model."""
    torch.manual_seed(0)
    model = ViT(width=32, depth=1, heads=2, patch_size=16, class_token=True, registers=3, pool="class").eval()
    batch = max(pp.load(SHARDS, RECIPE), key=pp.fill_rate)
    assert pp.fill_rate(batch) > 0.97
    with torch.no_grad():
        features, tokens = model.features(batch), model.tokens(batch)
    assert tokens.shape == (*batch.segment_ids.shape, 32)
    assert torch.equal(features.any(-1), batch.slot_mask)
    assert torch.equal(tokens.any(-1), pp.token_mask(batch))
