"""A plan and a way to read bytes make a batch: every image is decoded once its place is known, and written there once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice, pairwise
from typing import Any, NamedTuple

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
    """A planned batch without a pixel: arrays in their shape and dtype, zeros, targets filled with "no target".

    The patches are not written yet, not even with zeros.
    """
    rows, seq_len, slots = plan.num_rows, plan.seq_len, recipe.max_images
    scheme = recipe.positions(Grid(1, 1))
    batch = PackedBatch(
        patches=np.empty((rows, seq_len, plan.patch_size**2 * 3), dtype=recipe.dtype),
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
        batch: the `blank` of this plan to paint on, wherever its arrays are; None for a new one. Whatever was in its patches,
            all of them are written.

    Returns:
        `PackedBatch` of numpy arrays.
    """
    batch = blank(plan, recipe) if batch is None else batch
    fresh = plan.num_rows - plan.repeated_rows  # rows that come again are not counted again
    positions = cache(recipe.positions)  # a batch has few grids
    works = _works(plan)
    for row, (begin, end) in enumerate(_spans(plan)):
        start = 0
        for slot, work in enumerate(islice(works, end - begin)):
            span = slice(start, start + work.num_tokens)
            try:
                _paint_image(batch, plan, recipe, fetch, positions, work, row, slot, span)
            except (errors.SampleError, errors.SourceError, OSError) as error:
                batch.patches[row, span] = 0
                if row < fresh:
                    batch.info["rejections"].append(_rejection(work.header, error)._asdict())
            start = span.stop
        batch.patches[row, start:] = 0
    batch.info["packed"] = int(batch.slot_mask[:fresh].sum())
    return batch


class _Work(NamedTuple):
    """One image to paint: a line of the plan's columns, as Python has them."""

    header: Header
    key_hash: int
    box: tuple[int, int, int, int]
    target: tuple[int, int]
    flip: bool
    grid: list[int]
    num_tokens: int


def _works(plan: BatchPlan) -> Iterator[_Work]:
    """Every image of a plan. Columns are turned at once: item by item that costs more than what is done with them."""
    return map(_Work, plan.headers, plan.key_hash.tolist(), *(column.tolist() for column in plan.table))


def _paint_image(
    batch: PackedBatch,
    plan: BatchPlan,
    recipe: Recipe,
    fetch: Fetch,
    positions: PositionScheme,
    work: _Work,
    row: int,
    slot: int,
    span: slice,
) -> None:
    header, grid = work.header, Grid(*work.grid)
    image, target = fetch(header.location)
    picture, box = part_of_picture(image, header.size, work.box, work.target, recipe)
    targets.store(batch.targets, plan.target_kind, row, slot, target)  # the last thing that may fail: then the slot is written

    kept = kept_patches(recipe.seed, plan.epoch, work.key_hash, grid.num_patches, work.num_tokens)
    write_pixels(batch.patches[row, span], picture, box, work.target, work.flip, grid, kept, plan.patch_size, recipe)
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
