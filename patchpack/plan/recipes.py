"""Presets: functions that return the `Recipe` of a published model, as its paper states it.

Any field of the recipe can be changed by keyword: ``recipes.navit(seq_len=4096, seed=7)``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from patchpack.errors import ConfigError
from patchpack.plan.policies.drop import Beta
from patchpack.plan.policies.normalize import CLIP, HALF, PerImage
from patchpack.plan.policies.resize import NaFlex, NaViT, Pix2Struct, SmartResize, Square
from patchpack.plan.recipe import Recipe

FLEXIVIT_PATCH_SIZES = (48, 40, 30, 24, 20, 16, 15, 12, 10, 8)


def navit(**changes: Any) -> Recipe:
    """Return the recipe of NaViT 2307.06304: resolution drawn from U(64, 256) per image, aspect ratio kept, patch size 16.

    The drop rate follows a Beta distribution (mean 0.5, largest 0.9). Two settings are not in the paper. Pixel values are
    normalised to (x − 0.5) / 0.5. Rows have one slot for every 16 tokens, at least 64 slots. An image keeps 56 tokens on
    average, so rows are full of tokens before they run out of slots.
    """
    seq_len = changes.get("seq_len")
    slots = max(64, seq_len // 16) if isinstance(seq_len, int) else 64
    return _recipe(changes, resize=NaViT((64, 256)), drop=Beta(0.5, 0.9), max_images=slots)


def pix2struct(*, max_patches: int = 2048, **changes: Any) -> Recipe:
    """Return the recipe of Pix2Struct 2210.03347: at most 2048 patches (pretraining), patch size 16.

    Each image is standardised by itself before resizing. Patches are therefore float32.
    """
    return _recipe(
        changes, resize=Pix2Struct(max_patches), seq_len=max_patches, rows_per_batch=4, normalize=PerImage(), dtype="float32"
    )


def siglip2_naflex(*, max_patches: int = 256, **changes: Any) -> Recipe:
    """Return the recipe of SigLIP 2 NaFlex: the largest grid within the budget, patch size 16, bilinear, (x − 0.5) / 0.5.

    The grid is found by bisection, so it equals the grid in transformers and timm. ``resize=NaFlex(256)`` finds the exact grid.
    """
    return _recipe(changes, resize=NaFlex(max_patches, search="bisection"), seq_len=max(1024, max_patches))


def qwen2_vl(*, min_pixels: int = 56**2, max_pixels: int = 28**2 * 1280, **changes: Any) -> Recipe:
    """Return the recipe of Qwen2-VL (and 2.5): smart resize to multiples of 28, patch size 14, bicubic, CLIP mean and std.

    Args:
        min_pixels: area in pixels below which an image is scaled up. Default ``56**2``.
        max_pixels: area in pixels above which an image is scaled down. Default ``28**2 * 1280``.
        changes: any other field of `Recipe`.
    """
    return _smart(changes, SmartResize(min_pixels, max_pixels), 14, normalize=CLIP)


def qwen3_vl(*, min_pixels: int = 256**2, max_pixels: int = 4096**2, **changes: Any) -> Recipe:
    """Return the recipe of Qwen3-VL: smart resize to multiples of 32, patch size 16, bicubic, (x − 0.5) / 0.5.

    Args:
        min_pixels: area in pixels below which an image is scaled up. Default ``256**2``.
        max_pixels: area in pixels above which an image is scaled down. Default ``4096**2``. A lower value gives shorter rows.
        changes: any other field of `Recipe`.
    """
    return _smart(changes, SmartResize(min_pixels, max_pixels), 16, normalize=HALF)


def paddleocr_vl(*, min_pixels: int = 384**2, max_pixels: int = 1536**2, **changes: Any) -> Recipe:
    """Return the recipe of PaddleOCR-VL: smart resize to multiples of 28, patch size 14, bicubic, (x − 0.5) / 0.5.

    Images with a side shorter than 28 pixels are first scaled up, so that this side has 28.

    The default limits are the defaults in transformers. Released checkpoints have other limits (147,384 and 2,822,400 pixels).

    Args:
        min_pixels: area in pixels below which an image is scaled up. Default ``384**2``.
        max_pixels: area in pixels above which an image is scaled down. Default ``1536**2``.
        changes: any other field of `Recipe`.
    """
    return _smart(changes, SmartResize(min_pixels, max_pixels, min_side=28), 14, normalize=HALF)


def flexivit(*, size: int = 240, **changes: Any) -> Recipe:
    """Return the recipe of FlexiViT 2212.08013: images of 240 x 240, a random patch size per step, one image per row."""
    return square(size=size, **{"patch_size": FLEXIVIT_PATCH_SIZES, **changes})


def square(*, size: int = 224, **changes: Any) -> Recipe:
    """Return the recipe of ViT 2010.11929: every image resized to a square of `size` pixels per side, one image per row."""
    return _recipe(changes, resize=Square(size), seq_len=None, max_images=1, rows_per_batch=32)


PRESETS: dict[str, Callable[..., Recipe]] = {
    preset.__name__: preset
    for preset in (navit, pix2struct, siglip2_naflex, qwen2_vl, qwen3_vl, paddleocr_vl, flexivit, square)
}


def get(name: str, **changes: Any) -> Recipe:
    """Return the recipe of the preset `name`. Raise `ConfigError` with the known names if there is no such preset."""
    if name not in PRESETS:
        raise _unknown(name)
    return PRESETS[name](**changes)


class UnknownRecipeError(ConfigError, AttributeError):
    """Raised if there is no preset of the requested name."""


def __getattr__(name: str) -> Any:
    raise _unknown(name)


def _unknown(name: str) -> UnknownRecipeError:
    close = difflib.get_close_matches(name, PRESETS, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UnknownRecipeError(f"expected the name of a recipe, one of {', '.join(PRESETS)}, got {name!r}.{hint}")


def _recipe(changes: dict[str, Any], **fields: Any) -> Recipe:
    unknown = set(changes) - set(Recipe.__dataclass_fields__)
    if unknown:
        raise ConfigError(
            f"a recipe has no field {sorted(unknown)[0]!r}; its fields are {', '.join(Recipe.__dataclass_fields__)}"
        )
    return Recipe(**{**fields, **changes})


def _smart(changes: dict[str, Any], resize: SmartResize, patch_size: int, **fields: Any) -> Recipe:
    p = changes.get("patch_size", patch_size)
    seq_len = max(map(resize.bound, p)) if isinstance(p, tuple) else resize.bound(p)
    return _recipe(
        changes, resize=resize, patch_size=patch_size, seq_len=seq_len, rows_per_batch=2, resample="bicubic", **fields
    )
