"""The plan of one image from its size, for example to find how many tokens a prompt must reserve for the image."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple

from patchpack import rng
from patchpack.errors import ConfigError, SizeError
from patchpack.plan._integers import require_epoch, require_int
from patchpack.plan.online.refusals import refusal
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import plan_table
from patchpack.types import Grid, Size


class ImagePlan(NamedTuple):
    """The plan of one image: its grid, its size after resampling, and its tokens.

    Attributes:
        grid: rows and columns of patches.
        resized: height and width in pixels that the image is resampled to.
        num_tokens: number of kept patches, or of kept tubelets (patches through several frames) for a clip.
        num_merged: number of tokens after the model has merged blocks of patches, ``times * rows * cols / merge**2`` (see
            `SmartResize.merge`). Without merging it equals `num_tokens`.
        times: number of tubelets along time, 1 for an image.
    """

    grid: Grid
    resized: Size
    num_tokens: int
    num_merged: int
    times: int = 1


def plan_image(
    size: Sequence[int], recipe: Recipe, *, key: str = "", epoch: int = 0, patch_size: int | None = None, frames: int = 1
) -> ImagePlan:
    """Decide everything about one image or clip, exactly as `load` and `pack_images` do.

    Args:
        size: (height, width) in pixels, after EXIF orientation. For an upright PIL image it is ``image.size[::-1]``.
        recipe: recipe with the policies and the seed.
        key: key of the image. It matters only if the recipe draws random numbers. Default "".
        epoch: number of the epoch. It matters only if the recipe draws random numbers. Default 0.
        patch_size: pixels per side of a patch. Required if the recipe has several patch sizes. Default None, the recipe's
            only patch size.
        frames: number of frames of a clip, >= 1. Default 1, an image.

    Raises:
        SizeError: the recipe refuses the size, or the image has more tokens than a row.
        ConfigError: `size` is not two positive integers. Or `frames` is above 1 without `Recipe.video`. Or `patch_size` is None
            although the recipe has several patch sizes. Or the recipe drops patches that the model would merge.

    Example:
        >>> plan_image((480, 640), recipes.qwen2_vl())
        ImagePlan(grid=Grid(rows=34, cols=46), resized=Size(height=476, width=644), num_tokens=1564, num_merged=391, times=1)
    """
    height, width = _sides(size)
    if patch_size is None and len(recipe.patch_sizes) > 1:
        raise ConfigError(f"the recipe has several patch sizes, {recipe.patch_sizes}: pass one of them as patch_size=")
    p = recipe.patch_sizes[0] if patch_size is None else patch_size
    require_int("frames", frames, 1, 1 << 30)
    require_int("patch_size", p, 1, 4096)
    require_epoch(epoch)
    if not isinstance(key, str):
        raise ConfigError(f"key must be a string, as in reports and PackedBatch.keys, got {key!r}")
    clip = None if frames == 1 else [frames]
    table = plan_table(recipe, [(height, width)], rng.key_hash([key]), epoch=epoch, patch_size=p, frames=clip)
    tokens = int(table.num_tokens[0])
    if tokens == 0 or tokens > recipe.row_len(p):
        raise SizeError(refusal(recipe, Size(height, width), tokens, recipe.row_len(p), frames))
    grid, times = Grid(*table.grid[0].tolist()), int(table.times[0])
    merge = getattr(recipe.resize, "merge", 1)
    if merge > 1 and tokens < times * grid.num_patches:
        raise ConfigError(f"{recipe.drop!r} drops patches from blocks that the model merges: use NoDrop() or merge=1")
    return ImagePlan(grid, Size(*table.resized[0].tolist()), tokens, tokens // merge**2, times)


def _sides(size: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError):
        raise ConfigError(f"size must be (height, width) in pixels, two integers, got {size!r}") from None
    if min(height, width) < 1:
        raise ConfigError(f"size must be (height, width) in pixels, each at least 1, got {size!r}")
    return height, width
