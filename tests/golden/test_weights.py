"""Weights of other code bases give their logits through packed rows, several images to a row.

`timm_logits.npz` holds random weights of small models and the logits of timm's own forward pass (`make_timm_logits.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.by_hand import pack
from helpers.goldens import load
from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError
from patchpack.model import ViT, presets
from patchpack.model.block import BlockStyle
from patchpack.model.interpolate import CONVENTIONS
from patchpack.model.positions import GridPositions
from patchpack.model.weights import load_big_vision, load_timm, save_big_vision, to_timm

PATCH = 8
TINY = presets.Size(width=16, depth=2, mlp_dim=64, heads=2)
TIMM = CONVENTIONS["timm"]


def table(how: str) -> GridPositions:
    return GridPositions(grid=(6, 6), width=16, how=CONVENTIONS[how])


CASES: dict[str, tuple[Callable[[], ViT], str, bool]] = {  # name → (our model, timm's layout, images of any shape)
    "vit": (lambda: presets.vit(TINY, PATCH, num_classes=5, image_size=32), "vit", False),
    "vit_any": (lambda: presets.vit(TINY, PATCH, num_classes=5, image_size=32, how=TIMM), "vit", True),
    "flexivit": (
        lambda: presets.flexivit(TINY, num_classes=5, kernel_size=PATCH, grid=4, how=TIMM, positions_how=TIMM),
        "flexivit", True,
    ),
    "siglip_map": (
        lambda: presets.vit(
            TINY, PATCH, num_classes=5, image_size=32, class_token=False, pool="map", style=BlockStyle(activation="gelu_tanh")
        ), "vit", False,
    ),
    "siglip_gap": (
        lambda: presets.vit(TINY, PATCH, num_classes=5, image_size=32, class_token=False, pool="mean"), "vit", False,
    ),
    "naflex_gap": (lambda: presets.naflexvit(TINY, PATCH, num_classes=5, positions=table("timm")), "naflexvit", True),
    "naflex_map": (
        lambda: presets.naflexvit(
            TINY, PATCH, num_classes=5, positions=table("timm"), registers=1, pool="map", norm="before"
        ), "naflexvit", True,
    ),
    "naflex_siglip": (lambda: presets.siglip2(TINY, PATCH, num_classes=5, positions=table("siglip2")), "naflexvit", True),
}  # fmt: skip
BIG_VISION = ("vit", "flexivit", "siglip_map", "siglip_gap", "naflex_siglip")


@cache
def golden() -> dict[str, Tensor]:
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in load("timm_logits").items()}


def state_of(name: str) -> dict[str, Tensor]:
    at = f"{name}/state/"
    return {key[len(at) :]: value for key, value in golden().items() if key.startswith(at)}


def packed(images: list[Tensor]) -> PackedBatch:
    """All images in one row, with padding and an empty slot at its end."""
    row = []
    for image in images:
        rows, cols = len(image) // PATCH, image.shape[1] // PATCH
        row.append(((rows, cols), image.view(rows, PATCH, cols, PATCH, 3).transpose(1, 2).reshape(rows * cols, -1)))
    return pack([row], patch_size=PATCH, spare=7)


def images_for(any_shape: bool) -> list[Tensor]:
    return [value for name, value in golden().items() if name.startswith(f"image/{int(any_shape)}/")]


@pytest.mark.parametrize("name", CASES)
def test_timms_weights_give_timms_logits(name: str) -> None:
    make, _, any_shape = CASES[name]
    model = make().eval()
    load_timm(model, state_of(name))
    images = images_for(any_shape)
    logits = model(packed(images))[0]
    torch.testing.assert_close(logits[: len(images)], golden()[f"{name}/logits"], rtol=1e-5, atol=1e-5)
    assert not logits[len(images) :].any()


@pytest.mark.parametrize("name", CASES)
def test_weights_go_back_to_timm(name: str) -> None:
    """Names and shapes are timm's, and loading them again gives the same model."""
    make, family, any_shape = CASES[name]
    model, again = make().eval(), make().eval()
    load_timm(model, state_of(name))
    back = to_timm(model, family)  # type: ignore[arg-type]
    assert {key: value.shape for key, value in back.items()} == {key: value.shape for key, value in state_of(name).items()}
    load_timm(again, back)
    batch = packed(images_for(any_shape))
    torch.testing.assert_close(again(batch), model(batch), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stacked", [False, True], ids=["apart", "scan"])
@pytest.mark.parametrize("name", BIG_VISION)
def test_there_and_back_in_big_visions_layout(name: str, stacked: bool, tmp_path: Path) -> None:
    make, _, any_shape = CASES[name]
    model, again = make().eval(), make().eval()
    load_timm(model, state_of(name))
    save_big_vision(model, tmp_path / "weights.npz")
    with np.load(tmp_path / "weights.npz") as file:
        arrays = {key: file[key] for key in file.files}
    assert arrays["params/embedding/kernel"].shape == (PATCH, PATCH, 3, 16)
    first = "params/Transformer/encoderblock_0/MultiHeadDotProductAttention_0"
    assert arrays[f"{first}/query/kernel"].shape == (16, 2, 8)  # width, heads, values per head
    assert arrays[f"{first}/out/kernel"].shape == (2, 8, 16)
    if stacked:
        names = [key for key in arrays if "encoderblock_0" in key]
        for key in names:
            pair = [arrays.pop(key), arrays.pop(key.replace("encoderblock_0", "encoderblock_1"))]
            arrays[key.replace("encoderblock_0", "encoderblock")] = np.stack(pair)
    load_big_vision(again, arrays if stacked else tmp_path / "weights.npz")
    batch = packed(images_for(any_shape))
    assert torch.equal(again(batch), model(batch))


def test_big_visions_weights_give_timms_features() -> None:
    """SigLIP 2's image tower: flat patches, a 6×6 table, stacked blocks, attention pooling."""
    model = presets.siglip2(TINY, PATCH, positions=table("siglip2")).eval()
    load_big_vision(model, {name: value.numpy() for name, value in state_of("big_vision").items()})
    images = images_for(True)
    features = model(packed(images))[0, : len(images)]
    torch.testing.assert_close(features, golden()["big_vision/logits"], rtol=1e-5, atol=1e-5)


def test_a_position_of_the_class_token_joins_the_token() -> None:
    """As files that come from the original ViT have it."""
    model = CASES["vit"][0]()
    zeros = {name: torch.zeros_like(value) for name, value in state_of("vit").items()}
    load_timm(
        model, zeros | {"cls_token": torch.full((1, 1, 16), 2.0), "pos_embed": torch.arange(17.0).expand(16, -1).T[None] + 1}
    )
    assert model.prefix is not None
    assert torch.equal(model.prefix, torch.full((1, 16), 3.0))
    assert model.positions.table[0, 1, 0] == 3


def test_so_it_does_from_big_visions_layout(tmp_path: Path) -> None:
    model, again = CASES["vit"][0](), CASES["vit"][0]()
    save_big_vision(model, tmp_path / "weights.npz")
    with np.load(tmp_path / "weights.npz") as file:
        arrays = {key: file[key] for key in file.files}
    own = np.full((1, 1, 16), 2, dtype=np.float32)
    load_big_vision(again, arrays | {"params/pos_embedding": np.concatenate([own, arrays["params/pos_embedding"]], axis=1)})
    assert torch.equal(again.prefix, model.prefix + 2)
    assert torch.equal(again.positions.table, model.positions.table)


def test_weights_of_another_model_are_refused_whole() -> None:
    model = presets.vit(TINY, PATCH, num_classes=7, image_size=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = state_of("vit")
    del state["norm.weight"]
    with pytest.raises(
        ConfigError,
        match=r"missing: norm.weight; left over: dist_token; of another shape: head.weight is \[5, 16\], expected \[7, 16\]",
    ):
        load_timm(model, state | {"dist_token": torch.zeros(1)})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_left_over_weights_are_named() -> None:
    with pytest.raises(ConfigError, match=r"left over: norm_pre\.weight"):
        load_timm(CASES["vit"][0](), state_of("vit") | {"norm_pre.weight": torch.ones(16)})


def test_big_vision_has_no_name_for_registers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"big_vision has no parameters like blocks\.0\.scale_attention.gamma"):
        save_big_vision(CASES["naflex_gap"][0](), tmp_path / "weights.npz")
    with pytest.raises(ConfigError, match="expected the weights of an image tower"):
        load_big_vision(CASES["vit"][0](), {"params/txt/embedding": np.zeros(1)})


def test_positions_that_timm_has_no_place_for() -> None:
    with pytest.raises(ConfigError, match="timm's vit has no position embedding like FactorizedPositions"):
        to_timm(presets.navit(TINY, PATCH))
