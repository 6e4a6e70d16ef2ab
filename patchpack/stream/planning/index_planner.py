"""The planner of an index as a torch sampler: epoch after epoch, with its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_epoch
from patchpack.plan.online.planner import Tail
from patchpack.plan.packing import Lookahead
from patchpack.plan.policies.drop import follows_seen
from patchpack.plan.recipe import Recipe
from patchpack.plan.shuffle import block_of
from patchpack.plan.whole_epoch.epoch import plan_rows
from patchpack.plan.whole_epoch.samples import Sizes
from patchpack.stream.planning.epoch_plan import EpochPlan, require_place
from patchpack.stream.planning.probe import probe_targets, require_recipe
from patchpack.stream.planning.resume import recipe_fields, require_same, require_whole, with_checksum
from patchpack.stream.sample.labels import MapTarget
from patchpack.stream.sources.indexed import IndexSource, SampleIndex
from patchpack.stream.sources.opening import open_source
from patchpack.types import BatchPlan, TargetKind

STATE = 2  # version of a state: raised for other fields, or if the same arguments plan other rows

_PLACE = ("world_size", "epoch", "seen", "step", "rows")  # in a state: the position in an epoch


class _Run(NamedTuple):
    """One iteration over an epoch: the epoch's number, the samples seen before it, and its first step."""

    epoch: int
    seen: int
    first_step: int


