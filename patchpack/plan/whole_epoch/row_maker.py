"""The rows of an epoch, made from its samples: at one patch size, or at the patch size of each row's step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from patchpack._arrays import Int32Array, IntegerArray
from patchpack.plan._integers import Int64
from patchpack.plan.packing import Lookahead, pack_stream
from patchpack.plan.packing.choice import choose_lookahead
from patchpack.plan.recipe import Recipe
from patchpack.plan.whole_epoch.samples import EpochSamples

_SEGMENT = 1 << 20  # samples packed at a time; the pool is emptied in between, which leaves about ten rows partly empty
_TRIED = 1 << 14  # samples that the packer is chosen on
_GROUP = 256  # steps planned together where there are several patch sizes

Rows = tuple[npt.NDArray[np.integer], npt.NDArray[np.int32], Int64]  # items, tokens, offsets


def one_size(samples: EpochSamples, recipe: Recipe, needed: int | None, packer: Lookahead | None) -> Rows:
    """Make the rows of an epoch that has one patch size.

    Args:
        samples: the samples of the epoch.
        recipe: the policies, with one patch size.
        needed: number of rows to make, from as many passes as necessary. None makes all rows of one pass.
        packer: options of the packer. None: the choice of `choose_lookahead`.
    """
    patch_size = recipe.patch_sizes[0]
    seq_len = recipe.row_len(patch_size)
    packer = packer or choose_lookahead(
        samples.sample(_TRIED, patch_size, seq_len), seq_len=seq_len, max_images=recipe.max_images
    )
    found, counts, total = [], [], 0
    # rows with needed * seq_len tokens in total are at least `needed` rows
    while (needed is None or total < needed * seq_len) and len(block := samples.take()):
        taken, tokens = samples.count(block, patch_size, seq_len)
        found.append(taken.astype(samples.order.dtype))
        counts.append(tokens)
        total += int(tokens.sum())
    positions, tokens = _joined(found, counts)
    del found, counts
    edges = [np.zeros(1, dtype=np.int64)]
    for start in range(0, len(positions), _SEGMENT):
        part = slice(start, start + _SEGMENT)
        packing = pack_stream(tokens[part], seq_len=seq_len, max_images=recipe.max_images, packer=packer)
        positions[part], tokens[part] = positions[part][packing.items], tokens[part][packing.items]
        edges.append(packing.offsets[1:] + start)
    rows = (positions, tokens, np.concatenate(edges))
    return rows if needed is None else _first(rows, needed)


def several_sizes(
    samples: EpochSamples, recipe: Recipe, epoch: int, rows_per_step: int, max_steps: int | None, packer: Lookahead | None
) -> Rows:
    """Make rows in the order of their steps, each at the patch size of its step.

    The rows of up to 256 steps are made together, patch size by patch size, in the order in which the sizes first occur.
    Images that these rows leave over are packed next. Near the end, where the images may not suffice, fewer and fewer steps
    are made together.

    Args:
        samples: the samples of the epoch.
        recipe: the policies, with several patch sizes.
        epoch: epoch of the draws of the patch sizes.
        rows_per_step: rows of a step, over all ranks.
        max_steps: number of steps. None: until the samples end.
        packer: options of the packer. None: the choice of `choose_lookahead` for each patch size.
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
            if len(made[p][2]) - 1 < sizes.count(p) * rows_per_step:
                break
        else:
            taken = dict.fromkeys(made, 0)
            for p in sizes:
                parts.append(_first(made[p], rows_per_step, taken[p]))
                taken[p] += rows_per_step
            step += count
            continue
        if count == 1:
            parts.append(made[sizes[0]])
            break
        maker.put_back(np.concatenate([items for items, _, _ in made.values()]))
        group = max(1, count // 4)
    return _stacked(parts)


class _RowMaker:
    """A maker of rows of changing patch sizes, from images in order. Images that no row took are kept for the next call."""

    def __init__(self, samples: EpochSamples, recipe: Recipe, packer: Lookahead | None) -> None:
        self._samples, self._recipe, self._packer = samples, recipe, packer
        self._chosen: dict[int, Lookahead] = {}
        self._waiting = np.empty(0, dtype=np.int64)

    def put_back(self, positions: IntegerArray) -> None:
        """Put images back into the queue, because their row is not used."""
        self._waiting = np.sort(np.concatenate([self._waiting, positions]))

    def make(self, patch_size: int, num_rows: int) -> Rows:
        """Make `num_rows` rows. If there are too few images, return fewer rows, which hold all images."""
        recipe, seq_len = self._recipe, self._recipe.row_len(patch_size)
        if patch_size not in self._chosen:
            self._chosen[patch_size] = self._packer or choose_lookahead(
                self._samples.sample(_TRIED, patch_size, seq_len), seq_len=seq_len, max_images=recipe.max_images
            )
        found, counts, total = [], [], 0
        while total < num_rows * seq_len:
            if len(self._waiting):
                block, self._waiting = self._waiting[:1024], self._waiting[1024:]
            elif not len(block := self._samples.take()):
                break
            taken, tokens = self._samples.count(block, patch_size, seq_len)
            found.append(taken)
            counts.append(tokens)
            total += int(tokens.sum())
        positions, tokens = _joined(found, counts)
        packing = pack_stream(tokens, seq_len=seq_len, max_images=recipe.max_images, packer=self._chosen[patch_size])
        rows = (positions[packing.items], tokens[packing.items], packing.offsets)
        kept = _first(rows, num_rows)
        self.put_back(rows[0][len(kept[0]) :])
        return kept


def _joined(found: Sequence[IntegerArray], counts: Sequence[Int32Array]) -> tuple[IntegerArray, npt.NDArray[np.int32]]:
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
    return np.concatenate(found), np.concatenate(counts)


def _stacked(parts: list[Rows]) -> Rows:
    if not parts:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32), np.zeros(1, dtype=np.int64)
    if len(parts) == 1:
        return parts[0]
    sizes = np.concatenate([np.diff(offsets) for _, _, offsets in parts])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return np.concatenate([items for items, _, _ in parts]), np.concatenate([tokens for _, tokens, _ in parts]), offsets


def _first(rows: Rows, count: int, start: int = 0) -> Rows:
    """Return the rows ``start … start + count − 1``, or fewer if there are not enough rows."""
    items, tokens, offsets = rows
    edges = offsets[start : start + count + 1]
    span = slice(int(edges[0]), int(edges[-1]))
    return items[span], tokens[span], edges - edges[0]
