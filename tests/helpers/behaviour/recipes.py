"""Recipes by name: the presets, and every policy and option by itself on small rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from helpers.behaviour import names

Make = Callable[[], Any]


def darker(pixels: Any, generator: np.random.Generator) -> Any:
    """Return the pixels, darkened by a draw: an augmentation of a user's."""
    return (pixels * generator.uniform(0.3, 1.0)).astype(np.uint8)


def p(label: str, *args: Any, **words: Any) -> Make:
    """Return how to make a policy; it is made when a recipe is."""
    return partial(names.call, label, *args, **words)


def recipe(**words: Any) -> Any:
    """Return a recipe in which nearly everything is drawn, with some fields changed; policies are made here."""
    fields: dict[str, Any] = {
        "resize": p("NaViT", (32, 80)),
        "crop": p("RandomResizedCrop", (0.3, 1.0)),
        "flip_prob": 0.5,
        "drop": p("Beta", 0.4, max_rate=0.8),
        "patch_size": 8,
        "seq_len": 100,
        "max_images": 8,
        "rows_per_batch": 2,
        "seed": 11,
    }
    fields |= words
    return names.call("Recipe", **{word: value() if isinstance(value, partial) else value for word, value in fields.items()})


def plain(**words: Any) -> Any:
    """Return a recipe that draws nothing, with some fields changed."""
    still: dict[str, Any] = {"resize": p("Pix2Struct", 30), "crop": p("WholeImage"), "flip_prob": 0.0, "drop": p("NoDrop")}
    return recipe(**(still | words))


def _alone(word: str, **policies: Make) -> dict[str, Make]:
    """Return recipes that draw nothing but what one policy draws."""
    return {f"{word}/{name.replace('_', ' ')}": partial(plain, **{word: policy}) for name, policy in policies.items()}


PACKERS: dict[str, Make] = {
    "FirstFit": p("FirstFit"),
    "FirstFit 2": p("FirstFit", 2),
    "BestFit": p("BestFit", 3),
    "NextFit": p("NextFit"),
    "Lookahead": p("Lookahead"),
    "Lookahead 5": p("Lookahead", 5),
    "Lookahead wait 3": p("Lookahead", 8, longest_wait=3),
    "Lookahead cut": p("Lookahead", 6, max_cut=0.2),
}
_CROP = p("RandomResizedCrop", (0.2, 0.8))