class IndexPlanner(Sampler[BatchPlan]):
    """A sampler of the plans of an `EpochPlan`, epoch after epoch. It is the counterpart of `Planner` for an index.

    An epoch is planned on the first iteration or call of ``len()``. Its plan is kept until another epoch is planned.

    Args:
        index: the index, see `EpochPlan`.
        recipe: sizes and augmentation of its samples, see `EpochPlan`.
        shuffle: False or 0 for the order of the index, True for a full shuffle, else the size of a block. See `EpochPlan`.
        epoch: the first epoch, default 0. See `set_epoch`.
        steps_per_epoch: exactly this many steps, samples repeated as needed. None for one pass.
        tail: handling of rows that do not fill a last step, default ``"short"``.
        rank: number of this process, default 0.
        world_size: number of ranks, default 1.
        balance: True deals rows so that ranks have nearly equal work in each step. Default False.
        packer: `Lookahead` options without `max_cut`. None chooses options that suit the sizes.
        seen: samples met in earlier epochs, for drop schedules, default 0. It grows with every epoch iterated to its end.
        map_target: decoded label → target, see `patchpack.stream.sources.opening.open_source`. Default None.

    Attributes:
        source: a `Source` over the index.
        already_reported: samples that the steps before the first one of this iteration have reported.

    Raises:
        ConfigError: an option that cannot work.
    """

    text_len: int | None = None  # an index holds no texts

    def __init__(
        self,
        index: SampleIndex,
        recipe: Recipe,
        *,
        shuffle: bool | int = 0,
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
        require_place(rank, world_size)
        shuffle = block_of(shuffle, len(index))
        self.recipe = require_recipe(recipe)
        self.source = open_source(index, map_target=map_target)
        self._index = index
        self._kind: TargetKind = index.target_kind
        if map_target is not None:
            self._kind, _ = probe_targets(IndexSource(index).scan(), self.source.reader)
        require_epoch(epoch)
        self.epoch, self.seen, self.steps_per_epoch = epoch, seen, steps_per_epoch
        self._arguments: dict[str, Any] = {"shuffle": shuffle, "tail": tail, "balance": balance, "packer": packer}
        self.rank, self.world_size = rank, world_size
        self._first_step, self.already_reported = 0, 0
        self._run: _Run | None = None
        self._made: tuple[tuple[int, int], EpochPlan] | None = None
        plan_rows(recipe, _EMPTY, num_ranks=world_size, steps_per_epoch=steps_per_epoch, **self._arguments)  # checks now

    def set_epoch(self, epoch: int) -> None:
        """Plan another epoch from the next iteration on. The same epoch as in a loaded state continues from that state."""
        require_epoch(epoch)
        if epoch != self.epoch:
            if self._first_step and follows_seen(self.recipe.drop) and self._first_step == len(self.plan()):
                self.seen += self.plan().rows.seen  # the state follows an epoch's last batch: that epoch is over
            self._first_step = 0
        self.epoch, self._run = epoch, None

    def plan(self) -> EpochPlan:
        """Return the plan of the current epoch."""
        wanted = (self.epoch, self.seen if follows_seen(self.recipe.drop) else 0)
        if self._made is None or self._made[0] != wanted:
            self._made = None  # one epoch at a time
            plan = EpochPlan(
                self._index,
                self.recipe,
                self.epoch,
                rank=self.rank,
                world_size=self.world_size,
                steps_per_epoch=self.steps_per_epoch,
                seen=self.seen,
                **self._arguments,
            )
            self._made = (wanted, plan)
        return self._made[1]

    def __len__(self) -> int:
        """Return the number of batches of the current epoch, the same for every rank. Plan the epoch if that is necessary."""
        return len(self.plan()) if self.steps_per_epoch is None else self.steps_per_epoch

    def __bool__(self) -> bool:
        """Return True without planning an epoch."""
        return True

    def __repr__(self) -> str:
        shuffle = self._arguments["shuffle"]
        shuffled = f", shuffle={shuffle}" if shuffle else ""
        steps = "" if self.steps_per_epoch is None else f", {self.steps_per_epoch} steps"
        ranks = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        return f"IndexPlanner({self.source.name}, epoch {self.epoch}{steps}{shuffled}{ranks})"

    def __iter__(self) -> Iterator[BatchPlan]:
        """Yield the plans of one epoch, or a single one with `BatchPlan.fatal` set if there is nothing to pack."""
        plan, first = self.plan(), self._first_step
        self._first_step, self.already_reported = 0, plan.already_reported(first)
        self._run = _Run(self.epoch, self.seen, first)
        seen = self.seen + plan.rows.seen
        if plan.fatal:
            yield plan.fatal_plan()
        for step in range(first, len(plan)):
            if step + 1 == len(plan):  # already here: a loop that knows the number of batches requests no more
                self.seen = seen
            yield replace(plan[step], target_kind=self._kind)
        self.seen = seen

    def state_dict(self, step: int | None = None, *, finished: bool = False) -> dict[str, Any]:
        """Return the position in the epoch of the last iteration after its first `step` batches. Small, JSON-safe.

        Args:
            step: batches of that epoch that are done. None for the batches before the iteration began.
            finished: True if that epoch is over. The next iteration then starts a new epoch.
        """
        epoch, seen, first = self._run or _Run(self.epoch, self.seen, self._first_step)
        step = first if step is None else step
        if finished:
            seen, step = self.seen, 0
        return {
            **self._belongs_to(),
            **with_checksum(
                {
                    "world_size": self.world_size,
                    "epoch": epoch,
                    "seen": seen,
                    "step": step,
                    "rows": step * self.world_size * self.recipe.rows,
                }
            ),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue, in the next iteration, where the state was saved. No batch before it is planned.

        Another world size is possible if rows do not depend on it (balance off, one patch size). The rows that all ranks had
        together must be whole steps of the new world size.

        Raises:
            ConfigError: a field of the state differs, or the rows do not divide, and the error says which; or the state is
                damaged.
        """
        require_same(state, self._belongs_to())
        require_whole(state, _PLACE)
        if state["world_size"] != self.world_size:
            self._require_same_rows(state["world_size"])
        rows, rows_per_step = state["rows"], self.world_size * self.recipe.rows
        if rows % rows_per_step:
            raise ConfigError(
                f"world_size differs, {state['world_size']} and {self.world_size}: {rows} rows were delivered, which is no "
                f"whole number of steps of {rows_per_step} rows. Save after a step that is, or resume with the same world_size"
            )
        self.epoch, self.seen, self._first_step, self._run = state["epoch"], state["seen"], rows // rows_per_step, None

    def _belongs_to(self) -> dict[str, Any]:
        rows_per_epoch = None
        if self.steps_per_epoch is not None:
            rows_per_epoch = self.steps_per_epoch * self.world_size * self.recipe.rows
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
                    f"world_size differs, {world_size} and {self.world_size}: with {reason} rows depend on it; resume with "
                    f"the same world_size"
                )


_EMPTY = Sizes(np.empty((0, 2), dtype=np.int32), np.empty(0, dtype=np.uint64), np.zeros(1, dtype=np.int64))
