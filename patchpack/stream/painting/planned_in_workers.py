"""Planned in the workers: for items that must be read, and decoded, to know their size.

Each worker plans and paints the samples of its own share; nothing crosses but finished batches. So here, and only here under
`patchpack.load`, batches depend on the number of workers; what happens to an image does not. (A drop schedule counts what was
met: after an epoch that `steps_per_epoch` ended, that includes what each stream had read ahead.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from patchpack.batch.packed import PackedBatch
from patchpack.plan.online.planner import already_reported
from patchpack.report import BatchInfo
from patchpack.stream.painting.painter import SendingPainter
from patchpack.stream.planning.planner import Planner
from patchpack.stream.workers.shared_batch import SharedBatch, share


class PlannedInWorkers(IterableDataset[PackedBatch | SharedBatch]):
    """A stream of batches per worker, which torch's loader takes in turns: stream i makes steps i, i + n, i + 2n, ...

    Args:
        planner: its source reads pixels.
        num_workers: streams, at least 1.

    Attributes:
        painter: of the workers.

    Raises:
        ConfigError: a stream that owes steps would have no sample.
    """

    def __init__(self, planner: Planner, num_workers: int) -> None:
        planner.require_samples_for(num_workers)
        self._planner = planner
        self.painter = SendingPainter(planner)
        # shared, so that workers that outlive an epoch hear of the next one
        self._begin = share(torch.tensor([planner.epoch, planner.seen]))
        self._resume: _Turns | None = None  # for workers that are not yet started
        self._begun = self._turns = _Turns([None] * num_workers, 0)

    def begin(self, epoch: int, seen: int) -> None:
        """Before the workers start: which epoch comes next. Those that run already hear of it too."""
        self._begin.copy_(torch.tensor([epoch, seen]))
        self._begun = self._turns = self._resume or _Turns([None] * len(self._turns.states), 0)

    def again(self) -> None:
        """Other workers take over within an iteration: each stream goes on after the last of its batches that came."""
        self._resume = self._turns

    def forget(self) -> int:
        """Drop a state that was loaded: another epoch begins. Return the samples of its epoch if that was over, else 0."""
        if self._resume is None:
            return 0
        states = [state for state in self._resume.states if state is not None]
        over = len(states) == len(self._resume.states) and all(state["planner"].get("finished") for state in states)
        seen = self.seen if over else 0
        self._resume = None
        self._begun = self._turns = _Turns([None] * len(self._turns.states), 0)
        return seen

    def started(self) -> None:
        """The workers run; others, of another epoch, begin at its beginning."""
        self._resume = None

    def __iter__(self) -> Iterator[PackedBatch | SharedBatch]:
        """This worker's batches. Their info has the worker's number and the state after them."""
        worker = get_worker_info()
        number, num_streams = (worker.id, worker.num_workers) if worker else (0, 1)
        begin = None
        if self._resume is not None:
            # torch asks its first worker first: that one takes the stream whose turn it is, the others follow in order
            number = (number + self._resume.first) % num_streams
            begin, self._resume = self._resume.states[number], None
        self._planner.epoch, self._planner.seen = self._begin.tolist()
        if self.painter.seeds is not None and worker:
            self.painter.seeds.begin(worker.id, self._planner.epoch)
        for plan, state in self._planner.stream(number, num_streams, begin):
            sent = self.painter[plan]
            info = sent.batch.info if isinstance(sent, SharedBatch) else sent.info
            info.worker, info.state = number, state
            yield sent

    # ------------------------------------------------------------------------------------------------- in the parent

    def arrived(self, info: BatchInfo) -> None:
        """Take the state out of a batch's info: it is the one that streams are at now."""
        number = info.worker
        states: list[Mapping[str, Any] | None] = [*self._turns.states]
        states[number], info.state = info.state, None
        self._turns = _Turns(states, (number + 1) % len(states))

    def already_reported(self, number: int) -> int:
        """Samples of a stream that its batches before this iteration held or told of."""
        state = self._begun.states[number]
        return 0 if state is None else already_reported(state["planner"])

    @property
    def seen(self) -> int:
        """Samples that all streams have met in this epoch, as far as their batches have come."""
        return sum(state["planner"]["account"]["seen"] for state in self._turns.states if state is not None)

    def state_dict(self) -> dict[str, Any]:
        """Where each stream is after the last of its batches that came, and whose turn it is."""
        return {"states": self._turns.states, "first": self._turns.first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Workers that start from now on go on there."""
        self._resume = self._turns = _Turns(list(state["states"]), state["first"])


class _Turns(NamedTuple):
    """Where streams are: the state of each, None for one that has made nothing yet; and whose turn it is."""

    states: list[Mapping[str, Any] | None]
    first: int
