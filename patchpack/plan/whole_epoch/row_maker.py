"""The rows of an epoch, made from the epoch's samples, at one patch size or at the patch size of each row's step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from patchpack._arrays import IntegerArray
from patchpack.plan._integers import Int64
from patchpack.plan.packing import Lookahead, pack_stream
from patchpack.plan.packing.choice import choose_lookahead
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import GridTable
from patchpack.plan.whole_epoch.samples import EpochSamples

_SEGMENT = 1 << 20  # number of samples packed at a time; then the pool is emptied, which leaves about ten rows partly empty
_TRIED = 1 << 14  # number of samples from which the packer is chosen
_GROUP = 256  # number of steps planned together if there are several patch sizes


class Rows(NamedTuple):
    """Rows of images, in order.

    Attributes:
        items: integers ``[images]``, positions of the images, row after row.
        grids: `GridTable` of the images, in the order of `items`.
        offsets: int64 ``[rows + 1]``, begin and end of each row in `items`.
    """

    items: IntegerArray
    grids: GridTable
    offsets: Int64

    @classmethod
    def stacked(cls, parts: Sequence[Rows]) -> Rows:
        """Return the rows of several parts, one after the other."""
        if not parts:
            return NO_ROWS
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        grids = GridTable.concatenate([part.grids for part in parts])
        return cls(np.concatenate([part.items for part in parts]), grids, offsets)

    def first(self, count: int, start: int = 0) -> Rows:
        """Return the rows ``start … start + count − 1``, or fewer if there are not enough rows."""
        edges = self.offsets[start : start + count + 1]
        span = slice(int(edges[0]), int(edges[-1]))
        return Rows(self.items[span], self.grids.take(span), edges - edges[0])


NO_ROWS = Rows(
    np.empty(0, dtype=np.int64),
    GridTable(np.empty((0, 2), dtype=np.int32), np.empty(0, dtype=np.int32)),
    np.zeros(1, dtype=np.int64),
)


def one_size(samples: EpochSamples, recipe: Recipe, needed: int | None, packer: Lookahead | None) -> Rows:
    """Make the rows of an epoch that has one patch size.

    Args:
        samples: the samples of the epoch.
        recipe: recipe with one patch size.
        needed: number of rows to make, from as many passes as necessary. None makes all rows of one pass.
        packer: options of the packer. None uses the choice of `choose_lookahead`.
    """
    patch_size = recipe.patch_sizes[0]
    seq_len = recipe.row_len(patch_size)
    packer = packer or choose_lookahead(
        samples.sample(_TRIED, patch_size, seq_len), seq_len=seq_len, max_images=recipe.max_images
    )
    images, total = _Images(samples.num_samples), 0
    # rows with needed * seq_len tokens in total are at least `needed` rows
    while (needed is None or total < needed * seq_len) and len(block := samples.take()):
        taken, grids = samples.decide(block, patch_size, seq_len)
        images.append(taken.astype(samples.order.dtype), grids)
        total += int(grids.num_tokens.sum(dtype=np.int64))
    positions, grids = images.positions, images.grids
    edges = [np.zeros(1, dtype=np.int64)]
    for start in range(0, len(positions), _SEGMENT):
        part = slice(start, start + _SEGMENT)
        packing = pack_stream(grids.num_tokens[part], seq_len=seq_len, max_images=recipe.max_images, packer=packer)
        for column in (positions, *grids):
            if column is not None:
                column[part] = column[part][packing.items]
        edges.append(packing.offsets[1:] + start)
    rows = Rows(positions, grids, np.concatenate(edges))
    return rows if needed is None else rows.first(needed)


def several_sizes(
    samples: EpochSamples, recipe: Recipe, epoch: int, rows_per_step: int, max_steps: int | None, packer: Lookahead | None
) -> Rows:
    """Make rows in the order of their steps, each at the patch size of its step.

    The rows of up to 256 steps are made together, patch size by patch size, in the order in which the sizes first occur. Images
    that are left over are packed first when the next rows are made. Near the end, where the images may not suffice, fewer and
    fewer steps are made together.

    Args:
        samples: the samples of the epoch.
        recipe: recipe with several patch sizes.
        epoch: number of the epoch, on which the random patch sizes depend.
        rows_per_step: number of rows of a step, over all ranks.
        max_steps: number of steps. None makes steps until the samples end.
        packer: options of the packer. None uses the choice of `choose_lookahead` for each patch size.
    """
    maker = _RowMaker(samples, recipe, packer)
    parts: list[Rows] = []
    step, group = 0, _GROUP
    while max_steps is None or step < max_steps:
        count = group if max_steps is None else min(group, max_steps - step)
        sizes = [recipe.patch_size_at(epoch, s) for s in range(step, step + count)]
        made: dict[int, Rows] = {}
        for p in dict.fromkeys(sizes):
            made[p] = maker.make(p, sizes.count(p) * rows_per_step)
            if len(made[p].offsets) - 1 < sizes.count(p) * rows_per_step:
                break
        else:
            taken = dict.fromkeys(made, 0)
            for p in sizes:
                parts.append(made[p].first(rows_per_step, taken[p]))
                taken[p] += rows_per_step
            step += count
            continue
        if count == 1:
            parts.append(made[sizes[0]])
            break
        maker.put_back(np.concatenate([rows.items for rows in made.values()]))
        group = max(1, count // 4)
    return Rows.stacked(parts)


class _Images:
    """The positions and grids of images, to which blocks of images are appended.

    Each column is one array, allocated for the expected number of images. Memory that is never written costs nothing. No column
    is ever held twice.
    """

    def __init__(self, expected: int) -> None:
        self._positions, self._grid, self._num_tokens, self._crop = (_Column(expected) for _ in range(4))

    def append(self, positions: IntegerArray, grids: GridTable) -> None:
        """Append a block of images. Clips are not allowed."""
        self._positions.append(positions)
        self._grid.append(grids.grid)
        self._num_tokens.append(grids.num_tokens)
        if grids.crop is not None:
            self._crop.append(grids.crop)

    @property
    def positions(self) -> IntegerArray:
        """Positions of the images, integers ``[images]``."""
        return NO_ROWS.items if self._positions.lines is None else self._positions.lines

    @property
    def grids(self) -> GridTable:
        """Decisions about the images."""
        grid, num_tokens = self._grid.lines, self._num_tokens.lines
        return NO_ROWS.grids if grid is None or num_tokens is None else GridTable(grid, num_tokens, self._crop.lines)


class _Column:
    """One array that grows. If a block needs a wider dtype, the array is converted."""

    def __init__(self, expected: int) -> None:
        self._expected, self._count = expected, 0
        self._array: IntegerArray | None = None

    @property
    def lines(self) -> IntegerArray | None:
        """The lines appended so far, or None before the first block."""
        return None if self._array is None else self._array[: self._count]

    def append(self, block: IntegerArray) -> None:
        """Append the lines of a block."""
        stop, old = self._count + len(block), self._array
        if old is None:
            self._array = np.empty((max(self._expected, stop), *block.shape[1:]), dtype=block.dtype)
        elif stop > len(old) or np.result_type(old, block) != old.dtype:
            capacity = len(old) if stop <= len(old) else max(2 * len(old), stop)
            self._array = np.empty((capacity, *block.shape[1:]), dtype=np.result_type(old, block))
            self._array[: self._count] = old[: self._count]
        assert self._array is not None
        self._array[self._count : stop] = block
        self._count = stop


class _RowMaker:
    """An object that makes rows from images in order. Each call may have another patch size, and keeps its left-over images."""

    def __init__(self, samples: EpochSamples, recipe: Recipe, packer: Lookahead | None) -> None:
        self._samples, self._recipe, self._packer = samples, recipe, packer
        self._chosen: dict[int, Lookahead] = {}
        self._waiting = np.empty(0, dtype=np.int64)

    def put_back(self, positions: IntegerArray) -> None:
        """Put the images of an unused row back into the queue."""
        self._waiting = np.sort(np.concatenate([self._waiting, positions]))

    def make(self, patch_size: int, num_rows: int) -> Rows:
        """Make `num_rows` rows. If the images do not suffice, return fewer rows, with all images."""
        recipe, seq_len = self._recipe, self._recipe.row_len(patch_size)
        if patch_size not in self._chosen:
            self._chosen[patch_size] = self._packer or choose_lookahead(
                self._samples.sample(_TRIED, patch_size, seq_len), seq_len=seq_len, max_images=recipe.max_images
            )
        found, decided, total = [], [], 0
        while total < num_rows * seq_len:
            if len(self._waiting):
                block, self._waiting = self._waiting[:1024], self._waiting[1024:]
            elif not len(block := self._samples.take()):
                break
            taken, grids = self._samples.decide(block, patch_size, seq_len)
            found.append(taken)
            decided.append(grids)
            total += int(grids.num_tokens.sum(dtype=np.int64))
        if not found:
            return NO_ROWS
        positions, grids = np.concatenate(found), GridTable.concatenate(decided)
        packer = self._chosen[patch_size]
        packing = pack_stream(grids.num_tokens, seq_len=seq_len, max_images=recipe.max_images, packer=packer)
        rows = Rows(positions[packing.items], grids.take(packing.items), packing.offsets)
        kept = rows.first(num_rows)
        self.put_back(rows.items[len(kept.items) :])
        return kept
