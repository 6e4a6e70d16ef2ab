"""The plan of a whole epoch of an index: a sequence of the plans of its batches, made before any image is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack.batch_info import BatchInfo
from patchpack.errors import ConfigError
from patchpack.image.decode import too_many_bytes
from patchpack.losses import Rejection
from patchpack.plan._integers import require_int
from patchpack.plan.online.batches import Tail
from patchpack.plan.online.refusals import refusal
from patchpack.plan.packing import Lookahead
from patchpack.plan.recipe import Recipe
from patchpack.plan.table import place_grids
from patchpack.plan.whole_epoch.epoch import EpochRows, plan_rows
from patchpack.plan.whole_epoch.samples import TOO_MANY_BYTES, TOO_MANY_PIXELS, Sizes
from patchpack.stream.planning.probe import require_recipe
from patchpack.stream.sources.indexed import SampleIndex, block_in
from patchpack.types import BatchPlan, Header, counted


class EpochPlan(Sequence[BatchPlan]):
    """The plans of all batches of one rank in one epoch, as a sequence. ``plan[step]`` is computed on access.

    Args:
        index: a `patchpack.Index`, or another object with the attributes of `patchpack.stream.sources.indexed.SampleIndex`.
        recipe: sizes and augmentation of the samples. The recipe's packer is for streams and is not used here.
        epoch: number of the epoch. Random draws and shuffling depend on this number. Default 0.
        shuffle: False or 0 keeps the order of the index (default). A number n permutes the shards, and the samples inside each
            block of n samples. True permutes all samples as one block. With small blocks, the samples of a batch lie near each
            other in the shards.
        rank: number of this process, default 0. Of the rows of each step, this rank gets rows rank, rank + world_size, …
        world_size: number of ranks, default 1. All ranks have the same number of steps.
        tail: handling of the last rows if they do not fill a step, default ``"short"``. See
            `patchpack.plan.whole_epoch.epoch.plan_rows`.
        balance: True distributes rows so that all ranks have nearly equal work in each step. Default False.
        steps_per_epoch: exact number of steps. Samples are repeated if there are too few. Default None: one pass over the
            index.
        seen: number of samples that all ranks together met in earlier epochs. Drop schedules depend on this number. Default 0.
        packer: a `Lookahead` without ``max_cut``. Rows are packed with its options. Default None: the options are chosen from
            the sizes.

    Attributes:
        rows: the rows of all ranks, as integers: `patchpack.plan.whole_epoch.epoch.EpochRows`.
        fatal: the reason why there is no batch at all. None if there are batches.

    Raises:
        ConfigError: an option cannot work.

    Example:
        >>> plan = pp.EpochPlan(index, recipe, epoch=3, shuffle=10_000, rank=0, world_size=8, tail="pad")  # doctest: +SKIP
        >>> len(plan), plan[17].keys  # doctest: +SKIP
    """

    def __init__(
        self,
        index: SampleIndex,
        recipe: Recipe,
        epoch: int = 0,
        *,
        shuffle: bool | int = 0,
        rank: int = 0,
        world_size: int = 1,
        tail: Tail = "short",
        balance: bool = False,
        steps_per_epoch: int | None = None,
        seen: int = 0,
        packer: Lookahead | None = None,
    ) -> None:
        require_place(rank, world_size)
        self._index, self.recipe, self.epoch, self.rank, self.seen = index, require_recipe(recipe), epoch, rank, seen
        self._table = Sizes(index.sizes, index.key_hash, index.starts, self._hash_again, getattr(index, "num_bytes", None))
        self.rows: EpochRows = plan_rows(
            recipe,
            self._table,
            epoch=epoch,
            seen=seen,
            shuffle=block_in(index, shuffle),
            num_ranks=world_size,
            tail=tail,
            balance=balance,
            steps_per_epoch=steps_per_epoch,
            packer=packer,
        )
        self._images = self.rows.images()[:, rank]
        self.fatal = None if len(self) else self._why_nothing()

    def __len__(self) -> int:
        """Return the number of steps, the same for every rank."""
        return len(self.rows.steps)

    def __repr__(self) -> str:
        return f"EpochPlan(epoch {self.epoch} of {self._index.name}: {counted(len(self), 'step')}, rank {self.rank})"

    @overload
    def __getitem__(self, step: int) -> BatchPlan: ...
    @overload
    def __getitem__(self, step: slice) -> list[BatchPlan]: ...
    def __getitem__(self, step: int | slice) -> BatchPlan | list[BatchPlan]:
        """Return the plan of one step, or a list of plans for a slice. Step −1 is the last step.

        Raises:
            IndexError: the step does not exist.
        """
        if isinstance(step, slice):
            return [self[i] for i in range(*step.indices(len(self)))]
        if not -len(self) <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        step %= len(self)
        chosen = self.rows.rows_of(step, self.rank).tolist()
        edges = self.rows.offsets
        spans = [np.arange(edges[r], edges[r + 1]) if r >= 0 else _NONE for r in chosen]
        offsets = np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int32)
        return self._plan(step, np.concatenate(spans), offsets, self.rows.repeated_of(step, self.rank))

    def already_reported(self, step: int) -> int:
        """Return the number of samples that this rank reported before a step.

        A sample is reported when it is in a batch, when planning refuses it, or as a rejection of the index.
        """
        told = int(self._images[:step].sum())
        if self.rank == 0 and step:
            told += len(self._index.rejections) + self.rows.refused_in(step - 1).stop
        return told

    def fatal_plan(self) -> BatchPlan:
        """Return a plan without images, for an epoch without any batch. `BatchPlan.fatal` holds the reason."""
        return replace(self._plan(0, _NONE, np.zeros(1, dtype=np.int32), 0), fatal=self.fatal)

    def _plan(self, step: int, images: npt.NDArray[np.int64], offsets: npt.NDArray[np.int32], repeated: int) -> BatchPlan:
        """Return the plan of a step from its images, which are given as positions in `EpochRows.items`."""
        rows, patch_size = self.rows, self.recipe.patch_size_at(self.epoch, step)
        positions = rows.items[images].astype(np.int64)
        lines = rows.order[positions]
        headers = self._index.headers(lines)
        hashes = self._index.key_hash[lines]
        passes = positions // rows.num_samples if rows.num_samples else positions
        if passes.any():
            headers = tuple(h._replace(repeat=number) for h, number in zip(headers, passes.tolist(), strict=True))
            hashes = rng.key_hash(header.draw_key for header in headers)
        sizes = self._table.sizes[lines].astype(np.int64)
        grids = rows.grids.take(images)
        return BatchPlan(
            step=step,
            epoch=self.epoch,
            patch_size=patch_size,
            seq_len=self.recipe.row_len(patch_size),
            offsets=offsets,
            table=place_grids(self.recipe, grids, sizes, hashes, epoch=self.epoch, patch_size=patch_size),
            key_hash=hashes,
            headers=headers,
            target_kind=self._index.target_kind,
            info=self._info(step, int(offsets[len(offsets) - 1 - repeated])),
            repeated_rows=repeated,
        )

    def _info(self, step: int, planned: int) -> BatchInfo:
        """Return the info of a step.

        Rank 0 reports the losses of the whole index. The other ranks get only the first losses, so that they can stop too.
        """
        index, rows, first = self._index, self.rows, self.rank == 0
        told = self._refusals(rows.refused_in(step))
        faults = list(index.faults) if step == 0 else []
        if step == 0:
            told = [*index.rejections, *told]
        total = int(self._images.sum())
        if first:
            total += len(index.rejections) + len(rows.refused) + sum(rows.dropped.values())
        return BatchInfo(
            step=step,
            epoch=self.epoch,
            seen=total,
            planned=planned,
            dropped=rows.dropped if first and step >= len(self) - 1 else {},
            rejections=told if first else [],
            shard_errors=faults if first else [],
            elsewhere=[] if first else [*told[:1], *faults[:1]],
        )

    def _refusals(self, which: slice) -> list[Rejection]:
        positions, tokens = self.rows.refused[which], self.rows.refused_tokens[which]
        lines = self.rows.order[positions]
        headers = self._index.headers(lines)
        return [self._refused(*each) for each in zip(headers, lines.tolist(), tokens.tolist(), strict=True)]

    def _refused(self, header: Header, line: int, num_tokens: int) -> Rejection:
        if num_tokens != TOO_MANY_BYTES:
            return _refused(self.recipe, header, num_tokens)
        assert self._table.num_bytes is not None  # else too many bytes could not be known
        reason = too_many_bytes(int(self._table.num_bytes[line]), self.recipe.max_bytes)
        return Rejection(header.shard, header.key, header.member, "header", reason)

    def _hash_again(self, lines: npt.NDArray[Any], number: int) -> rng.U64:
        return rng.key_hash(header._replace(repeat=number).draw_key for header in self._index.headers(lines))

    def _why_nothing(self) -> str:
        index, rows = self._index, self.rows
        rejected = len(index.rejections) + len(rows.refused)
        reason = f"{index.name}: no image to pack, {rows.seen + len(index.rejections)} samples seen, {rejected} rejected"
        if rejected:
            reason += f"; the first: {[*index.rejections[:1], *self._refusals(slice(0, 1))][0]}"
        return f"{reason}, dropped: {rows.dropped}" if rows.dropped else reason


_NONE = np.empty(0, dtype=np.int64)


def _refused(recipe: Recipe, header: Header, num_tokens: int) -> Rejection:
    if num_tokens == TOO_MANY_PIXELS:
        height, width = header.size
        reason = f"{height} x {width} (height x width) has more than max_pixels={recipe.max_pixels} pixels"
        return Rejection(header.shard, header.key, header.member, "header", reason)
    reason = refusal(recipe, header.size, num_tokens, recipe.row_len(recipe.patch_sizes[0]))
    return Rejection(header.shard, header.key, header.member, "plan", reason)


def require_place(rank: int, world_size: int) -> None:
    """Raise `ConfigError` unless ``0 <= rank < world_size``."""
    require_int("world_size", world_size, 1, 1 << 20)
    if isinstance(rank, bool) or not isinstance(rank, (int, np.integer)) or not 0 <= rank < world_size:
        raise ConfigError(f"need 0 <= rank < world_size, got rank={rank}, world_size={world_size}")
