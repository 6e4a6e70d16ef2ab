"""One image planned from its size: published cases, what the batch then holds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import patchpack as pp
from patchpack.types import Grid, Size

QWEN = pp.recipes.qwen2_vl()


@pytest.mark.parametrize(
    ("size", "recipe", "target", "tokens", "merged"),
    [  # merged tokens of Qwen2-VL as transformers counts them
        ((480, 640), QWEN, (476, 644), 1564, 391),
        ((375, 500), QWEN, (364, 504), 936, 234),
        ((224, 224), QWEN, (224, 224), 256, 64),
        ((1080, 1920), QWEN, (728, 1316), 4888, 1222),
        ((20, 20), QWEN, (56, 56), 16, 4),
        ((375, 500), pp.recipes.siglip2_naflex(), (224, 288), 252, 252),
        ((100, 100), pp.recipes.square(), (224, 224), 196, 196),
    ],
)
def test_known_sizes(size: tuple[int, int], recipe: pp.Recipe, target: tuple[int, int], tokens: int, merged: int) -> None:
    plan = pp.plan_image(size, recipe)
    p = recipe.patch_sizes[0]
    assert plan == (Grid(target[0] // p, target[1] // p), Size(*target), tokens, merged, 1)


@pytest.mark.parametrize("epoch", [0, 3])
def test_it_is_what_a_batch_holds(epoch: int) -> None:
    recipe = pp.recipes.navit(seq_len=256, seed=5)
    for batch in pp.load(pp.samples.shards("val"), recipe, epoch=epoch):
        for image in list(pp.unpack(batch))[:4]:
            plan = pp.plan_image(image.source_size, recipe, key=image.key, epoch=epoch)
            assert (plan.grid, plan.num_tokens) == (image.grid, len(image.patches))


def test_several_patch_sizes() -> None:
    recipe = pp.recipes.flexivit()
    assert pp.plan_image((50, 60), recipe, patch_size=30).grid == (8, 8)
    with pytest.raises(pp.errors.ConfigError, match=r"pass one of them as patch_size="):
        pp.plan_image((50, 60), recipe)


def test_refusals() -> None:
    with pytest.raises(pp.errors.SizeError, match=r"refuses a size of 1 x 201"):
        pp.plan_image((1, 201), QWEN)
    with pytest.raises(pp.errors.SizeError, match=r"becomes 100 tokens, a row holds seq_len=99"):
        pp.plan_image((160, 160), pp.Recipe(resize=Unbounded(), seq_len=99))
    for size in ((0, 5), (5,), "big", None, (5, 6, 7)):
        with pytest.raises(pp.errors.ConfigError, match=r"size must be \(height, width\) in pixels"):
            pp.plan_image(size, QWEN)
    with pytest.raises(pp.errors.ConfigError, match=r"Constant\(rate=0.5\) drops patches from blocks"):
        pp.plan_image((480, 640), QWEN.replace(drop=pp.drop.Constant(0.5)))


class Unbounded:
    draws = 0

    def bound(self, patch_size: int) -> None:
        return None

    def __call__(self, sizes: np.ndarray, patch_size: int, u: object) -> np.ndarray:
        return np.asarray(sizes // patch_size, dtype=np.int32)