RECIPES: dict[str, Make] = {
    "all drawn": recipe,
    "nothing drawn": plain,
    **_alone(
        "resize",
        NaViT_uniform=p("NaViT", (32, 80)),
        NaViT_normal=p("NaViT", (32, 80), sampling="normal"),
        NaViT_area=p("NaViT", (32, 80), on="area"),
        NaViT_fixed=p("NaViT", 64),
        Pix2Struct=p("Pix2Struct", 50),
        Pix2Struct_exact=p("Pix2Struct", 50, exact=True),
        NaFlex=p("NaFlex", 50),
        NaFlex_bisection=p("NaFlex", 50, search="bisection"),
        NaFlex_no_upscale=p("NaFlex", 50, upscale=False),
        LongestSide=p("LongestSide", 64),
        LongestSide_upscale=p("LongestSide", 80, upscale=True),
        Square=p("Square", 56),
        Native=p("Native", 60),
        Native_pad=p("Native", 60, edge="pad"),
        Native_reject=p("Native", 60, oversize="reject"),
    ),
    **_alone(
        "crop",
        RandomResizedCrop=p("RandomResizedCrop"),
        RandomResizedCrop_narrow=p("RandomResizedCrop", (0.1, 0.3), (0.9, 1.1)),
        RandomCrop=p("RandomCrop", 24),
        RandomCrop_sides=p("RandomCrop", (40, 16)),
        BudgetCrop=p("BudgetCrop", 40),
    ),
    **{
        f"resize/SmartResize {name}": partial(plain, resize=policy, seq_len=400)
        for name, policy in {
            "merge 2": p("SmartResize", 32 * 32, 64 * 64),
            "merge 1": p("SmartResize", 24 * 24, 72 * 72, merge=1),
            "min_side": p("SmartResize", 32 * 32, 64 * 64, min_side=32),
        }.items()
    },
    "crop/BudgetCrop then Native": partial(plain, crop=p("BudgetCrop", 40), resize=p("Native", 60, edge="pad")),
    **_alone(
        "drop",
        Constant=p("Constant", 0.37),
        Beta=p("Beta"),
        Beta_other=p("Beta", 0.2, max_rate=0.5),
        ByResolution=p("ByResolution", 0.2, 0.7, 10, 60),
        ByResolution_wide=p("ByResolution", 0.1, 0.9, 4, 40, std=0.2),
        Scheduled=p("Scheduled", midpoint=20, width=5),
        Scheduled_falling=p("Scheduled", midpoint=15, width=-8, low=0.1, high=0.6),
    ),
    **{
        f"positions/{name}": partial(plain, positions=policy, crop=_CROP, flip_prob=0.5, drop=p("Constant", 0.3))
        for name, policy in {
            "Absolute": p("Absolute"),
            "Absolute of image": p("Absolute", of="image"),
            "Fractional": p("Fractional"),
            "Fractional keep_aspect": p("Fractional", keep_aspect=True),
            "Fractional centered": p("Fractional", centered=True),
            "Fractional all of image": p("Fractional", keep_aspect=True, centered=True, of="image"),
            "Raster": p("Raster"),
        }.items()
    },
    **{
        f"normalize/{name} {dtype}": partial(plain, normalize=policy, dtype=dtype)
        for name, policy in {
            "HALF": partial(names.find, "HALF"),
            "IMAGENET": partial(names.find, "IMAGENET"),
            "CLIP": partial(names.find, "CLIP"),
            "MeanStd": p("MeanStd", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
            "PerImage": p("PerImage"),
        }.items()
        for dtype in ("uint8", "float32", "float16")
        if not (name == "PerImage" and dtype == "uint8")
    },
    **{
        f"resample/{kernel}": partial(recipe, resample=kernel)
        for kernel in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
    },
    "resample/horizontal first": partial(recipe, resample="bicubic", resample_order="horizontal_first"),
    "decode/draft": partial(plain, resize=p("Pix2Struct", 4), decode="draft"),
    "decode/simplejpeg": partial(recipe, decode="simplejpeg"),
    "deep/range": partial(recipe, deep="range"),
    "icc/srgb": partial(recipe, icc="srgb"),
    "background": partial(recipe, background=(10, 200, 30)),
    "augment": partial(recipe, augment=darker),
    "augment/float32": partial(recipe, augment=darker, dtype="float32"),
    "flip/all": partial(plain, flip_prob=1.0),
    "patch sizes": partial(recipe, patch_size=(8, 10, 16)),
    "seq_len None": partial(
        plain, resize=p("Square", 48), seq_len=None, max_images=1, rows_per_batch=5, patch_size=(8, 12, 16)
    ),
    "seed large": partial(recipe, seed=(1 << 64) - 1),
    "max_images 2": partial(recipe, max_images=2),
    "max_pixels": partial(recipe, max_pixels=3000),
    "max_bytes": partial(recipe, max_bytes=2500),
    "video none of it": partial(recipe, video=p("Video", 2)),
    **{f"packer/{name}": partial(recipe, packer=packer) for name, packer in PACKERS.items()},
    "for_eval": lambda: names.read(recipe(), "for_eval")(),
    "for_eval budget": lambda: names.read(recipe(patch_size=(8, 16)), "for_eval")(max_patches=40),
}

VIDEO = {"video": p("Video", 2, 4), "seq_len": 220}

# presets as they are published, but for rows that are few enough to paint in a moment
PRESETS: dict[str, Make] = {
    "navit": p("recipes.navit"),
    "navit 512": p("recipes.navit", seq_len=512, seed=7, dtype="float32"),
    "pix2struct": p("recipes.pix2struct", rows_per_batch=1),
    "pix2struct 300": p("recipes.pix2struct", max_patches=300),
    "siglip2_naflex": p("recipes.siglip2_naflex"),
    "siglip2_naflex 64": p("recipes.siglip2_naflex", max_patches=64, rows_per_batch=3),
    "qwen2_vl": p("recipes.qwen2_vl", max_pixels=28**2 * 300),
    "qwen3_vl": p("recipes.qwen3_vl", max_pixels=512**2),
    "paddleocr_vl": p("recipes.paddleocr_vl", max_pixels=448**2),
    "flexivit": p("recipes.flexivit", rows_per_batch=8),
    "flexivit 96": p("recipes.flexivit", size=96, patch_size=(8, 16, 32)),
    "square": p("recipes.square", rows_per_batch=8),
    "square 64": p("recipes.square", size=64),
}
DEFAULTS = [
    "navit",
    "pix2struct",
    "siglip2_naflex",
    "qwen2_vl",
    "qwen3_vl",
    "paddleocr_vl",
    "flexivit",
    "square",
]  # planned, not painted
