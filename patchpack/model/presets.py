"""Models by their usual names: `vit_b16`, `flexivit_b`, `navit_s16`, `naflexvit_b16`, `siglip2_b16`, …

Each preset is a function. It takes ``num_classes``, and any argument of `ViT` that you want to change. Weights are random until
`patchpack.model.weights` loads trained weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from patchpack.errors import ConfigError
from patchpack.model.block import BlockStyle
from patchpack.model.embed import PatchEmbed
from patchpack.model.interpolate import CONVENTIONS, Interpolation
from patchpack.model.kernel import FLEXIVIT
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.vit import ViT


class Size(NamedTuple):
    """The size of a model: width of tokens, number of blocks, hidden width of an MLP, and number of attention heads."""

    width: int
    depth: int
    mlp_dim: int
    heads: int


SIZES = {
    "Ti": Size(192, 12, 768, 3),
    "S": Size(384, 12, 1536, 6),
    "M": Size(512, 12, 2048, 8),
    "B": Size(768, 12, 3072, 12),
    "L": Size(1024, 24, 4096, 16),
    "So400m": Size(1152, 27, 4304, 16),
    "H": Size(1280, 32, 5120, 16),
    "g": Size(1408, 40, 6144, 16),
    "g-opt": Size(1536, 40, 6144, 16),
    "G": Size(1664, 48, 8192, 16),
    "G-opt": Size(1536, 48, 8192, 16),
    "e": Size(1792, 56, 15360, 16),
}
"""big_vision ``models/vit.py`` `decode_variant`; "Ti" to "H" agree with table 1 of ViT (2010.11929)."""


def vit(
    size: str | Size,
    patch_size: int,
    *,
    num_classes: int = 1000,
    image_size: int = 224,
    how: Interpolation = CONVENTIONS["big_vision vit"],
    **parts: Any,
) -> ViT:
    """Make a ViT (2010.11929) with a class token and learned positions for one grid, which are interpolated for other grids.

    Args:
        size: a name in `SIZES`, or a custom `Size`.
        patch_size: pixels per side of a patch.
        num_classes: logits per image, 0 for features. Default 1000.
        image_size: pixels per side of a square image. The table of positions has the grid of this image. Default 224.
        how: rule by which the table is resized. `CONVENTIONS` has the rules of several code bases. Default: big_vision's rule.
        **parts: any arguments of `ViT`. They replace the settings of this preset.
    """
    width, depth, mlp_dim, heads = _size(size)
    side = image_size // patch_size
    preset: dict[str, Any] = {
        "patch_size": patch_size,
        "positions": GridPositions(grid=(side, side), width=width, how=how) if "positions" not in parts else None,
        "class_token": True,
        "pool": "class",
    }
    return ViT(width=width, depth=depth, mlp_dim=mlp_dim, heads=heads, num_classes=num_classes, **preset | parts)


def flexivit(
    size: str | Size,
    *,
    num_classes: int = 1000,
    kernel_size: int = 32,
    grid: int = 7,
    how: Interpolation = FLEXIVIT,
    positions_how: Interpolation = CONVENTIONS["flexivit"],
    **parts: Any,
) -> ViT:
    """Make a FlexiViT (2212.08013): one model for every patch size. The batch determines the patch size.

    Args:
        size: a name in `SIZES`, or a custom `Size`.
        num_classes: logits per image, 0 for features. Default 1000.
        kernel_size: pixels per side of the stored kernel, which is resized to the batch's patch size by the pseudo-inverse
            method (PI-resize). Default 32.
        grid: rows and columns of the stored table of positions, which is resized to the image's grid. Default 7.
        how: rule by which the kernel is resized. The default is FlexiViT's rule. timm's rule is ``CONVENTIONS["timm"]``.
            FlexiViT's rule has no antialias, so it reads only a few points of a kernel that is much larger than the patch. With
            this rule, choose a `kernel_size` near the smallest patch size.
        positions_how: rule by which the table is resized. The default is FlexiViT's rule. timm's rule is
            ``CONVENTIONS["timm"]``.
        **parts: any arguments of `ViT`. They replace the settings of this preset.
    """
    width = _size(size).width
    preset: dict[str, Any] = {
        "embed": PatchEmbed(patch_size=kernel_size, width=width, bias=True, flexible="pi", how=how),
        "positions": GridPositions(grid=(grid, grid), width=width, how=positions_how),
    }
    return vit(size, kernel_size, num_classes=num_classes, **preset | parts)


def navit(size: str | Size, patch_size: int, *, num_classes: int = 1000, max_len: int = 128, **parts: Any) -> ViT:
    """Make a NaViT (2307.06304) with query-key norm, no biases, summed factorised positions, and attention pooling.

    Args:
        size: a name in `SIZES`, or a custom `Size`.
        patch_size: pixels per side of a patch.
        num_classes: logits per image, 0 for features. Default 1000.
        max_len: longest side of a grid, in patches. Default 128.
        **parts: any arguments of `ViT`. They replace the settings of this preset.
    """
    width, depth, mlp_dim, heads = _size(size)
    preset: dict[str, Any] = {
        "patch_size": patch_size,
        "positions": FactorizedPositions(width=width, max_len=max_len) if "positions" not in parts else None,
        "style": BlockStyle(bias=False, qk_norm=True),
    }
    return ViT(width=width, depth=depth, mlp_dim=mlp_dim, heads=heads, num_classes=num_classes, **preset | parts)


def naflexvit(size: str | Size, patch_size: int, *, num_classes: int = 1000, **parts: Any) -> ViT:
    """Make timm's NaFlexViT (``naflexvit_base_patch16_gap``) with four registers, mean pooling, and a 16×16 position table.

    The table is resized to the grid of each image.

    Args:
        size: a name in `SIZES`, or a custom `Size`.
        patch_size: pixels per side of a patch.
        num_classes: logits per image, 0 for features. Default 1000.
        **parts: any arguments of `ViT`. They replace the settings of this preset.
    """
    width = _size(size).width
    preset: dict[str, Any] = {
        "positions": GridPositions(grid=(16, 16), width=width, how=CONVENTIONS["timm"]),
        "style": BlockStyle(layer_scale=1e-5),
        "class_token": False,
        "registers": 4,
        "pool": "mean",
        "norm": "after",
    }
    return vit(size, patch_size, num_classes=num_classes, **preset | parts)


def siglip2(size: str | Size, patch_size: int, *, num_classes: int = 0, **parts: Any) -> ViT:
    """Make the image tower of SigLIP 2 NaFlex (2502.14786) with attention pooling, tanh-GELU, and a 16×16 position table.

    The table is resized to the grid of each image.

    Args:
        size: a name in `SIZES`, or a custom `Size`.
        patch_size: pixels per side of a patch.
        num_classes: logits per image. With 0, the default, the model returns the pooled features.
        **parts: any arguments of `ViT`. They replace the settings of this preset.
    """
    width = _size(size).width
    preset: dict[str, Any] = {
        "positions": GridPositions(grid=(16, 16), width=width, how=CONVENTIONS["siglip2"]),
        "style": BlockStyle(activation="gelu_tanh"),
        "class_token": False,
        "pool": "map",
    }
    return vit(size, patch_size, num_classes=num_classes, **preset | parts)


Preset = Callable[..., ViT]

vit_ti16: Preset = partial(vit, "Ti", 16)
vit_s16: Preset = partial(vit, "S", 16)
vit_s32: Preset = partial(vit, "S", 32)
vit_b8: Preset = partial(vit, "B", 8)
vit_b16: Preset = partial(vit, "B", 16)
vit_b32: Preset = partial(vit, "B", 32)
vit_l14: Preset = partial(vit, "L", 14)
vit_l16: Preset = partial(vit, "L", 16)
vit_so400m14: Preset = partial(vit, "So400m", 14)
vit_h14: Preset = partial(vit, "H", 14)
vit_g14: Preset = partial(vit, "g", 14)
flexivit_s: Preset = partial(flexivit, "S")
flexivit_b: Preset = partial(flexivit, "B")
flexivit_l: Preset = partial(flexivit, "L")
navit_ti16: Preset = partial(navit, "Ti", 16)
navit_s16: Preset = partial(navit, "S", 16)
navit_b16: Preset = partial(navit, "B", 16)
navit_b32: Preset = partial(navit, "B", 32)
navit_l16: Preset = partial(navit, "L", 16)
naflexvit_b16: Preset = partial(naflexvit, "B", 16)
siglip2_b16: Preset = partial(siglip2, "B", 16)
siglip2_so400m16: Preset = partial(siglip2, "So400m", 16)


def _size(size: str | Size) -> Size:
    if isinstance(size, Size):
        return size
    if size not in SIZES:
        raise ConfigError(f"size must be one of {', '.join(SIZES)}, or a Size, got {size!r}")
    return SIZES[size]
