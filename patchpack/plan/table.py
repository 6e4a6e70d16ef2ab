"""The decisions about n images from their sizes and keys, as columns, without reading a pixel.

`decide_grids` decides grids and token counts, on which rows depend. `place_grids` adds the decisions that only painting needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack._arrays import IntegerArray
from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64
from patchpack.plan.policies.crop import CropPolicy, WholeImage
from patchpack.plan.policies.drop import DropPolicy
from patchpack.plan.policies.resize import PlacingPolicy, ResizePolicy
from patchpack.plan.recipe import Recipe
from patchpack.types import FloatArray, IntArray, PlanTable


class GridTable(NamedTuple):
    """The decisions that rows depend on, as the columns of a table. Line i has the decisions about image i.

    Attributes:
        grid: integers ``[n, 2]``, (rows, cols) of patches before dropping. (0, 0) if the policy refuses the size.
        num_tokens: integers ``[n]``, number of kept patches. 0 if the policy refuses the size.
        crop: integers ``[n, 4]``, (top, left, height, width) of the part that the crop policy keeps. None if no image is
            cropped.
        times: int32 ``[n]``, number of tubelets (patches through several frames) along time. None if all are images.
    """

    grid: IntegerArray
    num_tokens: IntegerArray
    crop: IntegerArray | None = None
    times: IntArray | None = None

    def take(self, lines: IntegerArray | npt.NDArray[np.bool_] | slice) -> GridTable:
        """Return a table with only the given lines, in the given order. A mask keeps the lines where it is True."""
        crop, times = self.crop, self.times
        return GridTable(
            self.grid[lines],
            self.num_tokens[lines],
            None if crop is None else crop[lines],
            None if times is None else times[lines],
        )

    def compact(self) -> GridTable:
        """Return the table with 16-bit integers in each column whose numbers fit into 16 bits."""
        crop = None if self.crop is None else _compact(self.crop)
        return GridTable(_compact(self.grid), _compact(self.num_tokens), crop, self.times)

    @classmethod
    def concatenate(cls, tables: Sequence[GridTable]) -> GridTable:
        """Return one table with the lines of the given tables of one recipe, in order."""
        crops = [table.crop for table in tables if table.crop is not None]
        times = [table.times for table in tables if table.times is not None]
        return cls(
            np.concatenate([table.grid for table in tables]),
            np.concatenate([table.num_tokens for table in tables]),
            np.concatenate(crops) if crops else None,
            np.concatenate(times) if times else None,
        )


def plan_table(
    recipe: Recipe,
    sizes: npt.ArrayLike,
    key_hash: rng.U64,
    *,
    epoch: int = 0,
    seen: IntegerArray | int = 0,
    patch_size: int | None = None,
    frames: npt.ArrayLike | None = None,
) -> PlanTable:
    """Decide everything about n images from their sizes and keys: `decide_grids`, then `place_grids`.

    Args:
        recipe: recipe with the policies and the seed.
        sizes: int ``[n, 2]``, (height, width) of each image in pixels after orientation, >= 1.
        key_hash: uint64 ``[n]``, the hashes of the keys (see `patchpack.rng.key_hash`).
        epoch: number of the epoch, on which the random draws depend. Default 0.
        seen: int64 ``[n]``, running number of each image over all epochs, for drop schedules. One integer is the number of the
            first image. Default 0.
        patch_size: pixels per side of a patch. Default None, the first patch size of the recipe.
        frames: int ``[n]``, number of frames of each clip, 1 for an image. Default None, all are images.

    Returns:
        `PlanTable` of n lines. If the policy refuses a size, the image has the grid (0, 0) and 0 tokens.

    Raises:
        ConfigError: a policy breaks its protocol. It returns a wrong shape or dtype, a box outside the image, a grid with one
            side of 0, more patches than its own bound, or a token count outside ``1 … rows * cols``. Or `frames` are given
            although the recipe has no `video`.
    """
    sizes = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
    n = len(sizes)
    p = recipe.patch_sizes[0] if patch_size is None else patch_size
    ordinals: Int64 = np.arange(n, dtype=np.int64) + seen if np.ndim(seen) == 0 else np.asarray(seen, dtype=np.int64)
    grids = decide_grids(recipe, sizes, key_hash, epoch=epoch, ordinals=ordinals, patch_size=p, frames=frames)
    return place_grids(recipe, grids, sizes, key_hash, epoch=epoch, patch_size=p)


def decide_grids(
    recipe: Recipe,
    sizes: Int64,
    key_hash: rng.U64,
    *,
    epoch: int,
    ordinals: Int64,
    patch_size: int,
    frames: npt.ArrayLike | None = None,
) -> GridTable:
    """Decide which part of each image is read, its grid, and how many tokens are kept.

    Args:
        recipe: recipe with the policies and the seed.
        sizes: int64 ``[n, 2]``, (height, width) of each image in pixels after orientation, >= 1.
        key_hash: uint64 ``[n]``, the hashes of the keys.
        epoch: number of the epoch, on which the random draws depend.
        ordinals: int64 ``[n]``, running number of each image over all epochs, for drop schedules.
        patch_size: pixels per side of a patch.
        frames: int ``[n]``, number of frames of each clip, 1 for an image. Default None, all are images.

    Raises:
        ConfigError: see `plan_table`.
    """
    n, p = len(sizes), patch_size
    crop = _crop(recipe, sizes, p, epoch, key_hash)
    if crop is not None:
        sizes = crop[:, 2:].astype(np.int64)
    u = _uniforms(recipe, epoch, key_hash, rng.Stage.RESIZE)
    grids = _int_columns(recipe.resize(sizes, p, u), (n, 2), repr(recipe.resize))
    accepted = np.all(grids > 0, axis=1)
    broken = ~accepted & np.any(grids != 0, axis=1)
    if broken.any():
        i = int(np.argmax(broken))
        raise ConfigError(
            f"{recipe.resize!r} made the grid {grids[i].tolist()} of a {sizes[i].tolist()} image (height, width): rows and "
            f"cols must be at least 1, or both 0 to refuse the size"
        )
    bound = recipe.resize.bound(p)
    patches = grids.astype(np.int64).prod(axis=1)
    if bound is not None and (patches > bound).any():
        worst = int(np.argmax(patches))
        raise ConfigError(
            f"{recipe.resize!r} made {patches[worst]} patches of a {sizes[worst].tolist()} image (height, width) at "
            f"patch_size={p}, more than its own bound of {bound}"
        )

    times = None if frames is None else _times(recipe, frames, n)
    some = np.where(accepted[:, None], grids, np.int32(1))  # a drop policy never receives an empty grid
    if times is not None:  # the drop policy receives a clip as one tall grid
        some = np.stack([some[:, 0].astype(np.int64) * times, some[:, 1]], axis=1)
        patches *= times
    u = _uniforms(recipe, epoch, key_hash, rng.Stage.DROP)
    tokens = _int_columns(recipe.drop(some, u, ordinals), (n,), repr(recipe.drop))
    wrong = accepted & ((tokens < 1) | (tokens > patches))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ConfigError(
            f"{recipe.drop!r} keeps {tokens[i]} of the {patches[i]} patches of grid {some[i].tolist()}: it must keep at "
            f"least 1 and at most all"
        )
    return GridTable(
        grid=np.where(accepted[:, None], grids, np.int32(0)),
        num_tokens=np.where(accepted, tokens, np.int32(0)),
        crop=crop,
        times=times,
    )


def place_grids(recipe: Recipe, grids: GridTable, sizes: Int64, key_hash: rng.U64, *, epoch: int, patch_size: int) -> PlanTable:
    """Add the box, the size after resampling, and the flip to grids that `decide_grids` decided.

    Args:
        recipe: recipe with the policies and the seed.
        grids: the grids of n images.
        sizes: int64 ``[n, 2]``, (height, width) of each image in pixels.
        key_hash: uint64 ``[n]``, the hashes of the keys.
        epoch: number of the epoch, on which the random draws depend.
        patch_size: pixels per side of a patch.

    Raises:
        ConfigError: `PlacingPolicy.place` returns a wrong shape or dtype.
    """
    n, grid = len(sizes), grids.grid.astype(np.int32)
    corner, part = (np.zeros((n, 2), np.int32), sizes) if grids.crop is None else np.hsplit(grids.crop.astype(np.int32), 2)
    if isinstance(recipe.resize, PlacingPolicy):
        box, resized = recipe.resize.place(part.astype(np.int64), grid, patch_size)
        place = f"{recipe.resize!r}.place"
        box, resized = _int_columns(box, (n, 4), place), _int_columns(resized, (n, 2), place)
        box[:, :2] += corner
    else:
        box = np.concatenate([corner, part], axis=1).astype(np.int32)
        resized = grid * np.int32(patch_size)
    return PlanTable(
        box=box,
        resized=resized,
        flip=_flips(recipe, n, epoch, key_hash),
        grid=grid,
        num_tokens=grids.num_tokens.astype(np.int32),
        times=np.ones(n, dtype=np.int32) if grids.times is None else grids.times,
    )


def _times(recipe: Recipe, frames: npt.ArrayLike, n: int) -> IntArray:
    """Return the number of tubelets along time for each image, int32 ``[n]``, 1 for images."""
    if recipe.video is None:
        raise ConfigError("clips need a recipe with video=Video(...), this one has video=None")
    return _int_columns(recipe.video.times(_int_columns(frames, (n,), "frames")), (n,), repr(recipe.video))


def _crop(recipe: Recipe, sizes: Int64, patch_size: int, epoch: int, hashes: rng.U64) -> IntArray | None:
    """Return the boxes that the crop policy chooses, int32 ``[n, 4]``. Return None if the policy reads whole images."""
    if isinstance(recipe.crop, WholeImage):
        return None
    u = _uniforms(recipe, epoch, hashes, rng.Stage.CROP)
    box = _int_columns(recipe.crop(sizes, patch_size, u), (len(sizes), 4), repr(recipe.crop))
    part = box[:, 2:].astype(np.int64)
    outside = ((box[:, :2] < 0) | (part < 1) | (box[:, :2] + part > sizes)).any(axis=1)
    if outside.any():
        i = int(np.argmax(outside))
        raise ConfigError(
            f"{recipe.crop!r} made the box {box[i].tolist()} (top, left, height, width) of a {sizes[i].tolist()} image "
            f"(height, width): a box must lie inside its image and have at least one pixel"
        )
    return box


def _flips(recipe: Recipe, n: int, epoch: int, hashes: rng.U64) -> npt.NDArray[np.bool_]:
    if not recipe.flip_prob:
        return np.zeros(n, dtype=np.bool_)
    flips: npt.NDArray[np.bool_] = rng.uniforms(recipe.seed, epoch, hashes, rng.Stage.FLIP, 1)[:, 0] < recipe.flip_prob
    return flips


def _uniforms(recipe: Recipe, epoch: int, hashes: rng.U64, stage: rng.Stage) -> FloatArray | None:
    policies: dict[rng.Stage, CropPolicy | ResizePolicy | DropPolicy] = {
        rng.Stage.CROP: recipe.crop, rng.Stage.RESIZE: recipe.resize, rng.Stage.DROP: recipe.drop,
    }  # fmt: skip
    draws = policies[stage].draws
    return rng.uniforms(recipe.seed, epoch, hashes, stage, draws) if draws else None


def _compact(column: IntegerArray) -> IntegerArray:
    return column.astype(np.uint16) if not column.size or column.max() <= np.iinfo(np.uint16).max else column


def _int_columns(answer: npt.ArrayLike, shape: tuple[int, ...], who: str) -> IntArray:
    array = np.asarray(answer)
    if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
        raise ConfigError(f"{who} must return integers {list(shape)}, got {array.dtype} {list(array.shape)}")
    columns: IntArray = array.astype(np.int32)
    if (columns != array).any():
        raise ConfigError(f"{who} must return integers of 32 bits, got {array[array != columns][0]}")
    return columns
