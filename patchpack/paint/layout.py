"""The layout of a batch: the patches that are kept, the places of images, and the ids of tokens.

The layout is computed before any pixel is decoded.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack.batch.packed import PackedBatch
from patchpack.plan.policies.positions import WindowScheme, of_image, window
from patchpack.plan.policies.video import with_time
from patchpack.plan.recipe import Recipe
from patchpack.types import BatchPlan, Grid, Header


class PlacedImage(NamedTuple):
    """The place of one image in its batch.

    Attributes:
        header: header of the image.
        box: (top, left, height, width) of the part that is read, in source pixels.
        resized: (height, width) in pixels that this part is resampled to.
        flip: True if the image is mirrored left to right.
        grid: rows and columns of patches before dropping.
        row: row of the image in the batch.
        slot: slot of the image in the row.
        tokens: slice of the row's tokens that belong to the image.
        kept: intp ``[n]``, ascending numbers of the n patches that are not dropped.
        places: int64 ``[times * rows, cols]``, the number of each patch among the kept patches, −1 for a dropped patch.
        times: number of tubelets along time, 1 for an image.
    """

    header: Header
    box: tuple[int, int, int, int]
    resized: tuple[int, int]
    flip: bool
    grid: Grid
    row: int
    slot: int
    tokens: slice
    kept: npt.NDArray[np.intp]
    places: npt.NDArray[np.int64]
    times: int


class Layout:
    """The places of all images of a batch. They are computed together, which is much faster than one image at a time.

    Attributes:
        images: the place of each image, in the order of the plan.
    """

    def __init__(self, plan: BatchPlan, recipe: Recipe) -> None:
        table = plan.table
        self._tokens = table.num_tokens.astype(np.int64)
        self._patches = table.grid.astype(np.int64).prod(axis=1) * table.times
        self._kept = rng.smallest(recipe.seed, plan.epoch, plan.key_hash, rng.Stage.KEEP, self._patches, self._tokens)
        images = np.diff(plan.offsets)
        self._row = np.repeat(np.arange(plan.num_rows), images)
        self._slot = np.arange(len(self._row)) - plan.offsets[:-1][self._row]
        self._ends = np.concatenate([[0], np.cumsum(self._tokens)])  # of images, in tokens of the whole batch
        self._row_ends = self._ends[plan.offsets]
        self.images = self._place_images(plan)

    def _place_images(self, plan: BatchPlan) -> list[PlacedImage]:
        table, headers, tokens = plan.table, plan.headers, self._tokens
        ends, patch_ends = self._ends, np.concatenate([[0], np.cumsum(self._patches)])
        places = np.full(patch_ends[-1], -1, dtype=np.int64)
        places[np.repeat(patch_ends[:-1], tokens) + self._kept] = np.arange(ends[-1]) - np.repeat(ends[:-1], tokens)
        kept = [self._kept[a:b] for a, b in pairwise(ends.tolist())]
        whole = [places[a:b] for a, b in pairwise(patch_ends.tolist())]
        starts = (ends[:-1] - self._row_ends[self._row]).tolist()
        lines = zip(
            headers, table.box.tolist(), table.resized.tolist(), table.flip.tolist(), table.grid.tolist(), self._row.tolist(),
            self._slot.tolist(), starts, tokens.tolist(), kept, whole, table.times.tolist(), strict=True,
        )  # fmt: skip
        return [
            PlacedImage(
                header,
                box,
                resized,
                flip,
                Grid(*grid),
                row,
                slot,
                slice(start, start + n),
                numbers,
                where.reshape(times * grid[0], grid[1]),
                times,
            )
            for header, box, resized, flip, grid, row, slot, start, n, numbers, where, times in lines
        ]

    def write(self, batch: PackedBatch[np.ndarray], recipe: Recipe) -> None:
        """Write all fields of a batch except `patches` and `targets`, as if every image were readable."""
        if not self.images:
            return
        ids, begins = (
            _ids_in_image(self.images, recipe, batch.patch_size) if of_image(recipe.positions) else _ids(self.images, recipe)
        )
        chosen = np.concatenate(ids)[np.repeat(begins, self._tokens) + self._kept]
        segments = np.repeat(self._slot + 1, self._tokens)
        for row, (a, b) in enumerate(pairwise(self._row_ends.tolist())):
            batch.position_ids[row, : b - a] = chosen[a:b]
            batch.segment_ids[row, : b - a] = segments[a:b]
        where = self._row, self._slot
        batch.grid_sizes[where] = [placed.grid for placed in self.images]
        batch.source_sizes[where] = [placed.header.size for placed in self.images]
        batch.slot_mask[where] = True
        begins_sample = np.array([placed.header.part == 0 for placed in self.images])
        samples = np.cumsum(begins_sample)  # of the whole batch
        firsts = samples[np.searchsorted(self._row, np.arange(batch.segment_ids.shape[0])).clip(max=len(samples) - 1)]
        assert batch.sample_ids is not None  # a blank batch has them
        batch.sample_ids[where] = samples - firsts[self._row] + 1
        if batch.text_ids is not None and batch.text_segment_ids is not None:
            self._write_texts(batch.text_ids, batch.text_segment_ids)
        if batch.times is not None:
            batch.times[where] = [placed.times for placed in self.images]

    def _write_texts(self, text_ids: np.ndarray, segment_ids: np.ndarray) -> None:
        ends = [0] * text_ids.shape[0]
        for placed in self.images:
            start = ends[placed.row]
            end = ends[placed.row] = start + placed.header.num_text
            text_ids[placed.row, start:end] = np.frombuffer(placed.header.text, dtype=np.int32)
            segment_ids[placed.row, start:end] = placed.slot + 1


def _ids(images: list[PlacedImage], recipe: Recipe) -> tuple[list[np.ndarray], list[int]]:
    """Return the position ids of every different grid, and for each image the index of its first id.

    The index counts from the first id of the first grid, as if the arrays were concatenated.
    """
    grids = {(placed.grid, placed.times): 0 for placed in images}  # a batch has few different grids
    ids = [_through_time(recipe.positions(grid), times, recipe) for grid, times in grids]
    begins = dict(zip(grids, np.cumsum([0, *map(len, ids[:-1])]).tolist(), strict=True))
    return ids, [begins[placed.grid, placed.times] for placed in images]


def _ids_in_image(images: list[PlacedImage], recipe: Recipe, patch_size: int) -> tuple[list[np.ndarray], list[int]]:
    """Return the position ids of every image, and the index of each image's first id in the concatenated arrays.

    This function is for position schemes that depend on the crop.
    """
    scheme = cast("WindowScheme", recipe.positions)  # `of_image` said so
    ids = []
    for placed in images:
        (top, left, height, width), size, (rows, cols) = placed.box, placed.header.size, placed.grid
        own = scheme.within(
            placed.grid,
            window(top, height, size.height, placed.resized[0], rows, patch_size),
            window(left, width, size.width, placed.resized[1], cols, patch_size, placed.flip),
        )
        ids.append(_through_time(own, placed.times, recipe))
    return ids, np.cumsum([0, *map(len, ids[:-1])]).tolist()


def _through_time(ids: np.ndarray, times: int, recipe: Recipe) -> np.ndarray:
    """Repeat the position ids of one step of time for all steps. If the recipe has no `video`, return `ids` unchanged."""
    return ids if recipe.video is None else with_time(ids, times)


def wipe(batch: PackedBatch[np.ndarray], placed: PlacedImage) -> None:
    """Replace an unreadable image by padding, and mask its slot. Remove the text, if the image is the first of its sample."""
    row, slot, tokens = placed.row, placed.slot, placed.tokens
    batch.patches[row, tokens] = 0
    batch.position_ids[row, tokens] = 0
    batch.segment_ids[row, tokens] = 0
    batch.grid_sizes[row, slot] = 0
    batch.source_sizes[row, slot] = 0
    batch.slot_mask[row, slot] = False
    if batch.text_ids is not None and batch.text_segment_ids is not None:
        words = batch.text_segment_ids[row] == slot + 1
        batch.text_ids[row, words] = 0
        batch.text_segment_ids[row, words] = 0
    if batch.times is not None:
        batch.times[row, slot] = 0
