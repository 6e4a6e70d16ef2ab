"""Planning in the workers, for items that must be decoded to find their size.

Each worker plans and paints its own part of the samples, and sends only finished batches. So batches depend on the number of
workers, unlike batches from every other kind of source. The pixels of an image never depend on the number of workers. A drop
schedule counts the samples that were read. If `steps_per_epoch` ends an epoch, the count includes samples that workers had read
ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from patchpack.batch.packed import PackedBatch
from patchpack.batch_info import BatchInfo
from patchpack.plan.online.saved import already_reported
from patchpack.stream.painting.assignments import Assignments
from patchpack.stream.painting.in_workers import InWorkers
from patchpack.stream.painting.painter import SendingPainter
from patchpack.stream.planning.resume import require_same, require_whole, with_checksum
from patchpack.stream.planning.stream_planner import StreamPlanner
from patchpack.stream.workers.shared_batch import SharedBatch, require_room, share
from patchpack.stream.workers.slot_pool import slot_bytes_of
from patchpack.stream.workers.watch import WorkerSeeds

if TYPE_CHECKING:
    from patchpack.stream.loader import Loader


class PlannedInWorkers(IterableDataset[PackedBatch[np.ndarray] | SharedBatch]):
    """One stream of batches for each of n workers.

    Torch's loader takes batches in turns: stream i makes steps i, i + n, i + 2n, ...

    Args:
        planner: a planner whose source decodes images to find their sizes.
        num_workers: number of streams, at least 1.

    Attributes:
        painter: the painter that each worker uses.

    Raises:
        ConfigError: a stream would have no sample, but has steps to make.
    """

    def __init__(self, planner: StreamPlanner, num_workers: int) -> None:
        planner.require_samples_for(num_workers)
        self._planner = planner
        self.painter = SendingPainter(planner)
        # shared, so that persistent workers see the next epoch
        self._begin = share(torch.tensor([planner.epoch, planner.seen]))
        self._resume: _Turns | None = None  # for workers that are not yet started
        self._begun = self._turns = _Turns([None] * num_workers, 0)

    def begin(self, epoch: int, seen: int) -> None:
        """Begin an epoch, before workers start. Workers that are already running see the new epoch too."""
        self._begin.copy_(torch.tensor([epoch, seen]))
        self._begun = self._turns = self._resume or _Turns([None] * len(self._turns.states), 0)

    def again(self) -> None:
        """Prepare new workers within an iteration. Each stream continues after its last batch that arrived."""
        self._resume = self._turns

    def forget(self) -> int:
        """Forget a loaded state, because another epoch begins.

        If the state was saved at the end of its epoch, return the number of samples in that epoch. Otherwise return 0.
        """
        if self._resume is None:
            return 0
        states = [state for state in self._resume.states if state is not None]
        over = len(states) == len(self._resume.states) and all(state["planner"].get("finished") for state in states)
        seen = self.seen if over else 0
        self._resume = None
        self._begun = self._turns = _Turns([None] * len(self._turns.states), 0)
        return seen

    def started(self) -> None:
        """Forget the loaded state once the workers run, so that later workers start at the beginning of an epoch."""
        self._resume = None

    def __iter__(self) -> Iterator[PackedBatch[np.ndarray] | SharedBatch]:
        """Yield this worker's batches.

        The info of each batch has the worker's number, and the state of the stream after the batch.
        """
        worker = get_worker_info()
        number, num_streams = (worker.id, worker.num_workers) if worker else (0, 1)
        begin = None
        if self._resume is not None:
            # torch takes its first worker's batch first: that worker takes the stream whose turn it is, others follow in order
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
        """Take the state out of a batch's info, and keep it as the current state of its stream."""
        number = info.worker
        states: list[Mapping[str, Any] | None] = [*self._turns.states]
        states[number], info.state = info.state, None
        self._turns = _Turns(states, (number + 1) % len(states))

    def already_reported(self, number: int) -> int:
        """Return the number of a stream's samples that were packed or reported in batches before this iteration."""
        state = self._begun.states[number]
        return 0 if state is None else already_reported(state["planner"])

    @property
    def seen(self) -> int:
        """Number of samples that all streams have met in this epoch, each up to its last batch that has arrived."""
        return sum(state["planner"]["account"]["seen"] for state in self._turns.states if state is not None)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each stream after its last batch that arrived, and the stream whose turn it is."""
        return {"states": self._turns.states, "first": self._turns.first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make workers that start later continue from a state."""
        self._resume = self._turns = _Turns(list(state["states"]), state["first"])


class _Turns(NamedTuple):
    """The state of each stream (None before its first batch), and the number of the stream whose turn it is."""

    states: list[Mapping[str, Any] | None]
    first: int


class PlanningInWorkers(InWorkers):
    """Planning and painting in worker processes, for items that must be decoded to find their size."""

    _planner: StreamPlanner

    def _open(self, seeds: WorkerSeeds | None) -> None:
        self._streams = PlannedInWorkers(self._planner, self._num_workers)
        self._painter, self._assignments = self._streams.painter, Assignments(self._planner)
        self._painter.seeds = seeds
        self.dataset, self.sampler = self._streams, None

    def begin(self) -> None:
        """Compile the kernels, and pass the epoch on to workers that are already running."""
        super().begin()
        self._streams.begin(self._planner.epoch, self._planner.seen)
        self._seen_before = self._planner.seen

    def arrived(self, info: BatchInfo) -> int:
        """Keep the state of a batch's stream. Return the number of samples that the stream reported before this iteration."""
        self._streams.arrived(info)
        return self._streams.already_reported(info.worker)

    def one_ends_all(self) -> bool:
        """Return True if one stream without a usable image ends the epoch.

        This is so if `steps_per_epoch` is set, because every stream must then make batches.
        """
        return self._planner.steps_per_epoch is not None

    def all_delivered(self) -> None:
        """Add the samples of the epoch to the planner's count.

        The planner in this process has not counted these samples, because the workers planned.
        """
        self._planner.count_epoch(self._seen_before + self._streams.seen)

    def _begin_epoch(self) -> None:
        return None  # the parent does not know the plans

    def _started(self) -> None:
        self._streams.started()

    def _restart(self) -> None:
        self._streams.again()

    def _slots(self) -> None:
        # the parent does not know of a batch before it is painted, so it cannot assign a slot
        require_room(slot_bytes_of(self._planner.recipe, self._planner.text_len), self._num_slots)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch. Random draws and shuffling depend on this number."""
        if epoch != self._planner.epoch:
            self._planner.count_epoch(self._planner.seen + self._streams.forget())
        self._planner.set_epoch(epoch)

    def state_dict(self, step: int | None, *, finished: bool) -> dict[str, Any]:
        """Return the state of every stream after its last batch that arrived."""
        state = self._planner.state_dict(None, finished=finished)
        return {**state, "streams": self._num_workers, **self._at(state, None if finished else self._streams.state_dict())}

    def load_state_dict(self, loader: Loader, state: Mapping[str, Any]) -> None:
        """Make every stream of the loader continue after its saved state."""
        require_same(state, {"streams": self._num_workers})
        require_whole(state, self._planner.position_fields)
        self._planner.load_state_dict({**state, **self._at(state, None)})
        if state["at"] is not None:
            self._streams.load_state_dict(state["at"])
        loader.forget_workers()  # persistent workers have begun already

    def _at(self, state: Mapping[str, Any], at: Any) -> dict[str, Any]:
        return with_checksum({**{name: state[name] for name in self._planner.position_fields}, "at": at})
