"""Named presets: the input side of published models, as they state it. Each is a function returning a `Recipe`.

Any field can be changed on the way: ``recipes.navit(seq_len=4096, seed=7)``.
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
    """NaViT 2307.06304: r ~ U(64, 256) per image, aspect kept, p 16, Beta drop (mean 0.5, max 0.9), packed.

    Emax is not published. An image keeps 56 tokens in the mean, so a slot for every 16 tokens of a row (64 at least) is room
    enough that rows fill with tokens before they run out of slots. The paper states no value range: (x − 0.5) / 0.5.
    """
    seq_len = changes.get("seq_len")
    slots = max(64, seq_len // 16) if isinstance(seq_len, int) else 64
    return _recipe(changes, resize=NaViT((64, 256)), drop=Beta(0.5, 0.9), max_images=slots)


def pix2struct(*, max_patches: int = 2048, **changes: Any) -> Recipe:
    """Pix2Struct 2210.03347: 2048 patches of 16 (pretraining), standardised per image before resizing, so float32."""
    return _recipe(changes, resize=Pix2Struct(max_patches), seq_len=max_patches, rows=4, normalize=PerImage(), dtype="float32")


def siglip2_naflex(*, max_patches: int = 256, **changes: Any) -> Recipe:
    """SigLIP 2 NaFlex: the largest ceiled grid within the budget, p 16, bilinear, (x − 0.5) / 0.5.

    The grid is searched by bisection, as transformers and timm do, so that sizes are theirs; ``resize=NaFlex(256)`` is exact.
    """
    return _recipe(changes, resize=NaFlex(max_patches, search="bisection"), seq_len=max(1024, max_patches))


def qwen2_vl(*, min_pixels: int = 56**2, max_pixels: int = 28**2 * 1280, **changes: Any) -> Recipe:
    """Qwen2-VL (and 2.5): smart resize to multiples of 28, p 14, bicubic, CLIP mean and std."""
    return _smart(changes, SmartResize(min_pixels, max_pixels), 14, normalize=CLIP)


def qwen3_vl(*, min_pixels: int = 256**2, max_pixels: int = 4096**2, **changes: Any) -> Recipe:
    """Qwen3-VL: smart resize to multiples of 32, p 16, bicubic, (x − 0.5) / 0.5. Lower max_pixels for shorter rows."""
    return _smart(changes, SmartResize(min_pixels, max_pixels), 16, normalize=HALF)


def paddleocr_vl(*, min_pixels: int = 384**2, max_pixels: int = 1536**2, **changes: Any) -> Recipe:
    """PaddleOCR-VL: smart resize to multiples of 28 after lifting sides to 28, p 14, bicubic, (x − 0.5) / 0.5.

    The limits are those of the transformers class; released checkpoints state their own (147,384 and 2,822,400).
    """
    return _smart(changes, SmartResize(min_pixels, max_pixels, min_side=28), 14, normalize=HALF)


def flexivit(*, size: int = 240, **changes: Any) -> Recipe:
    """FlexiViT 2212.08013: 240 x 240, one of ten patch sizes per step, one image per row, no padding."""
    return square(size=size, **{"patch_size": FLEXIVIT_PATCH_SIZES, **changes})


def square(*, size: int = 224, **changes: Any) -> Recipe:
    """The ViT baseline 2010.11929: every image resized to a square, one image per row, no padding."""
    return _recipe(changes, resize=Square(size), seq_len=None, max_images=1, rows=32)


PRESETS: dict[str, Callable[..., Recipe]] = {
    preset.__name__: preset
    for preset in (navit, pix2struct, siglip2_naflex, qwen2_vl, qwen3_vl, paddleocr_vl, flexivit, square)
}


def get(name: str, **changes: Any) -> Recipe:
    """The preset of this name. Raises `ConfigError` for an unknown one, naming what there is."""
    if name not in PRESETS:
        raise _unknown(name)
    return PRESETS[name](**changes)


class UnknownRecipeError(ConfigError, AttributeError):
    """No preset of this name."""


def __getattr__(name: str) -> Any:
    raise _unknown(name)


def _unknown(name: str) -> UnknownRecipeError:
    close = difflib.get_close_matches(name, PRESETS, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UnknownRecipeError(f"unknown recipe {name!r}.{hint} There are: {', '.join(PRESETS)}")


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
    return _recipe(changes, resize=resize, patch_size=patch_size, seq_len=seq_len, rows=2, resample="bicubic", **fields)
