"""timm's own models beside ours with their weights: every ViT of timm is either refused or gives timm's logits.

The models are made small, with random weights. Needs the extra ``bench-images``, and is skipped, saying so, without it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.images.peers import make_torchvision_importable
from helpers.by_hand import pack
from patchpack.errors import ConfigError
from patchpack.model import ViT, presets
from patchpack.model.block import BlockStyle
from patchpack.model.interpolate import CONVENTIONS
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.weights import load_timm

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # the peers' own warnings
TIMM = CONVENTIONS["timm"]
TINY = presets.Size(width=32, depth=2, mlp_dim=128, heads=2)
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
FAMILIES = ("vit_*", "flexivit_*", "naflexvit_*", "deit_*", "deit3_*", "beit*")
NAMES = {
    "presets": presets,
    "CONVENTIONS": CONVENTIONS,
    "GridPositions": GridPositions,
    "FactorizedPositions": FactorizedPositions,
    "BlockStyle": BlockStyle,
}  # what the call in an error needs


@pytest.fixture(scope="module")
def timm() -> Any:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs the extra peers: torchvision")
    make_torchvision_importable()
    return pytest.importorskip("timm", reason="needs the bench-images extra: timm")


def random_weights(model: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def patches(image: Tensor, p: int) -> list[tuple[tuple[int, int], Tensor]]:
    rows, cols = image.shape[0] // p, image.shape[1] // p
    whole = image[: rows * p, : cols * p].reshape(rows, p, cols, p, 3).transpose(1, 2)
    return [((rows, cols), whole.reshape(rows * cols, -1))]


@torch.no_grad()
def error(ours: ViT, theirs: Any, image: Tensor) -> float:
    """The largest difference of the logits, as a share of the largest logit."""
    row = patches(image, ours.patch_size)
    fractional = isinstance(ours.positions, FactorizedPositions)
    mine = ours(pack([row], patch_size=ours.patch_size, fractional=fractional, spare=3))[0, 0]
    if hasattr(theirs, "embeds"):
        (rows, cols), tokens = row[0]
        where = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))[None]
        valid = torch.ones(1, rows * cols, dtype=torch.bool)
        expected = theirs({"patches": tokens[None], "patch_coord": where, "patch_valid": valid})[0]
    else:
        expected = theirs(image.permute(2, 0, 1)[None])[0]
    return float((mine - expected).abs().max() / expected.abs().max())


def call_in(text: str) -> str | None:
    start = text.find("presets.")
    level = 0
    for i in range(max(0, start), len(text)):
        level += (text[i] == "(") - (text[i] == ")")
        if start >= 0 and text[i] == ")" and not level:
            return text[start : i + 1]
    return None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_vit_of_timm_is_refused_or_gives_timms_logits(family: str, timm: Any) -> None:
    """The model is made by the call in the error, as a user would."""
    equal, refused = [], []
    for name in timm.list_models(family):
        try:
            theirs = random_weights(timm.create_model(name, **SMALL))
        except Exception:  # timm cannot make this model of these sizes
            continue
        with pytest.raises(ConfigError) as caught:
            load_timm(presets.vit(presets.Size(48, 1, 96, 3), 5, num_classes=3, image_size=35), theirs)
        if (call := call_in(str(caught.value))) is None:
            refused.append(name)
            continue
        ours = eval(call, NAMES).eval()
        load_timm(ours, theirs)
        # with factorised tables, the recipe decides whether positions keep the aspect ratio
        any_shape = hasattr(theirs, "embeds") and not isinstance(ours.positions, FactorizedPositions)
        sides = (352, 64) if any_shape else (128, 128) if hasattr(theirs, "embeds") else theirs.patch_embed.img_size
        assert error(ours, theirs, torch.randn(*sides, 3)) < 1e-4, name
        equal.append(name)
    print(f"{family}: {len(equal)} equal, {len(refused)} refused")
    assert not {"vit_small_patch16_224", "vit_base_patch16_384", "vit_large_patch14_reg4_dinov2"} & set(refused)
    assert equal or family == "beit*"


@pytest.mark.parametrize("side", [160, 224, 384])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_224", "deit3_small_patch16_224"])
def test_another_head_and_image_size(name: str, side: int, timm: Any) -> None:
    """timm resizes its model with ``set_input_size``. Both models get the same fresh head."""
    theirs = random_weights(timm.create_model(name, img_size=224, num_classes=10, **SMALL))
    block = theirs.blocks[0]
    activation = "gelu_tanh" if "Tanh" in type(block.mlp.act).__name__ else "gelu"
    style = BlockStyle(layer_scale=1e-5 if "deit3" in name else None, activation=activation)
    parts = {"class_token": False, "pool": "map"} if "siglip" in name else {}
    ours = presets.vit(TINY, 16, num_classes=37, image_size=side, how=TIMM, style=style, **parts).eval()
    done = load_timm(ours, theirs, head=False, resize_positions=True)
    assert done.resized == (() if side == 224 else ("positions.table",))
    theirs.reset_classifier(37)
    theirs.head.load_state_dict(ours.head.state_dict())
    theirs.set_input_size(img_size=(side, side))
    assert error(ours, theirs, torch.randn(side, side, 3)) < 1e-4


@pytest.mark.parametrize(("side", "patch_size"), [(240, 16), (240, 12), (336, 24), (160, 32)])
def test_flexivit_with_another_head_image_and_patch_size(side: int, patch_size: int, timm: Any) -> None:
    theirs = random_weights(timm.create_model("flexivit_small", num_classes=10, **SMALL))
    grid = side // patch_size
    stored = presets.flexivit(TINY, num_classes=37, kernel_size=16, grid=15, how=TIMM, positions_how=TIMM).eval()
    resized = presets.flexivit(TINY, num_classes=37, kernel_size=patch_size, grid=grid, how=TIMM, positions_how=TIMM).eval()
    load_timm(stored, theirs, head=False)
    load_timm(resized, theirs, head=False, resize_positions=True, resize_kernel=True)
    theirs.reset_classifier(37)
    theirs.head.load_state_dict(resized.head.state_dict())
    stored.head.load_state_dict(resized.head.state_dict())
    theirs.set_input_size(img_size=(side, side), patch_size=(patch_size, patch_size))
    image = torch.randn(side, side, 3)
    assert error(resized, theirs, image) < 1e-4
    row = patches(image, patch_size)
    with torch.no_grad():
        logits = [model(pack([row], patch_size=patch_size, spare=3))[0, 0] for model in (stored, resized)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
