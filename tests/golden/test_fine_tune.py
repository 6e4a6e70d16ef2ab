"""Weights that are resized while they are loaded give the logits of timm's models after timm's own resizing.

`timm_resized.npz` holds these logits, and `timm_logits.npz` the weights (`make_timm_resized.py`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.by_hand import pack
from helpers.goldens import load
from patchpack.model import ViT, presets
from patchpack.model.block import BlockStyle
from patchpack.model.interpolate import CONVENTIONS
from patchpack.model.positions import GridPositions
from patchpack.model.weights import load_timm

TINY = presets.Size(width=16, depth=2, mlp_dim=64, heads=2)
TIMM = CONVENTIONS["timm"]
STORED = 8  # pixels per side of the stored kernel; the stored table is 4×4


class Case(NamedTuple):
    name: str
    height: int
    width: int
    patch_size: int
    logits: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        return self.height // self.patch_size, self.width // self.patch_size

    def row(self) -> list[tuple[tuple[int, int], Tensor]]:
        """The image in patches."""
        levels = torch.from_numpy(load("timm_resized")["image"])[: self.height, : self.width].float() / 64 - 2
        (rows, cols), p = self.grid, self.patch_size
        return [(self.grid, levels.reshape(rows, p, cols, p, 3).transpose(1, 2).reshape(rows * cols, -1))]

    def model(self, patch_size: int, grid: tuple[int, int], *, flexible: bool = False, num_classes: int = 5) -> ViT:
        parts = {"positions": GridPositions(grid=grid, width=16, how=TIMM)}
        if flexible:
            return presets.flexivit(TINY, num_classes=num_classes, kernel_size=patch_size, how=TIMM, **parts).eval()
        if self.name == "siglip_map":
            parts |= {"class_token": False, "pool": "map", "style": BlockStyle(activation="gelu_tanh")}
        return presets.vit(TINY, patch_size, num_classes=num_classes, **parts).eval()

    def weights(self) -> dict[str, Tensor]:
        at = f"{self.name}/state/"
        stored = load("timm_logits").items()
        return {key[len(at) :]: torch.from_numpy(value.astype(np.float32)) for key, value in stored if key.startswith(at)}


def cases() -> list[Case]:
    found = []
    for key, logits in load("timm_resized").items():
        if match := re.fullmatch(r"(\w+)_(\d+)x(\d+)_p(\d+)", key):
            found.append(Case(match[1], *map(int, match.groups()[1:]), torch.from_numpy(logits)))
    assert len(found) == 9
    return found


CASES = [pytest.param(case, id="{}-{}x{}-p{}".format(*case[:4])) for case in cases()]


def assert_timms(logits: Tensor, case: Case) -> None:
    torch.testing.assert_close(logits, case.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_resized_weights_give_the_logits_of_timms_resized_model(case: Case) -> None:
    model = case.model(case.patch_size, case.grid)
    done = load_timm(model, case.weights(), resize_positions=True, resize_kernel=True)
    assert done.resized == ("embed.linear.weight",) * (case.patch_size != STORED) + ("positions.table",) * (case.grid != (4, 4))
    assert done.fresh == done.left_out == ()
    with torch.no_grad():
        assert_timms(model(pack([case.row()], patch_size=case.patch_size, spare=3))[0, 0], case)


@pytest.mark.parametrize("case", CASES)
def test_weights_that_are_resized_in_the_forward_pass_give_the_same_logits(case: Case) -> None:
    """A table or kernel of the stored size is resized to each image: the logits do not depend on when that happens."""
    model = case.model(STORED, (4, 4), flexible=case.patch_size != STORED)
    assert load_timm(model, case.weights()).resized == ()
    with torch.no_grad():
        assert_timms(model(pack([case.row()], patch_size=case.patch_size, spare=3))[0, 0], case)


@pytest.mark.parametrize("case", CASES)
def test_a_fresh_head_sees_timms_features(case: Case) -> None:
    """The head of seven classes is the model's own: timm's head on the same features gives timm's logits."""
    model = case.model(case.patch_size, case.grid, num_classes=7)
    before = {name: value.clone() for name, value in model.head.state_dict().items()}
    weights = case.weights()
    done = load_timm(model, weights, head=False, resize_positions=True, resize_kernel=True)
    assert done.fresh == done.left_out == ("head.bias", "head.weight")
    assert all(torch.equal(value, before[name]) for name, value in model.head.state_dict().items())
    with torch.no_grad():
        features = model.features(pack([case.row()], patch_size=case.patch_size, spare=3))[0, 0]
    assert_timms(features @ weights["head.weight"].T + weights["head.bias"], case)
