"""Options of policies and recipes of a wrong type are refused by name, and lists of a YAML file are taken as tuples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import patchpack as pp
from patchpack import drop, normalize, positions, resize
from patchpack.errors import ConfigError

RECIPE = pp.Recipe(resize=resize.Native(16), patch_size=4, seq_len=16)

WRONG: dict[str, tuple[Callable[[Any], Any], list[Any], str]] = {
    "mean": (lambda v: normalize.MeanStd(v), [0.5, "abc", (0.5,), None, {1: 2}], "mean must be three numbers"),
    "mean of text": (lambda v: normalize.MeanStd((v,) * 3), ["0.5", True], "mean must be a number, got"),
    "std of text": (lambda v: normalize.MeanStd(std=(v,) * 3), ["0.5", None], "std must be a number, got"),
    "mean to 255": (lambda v: normalize.MeanStd((v,) * 3), [127.5, 1.1, -0.1, float("nan")], "0-1 scale, .* divide by 255"),
    "std to 255": (lambda v: normalize.MeanStd(std=(v,) * 3), [58.4, 1.1, 0, -1, float("nan")], "0-1 scale, .* divide by 255"),
    "rate": (drop.Constant, ["0.5", None, True], "rate must be a number"),
    "mean rate": (drop.Beta, ["0.5"], "mean must be a number"),
    "max_rate": (lambda v: drop.Beta(0.5, v), ["0.9"], "max_rate must be a number"),
    "std of a rate": (lambda v: drop.ByResolution(0.1, 0.2, 1, 9, v), ["0.1"], "std must be a number"),
    "midpoint": (lambda v: drop.Scheduled(v, 1.0, 0.0, 0.5), ["5"], "midpoint must be a number"),
    "keep_aspect": (lambda v: positions.Fractional(keep_aspect=v), ["no", 1, None], "keep_aspect must be True or False"),
    "centered": (lambda v: positions.Fractional(centered=v), ["no", 0], "centered must be True or False"),
    "upscale": (lambda v: resize.LongestSide(16, upscale=v), ["no"], "upscale must be True or False"),
    "upscale of NaFlex": (lambda v: resize.NaFlex(16, upscale=v), ["no"], "upscale must be True or False"),
    "exact": (lambda v: resize.Pix2Struct(16, exact=v), ["no"], "exact must be True or False"),
    "pixels": (lambda v: resize.SmartResize(v, 4096), ["256"], "min_pixels must be a number"),
    "std of a draw": (lambda v: resize.NaViT(std=v), ["1"], "std must be a number"),
    "range": (resize.NaViT, [(64,), [64, 128, 256]], "resolution must be a number of pixels, or the lowest"),
    "background": (lambda v: RECIPE.replace(background=v), [7, "white", (1, 2), None], "background must be three integers"),
    "a colour": (lambda v: RECIPE.replace(background=v), [(1.0, 2, 3), [True, 1, 1], (0, 0, 256)], "background .* must be an"),
    "size": (lambda v: pp.plan_image(v, RECIPE), [("30", 3), (30.5, 3), (30, 3.0)], "size must be "),
    "epoch": (lambda v: pp.plan_image((9, 9), RECIPE, epoch=v), ["1", 1.0, -1], "epoch must be an integer"),
    "key": (lambda v: pp.plan_image((9, 9), RECIPE, key=v), [1, None], "key must be a string"),
    "patch_size": (lambda v: pp.plan_image((9, 9), RECIPE, patch_size=v), ["4", 4.0], "patch_size must be an integer"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_is_refused_by_name(name: str) -> None:
    make, values, said = WRONG[name]
    for value in values:
        with pytest.raises(ConfigError, match=said):
            make(value)


def test_lists_are_tuples() -> None:
    recipe = RECIPE.replace(background=[1, 2, 3], formats=["HEIF"], patch_size=[4, 8], seq_len=64)
    assert recipe == RECIPE.replace(background=(1, 2, 3), formats=("HEIF",), patch_size=(4, 8), seq_len=64)
    assert normalize.MeanStd([0.5] * 3, [0.5] * 3) == normalize.MeanStd()  # type: ignore[arg-type]
    assert resize.NaViT([64, 128]) == resize.NaViT((64, 128))  # type: ignore[arg-type]
    assert pp.crop.RandomResizedCrop(scale=[0.5, 1.0]) == pp.crop.RandomResizedCrop(scale=(0.5, 1.0))  # type: ignore[arg-type]
