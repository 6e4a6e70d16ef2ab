"""Models by the names of the field: sizes, parts, and what their parameters come to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.by_hand import pack
from patchpack.errors import ConfigError
from patchpack.model import ViT, presets
from patchpack.model.attention import bucketed
from patchpack.model.block import Block, BlockStyle
from patchpack.model.layout import Layout
from patchpack.model.presets import SIZES, Size

FAMILIES = ("vit", "flexivit", "navit", "naflexvit", "siglip2")
NAMES = [name for name in vars(presets) if name.startswith(tuple(f"{family}_" for family in FAMILIES))]


def count(model: ViT) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_can_be_made(name: str) -> None:
    with torch.device("meta"):
        model = getattr(presets, name)(num_classes=3)
    family, size = name.split("_", 1)
    letters = size.rstrip("0123456789")
    width = next(sizes.width for key, sizes in SIZES.items() if key.lower() == letters)
    assert model.head.out_features == 3
    assert model.blocks[0].qkv.in_features == width
    assert model.patch_size == (int(size[len(letters) :]) if size != letters else 32)
    assert (model.blocks[0].qkv.bias is None) == (family == "navit")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # timm counts 86,567,656 for vit_base_patch16_224: one position more, the class token's, which here is part of the token
        ("vit_b16", 86_567_656 - 768),
        ("vit_ti16", 5_717_416 - 192),
        ("vit_l16", 304_326_632 - 1024),
        ("naflexvit_b16", 86_633_704),
    ],
)
def test_parameters_are_as_many_as_the_fields(name: str, expected: int) -> None:
    with torch.device("meta"):
        assert count(getattr(presets, name)()) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_size_of_your_own(family: str) -> None:
    size = Size(width=8, depth=1, mlp_dim=16, heads=2)
    make = getattr(presets, family)
    model = make(size, num_classes=4) if family == "flexivit" else make(size, 2, num_classes=4)
    batch = pack([[((2, 3), torch.randn(6, 12)), ((1, 1), torch.randn(1, 12))]])
    assert model(batch).shape == (1, 2, 4)


def test_parts_can_be_changed() -> None:
    with torch.device("meta"):
        model = presets.vit_ti16(num_classes=0, positions=None, class_token=False, pool="map", drop_path=0.1)
    assert model.positions is None
    assert model.prefix is None
    assert [block.drop_path for block in model.blocks] == pytest.approx([0.1 * i / 11 for i in range(12)])


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"size must be one of Ti, S, M, B, L, .* got 'XL'"):
        presets.vit("XL", 16)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"pool": "class"}, "pool='class' reads the class token"),
        ({"pool": "max"}, "pool must be 'map', 'mean' or 'class'"),
        ({"drop_path": 1.0}, r"drop_path must be a probability in \[0, 1\)"),
        ({"registers": -1}, "registers must be at least 0"),
        ({"rope": 100.0, "heads": 4}, "head width that is a multiple of 4, got 2"),
    ],
)
def test_parts_that_cannot_work_are_refused(parts: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ViT(**{"width": 8, "depth": 1, "heads": 2, **parts})


# ------------------------------------------------------------------------------------------------- stochastic depth


def test_stochastic_depth_leaves_out_images_and_never_parts_of_them() -> None:
    """Whatever row they are in: each image's branch is there as a whole, twice as large, or not at all."""
    segment_ids = torch.arange(1, 33).repeat_interleave(3).view(2, 48)
    segment_ids[1] -= 16
    layout = Layout.of(segment_ids, 16)
    torch.manual_seed(0)
    block = Block(width=8, heads=2, mlp_dim=16, attend=bucketed, style=BlockStyle(), drop_path=0.5)
    torch.nn.init.zeros_(block.mlp[-1].weight)
    torch.nn.init.zeros_(block.mlp[-1].bias)
    x = torch.randn(96, 8)
    whole = block.eval()(x, layout) - x
    images = (block.train()(x, layout) - x).view(32, 3, 8)
    kept = images.abs().amax((1, 2)) > 0
    torch.testing.assert_close(images[kept], 2 * whole.view(32, 3, 8)[kept])
    assert all(0 < kept[layout.slots // 16 == row].sum() < 16 for row in (0, 1))


def test_on_average_nothing_is_lost() -> None:
    layout = Layout.of(torch.arange(1, 4001)[None], 4000)
    block = Block(width=4, heads=1, mlp_dim=4, attend=bucketed, style=BlockStyle(), drop_path=0.25)
    kept: Tensor = block.train()._keep(torch.ones(4000, 1), layout)
    assert kept.mean() == pytest.approx(1, abs=0.05)
    assert sorted(set(kept.flatten().tolist())) == pytest.approx([0, 4 / 3])
