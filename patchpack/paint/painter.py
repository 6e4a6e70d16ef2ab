"""A plan and a way to read bytes make a batch: every image is decoded once its place is known, and written there once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from patchpack import errors
from patchpack.paint import targets
from patchpack.paint.patchify import kept_patches
from patchpack.paint.picture import part_of_picture
from patchpack.paint.resample import identity_norm, norm_of, write_pixels
from patchpack.plan.positions import PositionScheme
from patchpack.plan.recipe import Recipe
from patchpack.types import BatchPlan, Grid, Header, PackedBatch, Rejection

Fetch = Callable[[Any], tuple[Any, Any]]
"""location → (image, target); raises `SourceError` or `TargetError` for what it cannot read."""


def blank(plan: BatchPlan, recipe: Recipe) -> PackedBatch:
    """A planned batch without a pixel: every array in its shape and dtype, zeros, targets filled with "no target"."""
    rows, seq_len, slots = plan.num_rows, plan.seq_len, recipe.max_images
    scheme = recipe.positions(Grid(1, 1))
    batch = PackedBatch(
        patches=np.zeros((rows, seq_len, plan.patch_size**2 * 3), dtype=recipe.dtype),
        position_ids=np.zeros((rows, seq_len, scheme.shape[1]), dtype=scheme.dtype),
        segment_ids=np.zeros((rows, seq_len), dtype=np.int32),
        num_images=np.diff(plan.offsets).astype(np.int32),
        grid_sizes=np.zeros((rows, slots, 2), dtype=np.int32),
        source_sizes=np.zeros((rows, slots, 2), dtype=np.int32),
        slot_mask=np.zeros((rows, slots), dtype=np.bool_),
        targets=targets.allocate(plan.target_kind, rows, slots),
        norm=norm_of(recipe.normalize) if recipe.dtype == "uint8" else identity_norm(),
        keys=[[h.key for h in plan.headers[a:b]] for a, b in _spans(plan)],
        patch_size=plan.patch_size,
        info={**plan.info, "rejections": list(plan.info["rejections"])},
    )
    if any(h.repeat for h in plan.headers):  # with the keys all it takes to draw again
        batch.info["repeats"] = [[h.repeat for h in plan.headers[a:b]] for a, b in _spans(plan)]
    return batch


def paint(plan: BatchPlan, recipe: Recipe, fetch: Fetch, batch: PackedBatch | None = None) -> PackedBatch:
    """Paint one planned batch.

    An image that turns out unreadable leaves padding in its place: its tokens get segment 0 and zero patches, its slot is
    masked, nothing else moves; it is named in ``info["rejections"]``.

    Args:
        plan: what goes where.
        recipe: the recipe the plan was made with.
        fetch: reads image and target of one location.
        batch: the `blank` of this plan to paint on, wherever its arrays are; None for a new one.

    Returns:
        `PackedBatch` of numpy arrays.
    """
    batch = blank(plan, recipe) if batch is None else batch
    fresh = plan.num_rows - plan.repeated_rows  # rows that come again are not counted again
    positions = cache(recipe.positions)  # a batch has few grids
    for row, (begin, end) in enumerate(_spans(plan)):
        start = 0
        for line in range(begin, end):
            stop = start + int(plan.table.num_tokens[line])
            try:
                _paint_image(batch, plan, recipe, fetch, positions, line, (row, line - begin), slice(start, stop))
            except (errors.SampleError, errors.SourceError, OSError) as error:
                if row < fresh:
                    batch.info["rejections"].append(_rejection(plan.headers[line], error)._asdict())
            start = stop
    batch.info["packed"] = int(batch.slot_mask[:fresh].sum())
    return batch


def _paint_image(
    batch: PackedBatch,
    plan: BatchPlan,
    recipe: Recipe,
    fetch: Fetch,
    positions: PositionScheme,
    line: int,
    place: tuple[int, int],
    span: slice,
) -> None:
    header, table = plan.headers[line], plan.table
    grid = Grid(*table.grid[line].tolist())
    image, target = fetch(header.location)
    target_size = table.target[line].tolist()
    picture, box = part_of_picture(image, header.size, table.box[line].tolist(), target_size, recipe)
    row, slot = place
    targets.store(batch.targets, plan.target_kind, row, slot, target)  # the last thing that may fail: then the slot is written

    kept = kept_patches(recipe.seed, plan.epoch, int(plan.key_hash[line]), grid.num_patches, int(table.num_tokens[line]))
    flip = bool(table.flip[line])
    write_pixels(batch.patches[row, span], picture, box, target_size, flip, grid, kept, plan.patch_size, recipe)
    ids = positions(grid)
    batch.position_ids[row, span] = ids if len(kept) == len(ids) else ids[kept]
    batch.segment_ids[row, span] = slot + 1
    batch.grid_sizes[row, slot] = grid
    batch.source_sizes[row, slot] = header.size
    batch.slot_mask[row, slot] = True


def _spans(plan: BatchPlan) -> list[tuple[int, int]]:
    edges = plan.offsets.tolist()
    return list(pairwise(edges))


def _rejection(header: Header, error: Exception) -> Rejection:
    if isinstance(error, errors.TargetError):
        stage = "target"
    elif isinstance(error, errors.DecodeError):
        stage = "decode"
    else:
        stage = "read"
    return Rejection(header.shard, header.key, header.member, stage, str(error))
