"""The samples of an epoch that do not reach a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from patchpack.batch_info import BatchInfo
from patchpack.losses import Rejection, ShardFault, source_of
from patchpack.plan.online.decisions import SampleDecision

MAX_IN_A_ROW = 100
"""Number of unusable samples in a row after which the source counts as broken."""


class Losses:
    """The record of the samples read in one epoch, and of the losses among them. Each loss is reported once, by the next plan.

    Args:
        sources: names of the sources of a mix. Their samples are counted by source too. Default empty, no mix.

    Attributes:
        seen: number of samples read.
        rejected: number of rejected samples.
        first_rejection: the first rejection, None without a rejection.
        first_fault: the fault of the first container that could not be read to its end, None without a fault.
        in_a_row: number of rejections since the last usable sample.
        dropped: dict from the name of a rule to the number of samples that the rule left out.
    """

    def __init__(self, sources: Sequence[str] = ()) -> None:
        self._sources = sources
        self._dropped_by_source = dict.fromkeys(sources, 0)  # since the last plan
        self.seen = self.rejected = self.in_a_row = 0
        self.first_rejection: Rejection | None = None
        self.first_fault: ShardFault | None = None
        self.dropped: dict[str, int] = {}
        self._rejections: list[Rejection] = []
        self._faults: list[ShardFault] = []

    def reject(self, rejection: Rejection) -> None:
        """Record that a sample was rejected."""
        self.rejected += 1
        self.in_a_row += 1
        self.first_rejection = self.first_rejection or rejection
        self._rejections.append(rejection)

    def fault(self, fault: ShardFault) -> None:
        """Record a container that cannot be read to its end."""
        self.first_fault = self.first_fault or fault
        self._faults.append(fault)

    def drop(self, rule: str, samples: Sequence[SampleDecision]) -> None:
        """Count samples that a rule leaves out."""
        if samples:
            self.dropped[rule] = self.dropped.get(rule, 0) + len(samples)
            for sample in samples if self._sources else ():
                self._dropped_by_source[source_of(sample.header.key)] += 1

    def info(
        self,
        step: int,
        epoch: int,
        planned: Sequence[SampleDecision],
        waiting: Callable[[], Sequence[SampleDecision]],
        *,
        fatal: bool,
    ) -> BatchInfo:
        """Return the info of a batch, with the losses that no earlier info has.

        Args:
            step: number of the batch.
            epoch: number of the epoch.
            planned: its samples, without repeated ones.
            waiting: a function that returns the samples that wait for a later batch. It is called for a mix only.
            fatal: True if no batch follows. The info then includes the samples that rules left out.
        """
        rejections, faults = self.take_new()
        dropped = self.dropped if fatal else {}
        shortened = sum(decision.cut > 0 for decision in planned)
        return BatchInfo(
            step=step, epoch=epoch, seen=self.seen, planned=len(planned), shortened=shortened, dropped=dropped,
            rejections=rejections, shard_errors=faults, by_source=self._by_source(waiting),
        )  # fmt: skip

    def added_to(self, info: BatchInfo, waiting: Callable[[], Sequence[SampleDecision]]) -> BatchInfo:
        """Return the info of a plan that was held back, after adding the losses that were recorded in the meantime.

        Args:
            info: info of the plan.
            waiting: a function that returns the samples that wait for a later batch. It is called for a mix only.
        """
        rejections, faults = self.take_new()
        rejections, faults = [*info.rejections, *rejections], [*info.shard_errors, *faults]
        return replace(info, seen=self.seen, rejections=rejections, shard_errors=faults, by_source=self._by_source(waiting))

    def _by_source(self, waiting: Callable[[], Sequence[SampleDecision]]) -> dict[str, dict[str, int]]:
        """Return the numbers of waiting and of newly dropped samples, by source."""
        if not self._sources:
            return {}
        counts = {name: {"waiting": 0, "dropped": dropped} for name, dropped in self._dropped_by_source.items()}
        self._dropped_by_source = dict.fromkeys(self._sources, 0)
        for sample in waiting():
            counts[source_of(sample.header.key)]["waiting"] += 1
        return counts

    def take_new(self) -> tuple[list[Rejection], list[ShardFault]]:
        """Return the rejections and the faults that were recorded since the last call."""
        new = self._rejections, self._faults
        self._rejections, self._faults = [], []
        return new

    def state_dict(self) -> dict[str, object]:
        """Return the whole state, JSON-safe."""
        first, fault = self.first_rejection, self.first_fault
        return {
            "seen": self.seen,
            "rejected": self.rejected,
            "first_rejection": None if first is None else first._asdict(),
            "first_fault": None if fault is None else fault._asdict(),
            "dropped": dict(self.dropped),
            "rejections": [rejection._asdict() for rejection in self._rejections],
            "shard_errors": [fault._asdict() for fault in self._faults],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        first, fault = state["first_rejection"], state["first_fault"]
        self.seen, self.rejected, self.dropped = state["seen"], state["rejected"], dict(state["dropped"])
        self.first_rejection = None if first is None else Rejection(**first)
        self.first_fault = None if fault is None else ShardFault(**fault)
        self._rejections = [Rejection(**rejection) for rejection in state["rejections"]]
        self._faults = [ShardFault(**fault) for fault in state["shard_errors"]]

    def __str__(self) -> str:
        what = f"{self.seen} samples seen, {self.rejected} rejected"
        if self.first_rejection is not None:
            what += f"; the first: {self.first_rejection}"
        if self.first_fault is not None:
            what += f"; {self.first_fault.shard}: {self.first_fault.reason}"
        return f"{what}, dropped: {self.dropped}" if self.dropped else what
