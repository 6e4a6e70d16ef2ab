"""The planning of a whole epoch: from sizes and keys to rows, and to the steps of every rank.

Samples are packed by `pack_stream` in the order of `shuffled_lines`. Rows close nearly in the order in which their images
arrive. So shuffled samples make shuffled rows, and rows need not be shuffled again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchpack._arrays import IntegerArray
from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, require_bool, require_int
from patchpack.plan.online.batches import TAILS, Tail
from patchpack.plan.packing import Lookahead, Packing
from patchpack.plan.packing.balance import balance as balanced_steps
from patchpack.plan.recipe import Recipe
from patchpack.plan.shuffle import require_shuffle
from patchpack.plan.table import GridTable
from patchpack.plan.whole_epoch.row_maker import one_size, several_sizes
from patchpack.plan.whole_epoch.samples import EpochSamples, Sizes

# number of rows balanced together, for each row of a batch: divisible by every number of ranks up to ten
_TOGETHER, _FEWEST_STEPS, _POOLED_STEPS = 2520, 64, 64


@dataclass(frozen=True, eq=False)
class EpochRows:
    """All rows of an epoch, with the step and the rank of each row.

    A position is the number of a sample in the epoch's order. A sample has one position per pass.

    Attributes:
        order: int32 or int64 ``[positions]``, the line of the index at each position.
        items: int32 or int64 ``[images]``, positions of the images, row after row. Row r is
            ``items[offsets[r]:offsets[r + 1]]``.
        grids: `GridTable` of the images in `items`.
        offsets: int64 ``[rows + 1]``, begin and end of each row in `items`.
        steps: int64 ``[steps, num_ranks * rows per batch]``, numbers of the rows of each step, −1 for an empty row. Rank r has
            the rows in columns r, r + num_ranks, …
        last_rows: number of rows in the last step (``tail="short"``).
        repeated_rows: number of rows at the end of the last step that repeat earlier rows (``tail="wrap"``).
        num_ranks: number of ranks.
        num_samples: number of samples of a pass.
        refused: positions of images that no row can take, rising.
        refused_tokens: token counts of the images in `refused`. A count is 0 if the resize policy refuses the size, −1 if the
            image has too many pixels, and −2 if its file has too many bytes.
        dropped: dict from the name of a rule to the number of samples that the rule left out.
        seen: number of positions that are in a row of a step, refused, or dropped.
    """

    order: IntegerArray
    items: IntegerArray
    grids: GridTable
    offsets: Int64
    steps: Int64
    last_rows: int
    repeated_rows: int
    num_ranks: int
    num_samples: int
    refused: Int64
    refused_tokens: npt.NDArray[np.int32]
    dropped: dict[str, int]
    seen: int

    @property
    def num_tokens(self) -> IntegerArray:
        """Number of tokens of each image in `items`, integers ``[images]``."""
        return self.grids.num_tokens

    def rows_of(self, step: int, rank: int) -> Int64:
        """Return the rows of one rank in a step, −1 for an empty row."""
        end = self.last_rows if step == len(self.steps) - 1 else self.steps.shape[1]
        rows: Int64 = self.steps[step, rank : end : self.num_ranks]
        return rows

    def repeated_of(self, step: int, rank: int) -> int:
        """Return the number of rows, at the end of a rank's rows in a step, that repeat earlier rows of the epoch."""
        if not self.repeated_rows or step < len(self.steps) - 1:
            return 0
        columns = np.arange(rank, self.last_rows, self.num_ranks)
        return int((columns >= self.last_rows - self.repeated_rows).sum())

    def images(self) -> Int64:
        """Return the number of images of each rank in each step, int64 ``[steps, num_ranks]``. Repeated rows do not count."""
        counts: Int64 = np.append(np.diff(self.offsets), 0)[self.steps]  # −1, an empty row, reads the 0 at the end
        if self.repeated_rows:
            counts[-1, self.last_rows - self.repeated_rows :] = 0
        counts = counts.reshape(len(counts), counts.shape[1] // self.num_ranks, self.num_ranks).sum(axis=1)
        return counts

    def refused_in(self, step: int) -> slice:
        """Return the entries of `refused` that a step reports.

        All rows report equal shares of the positions, so the number of ranks does not matter.
        """
        num_rows = len(self.offsets) - 1
        if step >= len(self.steps) - 1:
            return slice(self._refused_before(step, num_rows), len(self.refused))
        return slice(self._refused_before(step, num_rows), self._refused_before(step + 1, num_rows))

    def _refused_before(self, step: int, num_rows: int) -> int:
        rows = min(step * self.steps.shape[1], num_rows)
        return int(np.searchsorted(self.refused, -(-rows * self.seen // max(1, num_rows))))


def plan_rows(
    recipe: Recipe,
    table: Sizes,
    *,
    epoch: int = 0,
    seen: int = 0,
    shuffle: int = 0,
    num_ranks: int = 1,
    tail: Tail = "short",
    balance: bool = False,
    steps_per_epoch: int | None = None,
    packer: Lookahead | None = None,
) -> EpochRows:
    """Plan one epoch for all ranks.

    Args:
        recipe: recipe of the batches. A batch of one rank has ``recipe.rows_per_batch`` rows. The packer of the recipe is not
            used, because that packer is for streams.
        table: sizes and keys of the samples.
        epoch: number of the epoch, on which the random draws and the shuffling depend. Default 0.
        seen: number of positions in earlier epochs, which drop schedules need. Default 0.
        shuffle: number of samples that are permuted at a time, after the shards are permuted. Default 0, the order of the
            index.
        num_ranks: ranks that share each step, >= 1. Default 1.
        tail: treatment of rows that do not fill a last step. ``"short"``, the default, makes a last step of fewer rows. In this
            step each rank has at least one row, which may be empty. ``"drop"`` drops the images of these rows and counts them.
            ``"pad"`` adds empty rows. ``"wrap"`` repeats the first rows.
        balance: True deals rows so that the ranks of a step have nearly equal work (see `patchpack.packing.balance`). Rows move
            only within windows of 2520 / num_ranks steps, or of 64 steps if that is more. Default False.
        steps_per_epoch: exact number of steps. Samples are repeated if necessary. Default None, the steps of one pass.
        packer: options of the packer. Its ``max_cut`` must be 0, because no image is cut. Default None: the choice of
            `choose_lookahead` on 16,384 samples of the epoch.

    Returns:
        `EpochRows`. There are no steps if nothing can be packed.

    Raises:
        ConfigError: an option cannot work, a policy breaks its protocol (see `plan_table`), or a policy gives different results
            for the same arguments.
    """
    _require(recipe, table, shuffle, num_ranks, tail, balance, steps_per_epoch, packer)
    rows_per_step = num_ranks * recipe.rows_per_batch
    samples = EpochSamples(recipe, table, epoch=epoch, shuffle=shuffle, seen=seen, repeat=steps_per_epoch is not None)
    samples.require_functions(recipe.patch_sizes[0])
    if len(recipe.patch_sizes) > 1:
        rows = several_sizes(samples, recipe, epoch, rows_per_step, steps_per_epoch, packer)
    else:
        rows = one_size(samples, recipe, None if steps_per_epoch is None else steps_per_epoch * rows_per_step, packer)
    items, grids, offsets = rows
    sequence = np.arange(len(offsets) - 1, dtype=np.int64)
    if balance and num_ranks > 1:
        sequence = _balanced(grids.num_tokens, offsets, num_ranks, recipe, epoch)
    steps, last_rows, repeated = _deal(sequence, rows_per_step, num_ranks, tail)

    placed = sequence[: len(sequence) if tail != "drop" else steps.size]
    images = int(np.diff(offsets)[placed].sum())
    n = samples.num_samples
    met = n if steps_per_epoch is None or not len(items) else max(n, int(items.max()) + 1)
    refused, refused_tokens = samples.refused()
    known = int(np.searchsorted(refused, met))
    left = met - images - known
    return EpochRows(
        order=samples.order,
        items=items,
        grids=grids,
        offsets=offsets,
        steps=steps,
        last_rows=last_rows,
        repeated_rows=repeated,
        num_ranks=num_ranks,
        num_samples=n,
        refused=refused[:known],
        refused_tokens=refused_tokens[:known],
        dropped={"tail" if steps_per_epoch is None else "steps_per_epoch": left} if left else {},
        seen=met,
    )


def _require(
    recipe: Recipe, table: Sizes, shuffle: int, num_ranks: int, tail: Tail, balance: bool, steps: int | None, packer: object
) -> None:
    require_shuffle(shuffle)
    require_int("num_ranks", num_ranks, 1, 1 << 20)
    require_bool("balance", balance)
    if steps is not None:
        require_int("steps_per_epoch", steps, 1, 1 << 40)
        if table.hash_again is None and len(table.sizes):
            raise ConfigError("steps_per_epoch may repeat samples, which needs Sizes(hash_again=...)")
    if tail not in TAILS:
        raise ConfigError(f"tail must be one of {', '.join(TAILS)}, got {tail!r}")
    if not (packer is None or isinstance(packer, Lookahead)):
        raise ConfigError(f"packer must be Lookahead(...) or None, got {packer!r}")
    if packer is not None and packer.max_cut:
        raise ConfigError(f"a planned epoch never shortens samples: use a packer with max_cut=0, got {packer!r}")
    if len(recipe.patch_sizes) > 1 and tail == "wrap":
        raise ConfigError("tail='wrap' cannot repeat rows that were planned for another patch size: use 'pad' or 'drop'")
    if len(recipe.patch_sizes) > 1 and balance:
        raise ConfigError("balance=True moves rows between steps, but steps have different patch sizes: use one patch size")


def _balanced(tokens: IntegerArray, offsets: Int64, num_ranks: int, recipe: Recipe, epoch: int) -> Int64:
    """Return all rows in an order with balanced steps. Rows move only within windows."""
    rows_per_step, num_rows = num_ranks * recipe.rows_per_batch, len(offsets) - 1
    window = max(_FEWEST_STEPS, round(_TOGETHER / num_ranks)) * rows_per_step
    sequence = np.arange(num_rows, dtype=np.int64)
    for start in range(0, num_rows, window):
        edges = offsets[start : start + window + 1]
        part = tokens[edges[0] : edges[-1]].astype(np.int64)
        packing = Packing(np.arange(len(part), dtype=np.int64), edges - edges[0])
        steps = balanced_steps(
            packing, part, num_ranks=rows_per_step, window=_POOLED_STEPS, seed=recipe.seed, epoch=epoch
        ).ravel()
        sequence[start : start + window] = start + steps[steps >= 0]
    return sequence


def _deal(sequence: Int64, rows_per_step: int, num_ranks: int, tail: Tail) -> tuple[Int64, int, int]:
    """Return three values: the steps, the number of rows of the last step, and how many rows of the last step are repeated.

    The steps are int64 ``[steps, rows_per_step]``.
    """
    full, rest = divmod(len(sequence), rows_per_step)
    if not rest or tail == "drop":
        return sequence[: full * rows_per_step].reshape(full, rows_per_step), rows_per_step, 0
    steps = np.full((full + 1) * rows_per_step, -1, dtype=np.int64)
    steps[: len(sequence)] = sequence
    last_rows, repeated = (max(rest, num_ranks), 0) if tail == "short" else (rows_per_step, 0)
    if tail == "wrap":
        repeated = rows_per_step - rest
        steps[len(sequence) :] = sequence[np.arange(repeated) % len(sequence)]
    return steps.reshape(full + 1, rows_per_step), last_rows, repeated
