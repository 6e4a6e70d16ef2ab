"""What workers are given: plans, each with a place to paint it; and what was given and has not come back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import Sampler

from patchpack.stream.planning.index_planner import IndexPlanner
from patchpack.stream.planning.planner import Planner
from patchpack.stream.workers.slot_pool import SlotPool
from patchpack.types import BatchPlan


class Assignment(NamedTuple):
    """What a worker gets: a plan, and where to paint it."""

    plan: BatchPlan
    slot: int | None


class InFlight:
    """The plans of one epoch, for as many sets of workers as it takes: what one did not bring back, the next is given first.

    Planning goes on where it was: it is this process's, and no worker's end disturbs it.
    """

    def __init__(self, planner: Planner | IndexPlanner) -> None:
        self._plans = iter(planner)
        self._given: dict[int, BatchPlan] = {}  # by step

    def __iter__(self) -> Iterator[BatchPlan]:
        """What is under way, then the rest of the epoch."""
        yield from list(self._given.values())
        for plan in self._plans:
            self._given[plan.step] = plan
            yield plan

    def arrived(self, step: int) -> None:
        """The batch of a step is here."""
        self._given.pop(step, None)

    def next(self) -> str:
        """What is waited for, as the end of a sentence."""
        plan = min(self._given.values(), key=lambda plan: plan.step, default=None)
        if plan is None or not plan.headers:
            return ""
        first = plan.headers[0]
        return f"; waited for is step {plan.step}, from {first.key} (member {first.member} of {first.shard}) on"

    def close(self) -> None:
        """The epoch is over, or left: planning ends, and the process that reads headers for it."""
        if hasattr(self._plans, "close"):
            self._plans.close()


class Assignments(Sampler[Assignment]):
    """Plans with a slot each, for one set of workers.

    Attributes:
        ring: what the next iteration gives slots of; None gives none.
        under_way: what it takes plans of; None makes new ones of the planner's.
    """

    def __init__(self, planner: Planner | IndexPlanner) -> None:
        self._planner = planner
        self.ring: SlotPool | None = None
        self.under_way: InFlight | None = None

    def __len__(self) -> int:
        """As of the planner."""
        return len(self._planner)

    def __iter__(self) -> Iterator[Assignment]:
        """One epoch, or what is left of it. Torch asks for the first ticket when no worker paints for the ring any more."""
        ring = self.ring
        if ring is not None:
            ring.recall()
        for plan in self.under_way or self._planner:
            yield Assignment(plan, None if ring is None else ring.take())

    def set_epoch(self, epoch: int) -> None:
        """Of the planner, for frameworks that call it on a loader's sampler."""
        self._planner.set_epoch(epoch)
