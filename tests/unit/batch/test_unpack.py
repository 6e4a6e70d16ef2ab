"""Results back under their keys: of slots, tokens, images or ragged, as they are or laid on the grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import patchpack as pp
from helpers.batches import by_hand, to_torch, with_gap
from patchpack.paint.patchify import patchify

both = pytest.mark.parametrize("kind", [lambda batch: batch, to_torch], ids=["numpy", "torch"])


def like(batch: pp.PackedBatch, values: Any) -> Any:
    return torch.from_numpy(values) if isinstance(batch.patches, torch.Tensor) else values


@both
def test_per_image_and_ragged(kind: Any) -> None:
    batch = kind(with_gap())  # a, b (unreadable), c
    pairs = list(pp.unpack(batch, like(batch, np.array([[1.0, 2], [3, 4]])), per="image"))
    assert [(key, value.tolist()) for key, value in pairs] == [("a", [1, 2]), ("c", [3, 4])]
    pairs = list(pp.unpack(batch, like(batch, np.arange(4)), per="ragged"))
    assert [(key, value.tolist()) for key, value in pairs] == [("a", [0, 1]), ("c", [2, 3])]


@both
def test_dense_lays_tokens_on_their_patches(kind: Any) -> None:
    batch = kind(by_hand())  # grids 2 x 2, 2 x 3, and 3 x 2 without its last patch
    found = {key: value.tolist() for key, value in pp.unpack(batch, batch.position_ids * 1.0, dense=True)}
    assert found["a"] == [[[0, 0], [0, 1]], [[1, 0], [1, 1]]]
    assert found["b"] == [[[0, 0], [0, 1], [0, 2]], [[1, 0], [1, 1], [1, 2]]]
    assert found["c"][:2] == [[[0, 0], [0, 1]], [[1, 0], [1, 1]]]
    assert found["c"][2][0] == [2, 0]
    assert np.isnan(found["c"][2][1]).all()


def test_dense_of_dropped_patches_matches_the_picture() -> None:
    """Patches themselves as features: each lies where it was cut from, for row and column ids and for raster ids."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    for ids in (pp.positions.Absolute(), pp.positions.Raster()):
        recipe = pp.Recipe(resize=pp.resize.Native(99), patch_size=8, seq_len=99, drop=pp.drop.Constant(0.4), positions=ids)
        (batch,) = pp.pack_images([pixels], recipe)
        ((_, dense),) = pp.unpack(batch, batch.patches.float(), dense=True)
        whole = patchify(pixels, 8).reshape(3, 5, -1)
        kept = ~dense.isnan().any(-1)
        assert int(kept.sum()) == 9
        assert np.array_equal(dense[kept], whole[kept.numpy()])


def test_several_batches_have_images_and_no_values() -> None:
    batch = by_hand()
    assert [image.key for image in pp.unpack([batch, with_gap(), batch])] == [*"abc", *"ac", *"abc"]
    with pytest.raises(pp.errors.ConfigError, match=r"values for one batch only"):
        list(pp.unpack([batch], batch.targets))


@both
@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 2), {}, r"\[2, 6, \.\.\.\] per token or \[2, 3, \.\.\.\] per slot, got \[4, 2\]; pass per='image' for outputs"),
        ((3, 5), {"per": "image"}, r"\[2, \.\.\.\] per image, got \[3, 5\]"),
        ((5,), {"per": "ragged"}, r"\[4, \.\.\.\] per ragged"),
        ((2, 3), {"dense": True}, r"\[2, 6, \.\.\.\] per token"),
        ((2, 1), {"per": "image", "dense": True}, r"dense values per image must be \[2, 2 or more, \.\.\.\]"),
        ((2,), {"per": "image", "dense": True}, r"dense values per image"),
    ],
)
def test_other_shapes_are_refused(kind: Any, shape: tuple[int, ...], options: Any, message: str) -> None:
    batch = kind(with_gap())
    with pytest.raises(pp.errors.ShapeError, match=message):
        list(pp.unpack(batch, like(batch, np.zeros(shape)), **options))


def test_what_cannot_be_laid_out_is_refused() -> None:
    batch = by_hand()
    with pytest.raises(pp.errors.ShapeError, match=r"c keeps 5 of its 6 patches, and int32 has no NaN"):
        list(pp.unpack(batch, batch.position_ids, dense=True))
    fractions = batch._replace(position_ids=batch.position_ids / np.float32(3))
    with pytest.raises(pp.errors.ShapeError, match=r"c keeps 5 of its 6 patches, and fractional positions do not tell which"):
        list(pp.unpack(fractions, batch.patches * 1.0, dense=True))
    with pytest.raises(pp.errors.ConfigError, match="dense=True needs one value per token, got one per slot"):
        list(pp.unpack(batch, batch.targets, per="slot", dense=True))
    with pytest.raises(pp.errors.ConfigError, match="per must be one of 'slot', 'token', 'image', 'ragged', got 'row'"):
        list(pp.unpack(batch, batch.targets, per="row"))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"per": "slots"}, {"per": "token"}, {"dense": True}])
def test_a_description_of_values_needs_values(options: Any) -> None:
    batch = next(iter(pp.load(pp.samples.shards("train")[:1], pp.recipes.navit(seq_len=256))))
    with pytest.raises(pp.errors.ConfigError, match="per= and dense= describe values, and no values were given"):
        list(pp.unpack(batch, **options))
