"""The planner of an index, which plans each epoch as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from patchpack.errors import ConfigError
from patchpack.paint.target_kinds import declared_by
from patchpack.plan.policies.drop import follows_seen
from patchpack.plan.whole_epoch.epoch import plan_rows
from patchpack.plan.whole_epoch.samples import Sizes
from patchpack.stream.planning.epoch_plan import EpochPlan, require_place
from patchpack.stream.planning.planner import Planner, PlanOptions
from patchpack.stream.planning.probe import probe_targets
from patchpack.stream.planning.resume import recipe_fields
from patchpack.stream.sample.labels import MappedReader, map_name
from patchpack.stream.sources.indexed import IndexSource, block_in, is_index
from patchpack.types import BatchPlan, TargetKind

STATE = 4  # version of a state: raised for other fields, or if the same arguments plan other rows

_PLACE = ("world_size", "epoch", "seen", "step", "rows")  # in a state: the position in an epoch


class _Run(NamedTuple):
    """One iteration over an epoch: the epoch's number, the samples seen before it, and its first step."""

    epoch: int
    seen: int
    first_step: int


class IndexPlanner(Planner):
    """The planner of an index, whose epochs are planned as a whole. See `Planner` for its arguments.

    An epoch is planned on the first iteration or call of ``len()``. Its plan is kept until another epoch is planned.
    """

    position_fields = _PLACE
    states_kept = 1 << 30  # a state is a step

    @classmethod
    def suits(cls, source: Any) -> bool:
        """Return True for an index."""
        return is_index(source) or isinstance(source, IndexSource)

    def _prepare(self, options: PlanOptions) -> None:
        require_place(options.rank, options.world_size)
        if options.text_len is not None:
            raise ConfigError("an index holds no texts, and rows are planned with them: load the shards themselves")
        assert isinstance(self.source, IndexSource)
        self._index = self.source.index
        declared = self.source.target_kind
        self._kind: TargetKind = self._index.target_kind if declared is None else declared
        if isinstance(self.source.reader, MappedReader):
            self._kind, _ = probe_targets(self.source.scan(), self.source.reader, declared)
        self._arguments: dict[str, Any] = {
            "shuffle": block_in(self._index, options.shuffle),
            "tail": options.tail,
            "balance": options.balance,
            "packer": options.packer,
        }
        self._rank, self._world_size = options.rank, options.world_size
        self._first_step = 0
        self._run: _Run | None = None
        self._made: tuple[tuple[int, int], EpochPlan] | None = None
        steps, ranks = options.steps_per_epoch, options.world_size
        plan_rows(self.recipe, _EMPTY, num_ranks=ranks, steps_per_epoch=steps, **self._arguments)  # checks now

    @property
    def rank(self) -> int:
        """The rank whose share of the rows is planned."""
        return self._rank

    @property
    def world_size(self) -> int:
        """The number of ranks that share the rows."""
        return self._world_size

    @property
    def _shuffle(self) -> int:
        shuffle: int = self._arguments["shuffle"]
        return shuffle

    def _start_run(self) -> None:
        self._run = None

    def _forget_state(self) -> int:
        first, self._first_step = self._first_step, 0
        if first and follows_seen(self.recipe.drop) and first == len(self.plan()):
            return self.plan().rows.seen  # the state follows an epoch's last batch: that epoch is over
        return 0

    def plan(self) -> EpochPlan:
        """Return the `EpochPlan` of the current epoch."""
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
        """Return the number of batches of the current epoch, the same for every rank.

        Plan the epoch if it is not planned yet.
        """
        return len(self.plan()) if self.steps_per_epoch is None else self.steps_per_epoch

    def __iter__(self) -> Iterator[BatchPlan]:
        """Yield the plans of one epoch.

        If there is nothing to pack, yield a single plan with `BatchPlan.fatal` set.
        """
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

    def _position(self, step: int | None, finished: bool) -> dict[str, Any]:
        epoch, seen, first = self._run or _Run(self.epoch, self.seen, self._first_step)
        step = first if step is None else step
        if finished:
            seen, step = self.seen, 0
        rows = step * self.world_size * self.recipe.rows_per_batch
        return {"world_size": self.world_size, "epoch": epoch, "seen": seen, "step": step, "rows": rows}

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state["world_size"] != self.world_size:
            self._require_same_rows(state["world_size"])
        rows, rows_per_step = state["rows"], self.world_size * self.recipe.rows_per_batch
        if rows % rows_per_step:
            raise ConfigError(
                f"world_size differs, {state['world_size']} and {self.world_size}: {rows} rows were delivered, which is no "
                f"whole number of steps of {rows_per_step} rows. Save after a step that is, or resume with the same world_size"
            )
        self.epoch, self.seen, self._first_step, self._run = state["epoch"], state["seen"], rows // rows_per_step, None

    def belongs_to(self) -> dict[str, Any]:
        """Return the fields of a state that identify the run."""
        rows_per_epoch = None
        if self.steps_per_epoch is not None:
            rows_per_epoch = self.steps_per_epoch * self.world_size * self.recipe.rows_per_batch
        return {
            "state": STATE,
            "index": self._index.fingerprint,
            **recipe_fields(self.recipe),
            "map_target": map_name(self.source.reader),
            "target_kind": declared_by(self.source.target_kind),
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
