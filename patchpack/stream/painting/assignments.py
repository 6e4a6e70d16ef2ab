"""The assignments of workers. An assignment is a plan and a slot, which is a piece of shared memory to paint into.

Plans that are not finished yet are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import Sampler

from patchpack.stream.planning.planner import Planner
from patchpack.stream.workers.slot_pool import SlotPool
from patchpack.types import BatchPlan


class Assignment(NamedTuple):
    """A plan for a worker, and the number of the slot of shared memory to paint it into."""

    plan: BatchPlan
    slot: int | None


class InFlight:
    """The plans of one epoch. If workers are replaced, the new workers first get the plans that the old ones did not finish.

    Plans are made in this process, so a worker that dies does not affect planning.
    """

    def __init__(self, planner: Planner) -> None:
        self._plans = iter(planner)
        self._given: dict[int, BatchPlan] = {}  # by step

    def __iter__(self) -> Iterator[BatchPlan]:
        """Yield the plans that workers did not finish, then the rest of the epoch."""
        yield from list(self._given.values())
        for plan in self._plans:
            self._given[plan.step] = plan
            yield plan

    def arrived(self, step: int) -> None:
        """Remove the plan of a step whose batch has arrived."""
        self._given.pop(step, None)

    def next(self) -> str:
        """Return a description of the next expected batch, worded as the end of a sentence."""
        plan = min(self._given.values(), key=lambda plan: plan.step, default=None)
        if plan is None or not plan.headers:
            return ""
        first = plan.headers[0]
        return f"; waited for is step {plan.step}, from {first.key} (member {first.member} of {first.shard}) on"

    def close(self) -> None:
        """Close the epoch. End the planning and the process that reads headers."""
        if hasattr(self._plans, "close"):
            self._plans.close()


class Assignments(Sampler[Assignment]):
    """A sampler that yields each plan together with a slot to paint into.

    Attributes:
        pool: the slot pool of the next iteration. With None, assignments have no slots.
        in_flight: the unfinished plans that the next iteration begins with. None begins a new epoch of the planner.
    """

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.pool: SlotPool | None = None
        self.in_flight: InFlight | None = None

    def __len__(self) -> int:
        """Return the length of the planner."""
        return len(self._planner)

    def __iter__(self) -> Iterator[Assignment]:
        """Yield the assignments of one epoch, or of the rest of an epoch.

        Torch requests the first plan only when no worker paints into the pool anymore.
        """
        pool = self.pool
        if pool is not None:
            pool.recall()
        for plan in self.in_flight or self._planner:
            yield Assignment(plan, None if pool is None else pool.take())

    def set_epoch(self, epoch: int) -> None:
        """Set the planner's epoch, for frameworks that call this on a loader's sampler."""
        self._planner.set_epoch(epoch)
