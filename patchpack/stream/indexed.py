"""Indexed mode: an epoch planned before its first pixel, as a sequence of plans, and as a sampler of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from patchpack import rng
from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int
from patchpack.plan.drop import follows_seen
from patchpack.plan.epoch import EpochRows, plan_rows
from patchpack.plan.packing import Lookahead
from patchpack.plan.planner import Tail, refusal
from patchpack.plan.recipe import Recipe
from patchpack.plan.supply import TOO_MANY_PIXELS, Sizes
from patchpack.plan.table import plan_table
from patchpack.stream.labels import MapTarget
from patchpack.stream.listed import ListedSource, SampleIndex
from patchpack.stream.resume import recipe_fields, require_same
from patchpack.stream.sampler import probe_targets, require_recipe
from patchpack.stream.sources import open_source
from patchpack.types import BatchPlan, Header, Rejection, TargetKind

STATE = 1  # of a state: another number for other fields, or where the same arguments plan other rows


class EpochPlan(Sequence[BatchPlan]):
    """All batches of one rank in one epoch; ``plan[step]`` is made when it is asked for.

    Args:
        index: `patchpack.Index`, or anything with its columns, see `patchpack.stream.listed.SampleIndex`.
        recipe: what to do with its samples. Its packer is that of streams and plays no part here.
        epoch: of the draws and the shuffling.
        shuffle: 0 for the order of the index; else shards are permuted, and samples in blocks of this many: as many as there
            are for a full shuffle, fewer where neighbours should be read together.
        rank, world_size: which rows: of each step, every world_size-th from the rank-th on. All ranks have equally many steps.
        tail: of rows that do not fill a last step, see `patchpack.plan.epoch.plan_rows`.
        balance: deal rows so that ranks have nearly the same to do in each step.
        steps_per_epoch: exactly this many steps, samples repeated as needed; None for one pass.
        seen: samples of earlier epochs, all ranks together, for drop schedules.
        packer: `Lookahead` options without `max_cut`; None for those that suit the sizes.

    Attributes:
        rows: `patchpack.plan.epoch.EpochRows`, in integers, all ranks.
        fatal: why there is no batch at all, else None.

    Raises:
        ConfigError: an option that cannot work.

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
        shuffle: int = 0,
        rank: int = 0,
        world_size: int = 1,
        tail: Tail = "short",
        balance: bool = False,
        steps_per_epoch: int | None = None,
        seen: int = 0,
        packer: Lookahead | None = None,
    ) -> None:
        _require_place(rank, world_size)
        self._index, self.recipe, self.epoch, self.rank, self.seen = index, require_recipe(recipe), epoch, rank, seen
        self._table = Sizes(index.sizes, index.key_hash, index.starts, self._hash_again)
        self.rows: EpochRows = plan_rows(
            recipe,
            self._table,
            epoch=epoch,
            seen=seen,
            shuffle=shuffle,
            num_ranks=world_size,
            tail=tail,
            balance=balance,
            steps_per_epoch=steps_per_epoch,
            packer=packer,
        )
        self._images = self.rows.images()[:, rank]
        self.fatal = None if len(self) else self._why_nothing()

    def __len__(self) -> int:
        """Steps, the same for every rank."""
        return len(self.rows.steps)

    @overload
    def __getitem__(self, step: int) -> BatchPlan: ...
    @overload
    def __getitem__(self, step: slice) -> list[BatchPlan]: ...
    def __getitem__(self, step: int | slice) -> BatchPlan | list[BatchPlan]:
        """The plan of one step, −1 for the last; or of several.

        Raises:
            IndexError: a step that is not there.
            ConfigError: a policy that decides otherwise now than when the epoch was planned.
        """
        if isinstance(step, slice):
            return [self[i] for i in range(*step.indices(len(self)))]
        if not -len(self) <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        step %= len(self)
        chosen = self.rows.rows_of(step, self.rank).tolist()
        spans = [self.rows.items[self.rows.offsets[r] : self.rows.offsets[r + 1]] if r >= 0 else _NONE for r in chosen]
        patch_size = self.recipe.patch_size_at(self.epoch, step)
        plan = self._made(
            step,
            patch_size,
            np.concatenate(spans).astype(np.int64),
            np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int32),
            self.rows.repeated_of(step, self.rank),
        )
        self._require_as_planned(plan, chosen)
        return plan

    def accounted(self, step: int) -> int:
        """Samples of this rank's account that the steps before this one told of: planned, refused, or rejected by the index."""
        told = int(self._images[:step].sum())
        if self.rank == 0 and step:
            told += len(self._index.rejections) + self.rows.refused_in(step - 1).stop
        return told

    def fatal_plan(self) -> BatchPlan:
        """What a sampler yields where there is no batch: a plan that says why."""
        plan = self._made(0, self.recipe.patch_size_at(self.epoch, 0), _NONE, np.zeros(1, dtype=np.int32), 0)
        return replace(plan, fatal=self.fatal)

    def _made(
        self, step: int, patch_size: int, positions: npt.NDArray[np.int64], offsets: npt.NDArray[np.int32], repeated: int
    ) -> BatchPlan:
        rows = self.rows
        lines = rows.order[positions]
        headers = self._index.headers(lines)
        hashes = self._index.key_hash[lines]
        passes = positions // rows.num_samples if rows.num_samples else positions
        if passes.any():
            headers = tuple(h._replace(repeat=number) for h, number in zip(headers, passes.tolist(), strict=True))
            hashes = rng.key_hash(header.draw_key for header in headers)
        table = plan_table(
            self.recipe,
            self._table.sizes[lines],
            hashes,
            epoch=self.epoch,
            seen=self.seen + positions,
            patch_size=patch_size,
        )
        return BatchPlan(
            step=step,
            epoch=self.epoch,
            patch_size=patch_size,
            seq_len=self.recipe.row_len(patch_size),
            offsets=offsets,
            table=table,
            key_hash=hashes,
            headers=headers,
            target_kind=self._index.target_kind,
            info=self._info(step, int(offsets[len(offsets) - 1 - repeated])),
            repeated_rows=repeated,
        )

    def _require_as_planned(self, plan: BatchPlan, rows: list[int]) -> None:
        """Decisions are made twice, and a row that was packed for fewer tokens has no room for more."""
        edges, tokens = self.rows.offsets, self.rows.num_tokens
        planned = [n for r in rows if r >= 0 for n in tokens[edges[r] : edges[r + 1]].tolist()]
        for header, then, now in zip(plan.headers, planned, plan.table.num_tokens.tolist(), strict=True):
            if then != now:
                raise ConfigError(
                    f"{header.key} had {then} tokens when the epoch was planned and has {now} now: {self.recipe.resize!r} and "
                    f"{self.recipe.drop!r} must be functions of their arguments"
                )

    def _info(self, step: int, planned: int) -> dict[str, Any]:
        """The first rank tells what no rank gets; the others know of it, so that all may stop together."""
        index, rows, first = self._index, self.rows, self.rank == 0
        told = self._refusals(rows.refused_in(step))
        faults = [fault._asdict() for fault in index.faults] if step == 0 else []
        if step == 0:
            told = [*index.rejections, *told]
        total = int(self._images.sum())
        if first:
            total += len(index.rejections) + len(rows.refused) + sum(rows.dropped.values())
        rejections = [rejection._asdict() for rejection in told]
        info: dict[str, Any] = {
            "step": step,
            "epoch": self.epoch,
            "seen": total,
            "planned": planned,
            "altered": 0,
            "dropped": rows.dropped if first and step >= len(self) - 1 else {},
            "rejections": rejections if first else [],
            "shard_errors": faults if first else [],
        }
        if not first:
            info["elsewhere"] = {"rejections": rejections[:1], "shard_errors": faults[:1]}
        return info

    def _refusals(self, which: slice) -> list[Rejection]:
        positions, tokens = self.rows.refused[which], self.rows.refused_tokens[which]
        headers = self._index.headers(self.rows.order[positions])
        return [_refused(self.recipe, header, n) for header, n in zip(headers, tokens.tolist(), strict=True)]

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


def _require_place(rank: int, world_size: int) -> None:
    require_int("world_size", world_size, 1, 1 << 20)
    if isinstance(rank, bool) or not 0 <= rank < world_size:
        raise ConfigError(f"need 0 <= rank < world_size, got rank={rank}, world_size={world_size}")


class _Run(NamedTuple):
    """One iteration over an epoch: which, after how many samples, and its first step."""

    epoch: int
    seen: int
    first_step: int


class IndexPlanner(Sampler[BatchPlan]):
    """Sampler of the plans of an `EpochPlan`, epoch after epoch: what `Planner` is to a source, to an index.

    An epoch is planned when it is first asked for, by iterating or by ``len()``, and kept until another one is.

    Args:
        index, recipe: see `EpochPlan`.
        shuffle, tail, rank, world_size, balance, steps_per_epoch, packer: see `EpochPlan`.
        epoch: the first epoch, see `set_epoch`.
        seen: samples met in earlier epochs, for drop schedules; it grows with every epoch iterated to its end.
        map_target: decoded label → target, see `patchpack.stream.sources.open_source`.

    Attributes:
        source: a `Source` over the index.
        accounted: samples that the steps before the first one of this iteration told of.

    Raises:
        ConfigError: an option that cannot work.
    """

    def __init__(
        self,
        index: SampleIndex,
        recipe: Recipe,
        *,
        shuffle: int = 0,
        epoch: int = 0,
        steps_per_epoch: int | None = None,
        tail: Tail = "short",
        rank: int = 0,
        world_size: int = 1,
        balance: bool = False,
        packer: Lookahead | None = None,
        seen: int = 0,
        map_target: MapTarget | None = None,
    ) -> None:
        _require_place(rank, world_size)
        self.recipe = require_recipe(recipe)
        self.source = open_source(index, map_target=map_target)
        self._index = index
        self._kind: TargetKind = index.target_kind
        if map_target is not None:
            self._kind, _ = probe_targets(ListedSource(index).scan(), self.source.reader)
        self.epoch, self.seen, self.steps_per_epoch = epoch, seen, steps_per_epoch
        self._arguments: dict[str, Any] = {"shuffle": shuffle, "tail": tail, "balance": balance, "packer": packer}
        self._rank, self._world_size = rank, world_size
        self._first_step, self.accounted = 0, 0
        self._run: _Run | None = None
        self._made: tuple[tuple[int, int], EpochPlan] | None = None
        plan_rows(recipe, _EMPTY, num_ranks=world_size, steps_per_epoch=steps_per_epoch, **self._arguments)  # refused now

    def set_epoch(self, epoch: int) -> None:
        """Plan another epoch from the next iteration on. The epoch of a state that was just loaded goes on where it was."""
        if epoch != self.epoch:
            self._first_step = 0
        self.epoch, self._run = epoch, None

    def plan(self) -> EpochPlan:
        """The plan of the current epoch."""
        wanted = (self.epoch, self.seen if follows_seen(self.recipe.drop) else 0)
        if self._made is None or self._made[0] != wanted:
            self._made = None  # one epoch at a time
            plan = EpochPlan(
                self._index,
                self.recipe,
                self.epoch,
                rank=self._rank,
                world_size=self._world_size,
                steps_per_epoch=self.steps_per_epoch,
                seen=self.seen,
                **self._arguments,
            )
            self._made = (wanted, plan)
        return self._made[1]

    def __len__(self) -> int:
        """Batches of the current epoch, the same for every rank. Plans it where that is not known otherwise."""
        return len(self.plan()) if self.steps_per_epoch is None else self.steps_per_epoch

    def __iter__(self) -> Iterator[BatchPlan]:
        """Plans of one epoch; a single one with `BatchPlan.fatal` set where there is nothing to pack."""
        plan, first = self.plan(), self._first_step
        self._first_step, self.accounted = 0, plan.accounted(first)
        self._run = _Run(self.epoch, self.seen, first)
        if plan.fatal:
            yield plan.fatal_plan()
        for step in range(first, len(plan)):
            yield replace(plan[step], target_kind=self._kind)
        self.seen = self._run.seen + plan.rows.seen

    def state_dict(self, step: int | None = None, *, finished: bool = False) -> dict[str, Any]:
        """Where the epoch of the last iteration stood after its first `step` batches. Small, JSON-safe.

        Args:
            step: batches of that epoch that are done; None for those before the iteration began.
            finished: that epoch is over, so that the next iteration is a whole one.
        """
        epoch, seen, first = self._run or _Run(self.epoch, self.seen, self._first_step)
        step = first if step is None else step
        if finished:
            seen, step = self.seen, 0
        return {
            **self._belongs_to(),
            "world_size": self._world_size,
            "epoch": epoch,
            "seen": seen,
            "step": step,
            "rows": step * self._world_size * self.recipe.rows,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iteration goes on where the state was saved; no batch before it is planned.

        Another world size will do where rows are the same for it (balance off, one patch size), and where the rows that all
        ranks had together are whole steps of the new one.

        Raises:
            ConfigError: naming the field in which the state differs, or the rows that do not divide.
        """
        require_same(state, self._belongs_to())
        if state["world_size"] != self._world_size:
            self._require_same_rows(state["world_size"])
        rows, rows_per_step = state["rows"], self._world_size * self.recipe.rows
        if rows % rows_per_step:
            raise ConfigError(
                f"world_size differs, {state['world_size']} and {self._world_size}: {rows} rows were delivered, which is no "
                f"whole number of steps of {rows_per_step} rows. Save after a step that is, or resume with the same world_size"
            )
        self.epoch, self.seen, self._first_step, self._run = state["epoch"], state["seen"], rows // rows_per_step, None

    def _belongs_to(self) -> dict[str, Any]:
        rows_per_epoch = None
        if self.steps_per_epoch is not None:
            rows_per_epoch = self.steps_per_epoch * self._world_size * self.recipe.rows
        return {
            "state": STATE,
            "index": self._index.fingerprint,
            **recipe_fields(self.recipe),
            **{name: value if name != "packer" else repr(value) for name, value in self._arguments.items()},
            "rows per epoch": rows_per_epoch,
        }

    def _require_same_rows(self, world_size: int) -> None:
        for reason in (
            "balance=True" if self._arguments["balance"] else "",
            "several patch sizes" if len(self.recipe.patch_sizes) > 1 else "",
        ):
            if reason:
                raise ConfigError(
                    f"world_size differs, {world_size} and {self._world_size}: with {reason} rows depend on it; resume with "
                    f"the same world_size"
                )


_EMPTY = Sizes(np.empty((0, 2), dtype=np.int32), np.empty(0, dtype=np.uint64), np.zeros(1, dtype=np.int64))
