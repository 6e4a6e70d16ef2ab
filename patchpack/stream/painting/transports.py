"""The four ways from plans to painted batches: in this process, in threads, in workers, and planned in workers too."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset, Sampler

from patchpack.errors import ConfigError, WorkerError
from patchpack.paint.resample import compile_kernels
from patchpack.plan._integers import require_int
from patchpack.report import BatchInfo
from patchpack.stream.painting.assignments import Assignments, InFlight
from patchpack.stream.painting.painter import SendingPainter
from patchpack.stream.painting.planned_in_workers import PlannedInWorkers
from patchpack.stream.painting.threads import PLANNED_AHEAD, Finished, PaintedAhead
from patchpack.stream.planning.planner import Planner
from patchpack.stream.planning.resume import require_same, require_whole, with_checksum
from patchpack.stream.planning.stream_planner import StreamPlanner
from patchpack.stream.policy import ErrorPolicy
from patchpack.stream.workers.shared_batch import SharedBatch, require_room
from patchpack.stream.workers.slot_pool import SPARE, SlotPool, slot_bytes_of
from patchpack.stream.workers.watch import StatusBoard, WorkerSeeds, next_of

if TYPE_CHECKING:
    from patchpack.stream.loader import Loader

_PREFETCH = 2  # torch's default: batches that each worker makes before they are requested


class Transport:
    """Painting in this process, when a batch is requested. Other transports are subclasses.

    Args:
        planner: makes the plans.

    Attributes:
        dataset: the dataset of the loader.
        sampler: the sampler of the loader, None if the dataset is a stream.
    """

    dataset: Dataset[Any]
    sampler: Sampler[Any] | None

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.dataset, self.sampler = SendingPainter(planner), planner

    def begin(self) -> None:
        """Prepare an iteration."""

    def sent(self, loader: Loader) -> Iterator[Any]:
        """Yield batches, or `SharedBatch`es, of one epoch of the loader."""
        return DataLoader.__iter__(loader)

    def arrived(self, info: BatchInfo) -> int:
        """Note that a batch has arrived. Return the samples that its stream reported before this iteration."""
        return self._planner.already_reported

    def one_ends_all(self) -> bool:
        """Return True if a stream without a usable image ends the epoch, although others may have some."""
        return True

    def all_delivered(self) -> None:
        """Note that the last batch of the epoch is delivered."""

    def set_epoch(self, epoch: int) -> None:
        """Draw and shuffle for another epoch from the next iteration on."""
        self._planner.set_epoch(epoch)

    def state_dict(self, step: int | None, *, finished: bool) -> dict[str, Any]:
        """Return the state after `step` batches, see `Planner.state_dict`."""
        return {**self._planner.state_dict(step, finished=finished), "streams": 1}

    def load_state_dict(self, loader: Loader, state: Mapping[str, Any]) -> None:
        """Continue the loader after the state, see `Planner.load_state_dict`."""
        require_same(state, {"streams": 1})
        self._planner.load_state_dict(state)


class InThreads(Transport):
    """Painting in threads of this process.

    Args:
        planner: makes the plans.
        num_threads: threads that paint, at least 1.
    """

    def __init__(self, planner: Planner, num_threads: int) -> None:
        self._planner = planner
        self.dataset, self.sampler = Finished(), PaintedAhead(planner, num_threads)

    def begin(self) -> None:
        """Compile the kernels here, once."""
        compile_kernels(self._planner.recipe)


class InWorkers(Transport):
    """Painting in worker processes, into slots of shared memory. If a worker dies, others may take over.

    Args:
        planner: makes the plans, in this process.
        num_workers: worker processes, at least 1.
        policy: its timeout and restarts of workers.
        prefetch: batches that each worker makes before they are requested.
        seeds: for random numbers that the user's code draws in workers, None if the user seeds them.
    """

    def __init__(
        self, planner: Planner, num_workers: int, policy: ErrorPolicy, prefetch: int, seeds: WorkerSeeds | None
    ) -> None:
        self._planner, self._policy, self._num_workers = planner, policy, num_workers
        self._num_slots = num_workers * prefetch + SPARE
        self._board: StatusBoard | None = None  # of persistent workers
        self._open(seeds)

    def _open(self, seeds: WorkerSeeds | None) -> None:
        """Make the dataset and the sampler."""
        self._assignments, self._painter = Assignments(self._planner), SendingPainter(self._planner)
        self._painter.seeds = seeds
        self.dataset, self.sampler = self._painter, self._assignments

    def begin(self) -> None:
        """Compile the kernels here, once: a forked worker inherits them, a spawned one finds them on disk."""
        compile_kernels(self._planner.recipe)

    def sent(self, loader: Loader) -> Generator[Any, None, None]:
        """Yield what the workers of one epoch send. If one dies, start others, at most `worker_restarts` times."""
        in_flight = self._begin_epoch()
        restarts = self._policy.worker_restarts
        board = self._board or StatusBoard(self._num_workers)
        if loader.persistent_workers:
            self._board = board
        try:
            while True:
                pool = self._slots()  # held here: arriving batches only refer to it
                self._assignments.in_flight, self._painter.board = in_flight, board
                sending = DataLoader.__iter__(loader)
                if not loader.persistent_workers:  # this iterator's workers have copies; the next workers get new ones
                    self._painter.pool = self._assignments.pool = self._painter.board = None
                self._started()
                try:
                    while True:
                        sent = next_of(sending, board, self._policy.timeout, in_flight.next if in_flight else str)
                        if in_flight:
                            in_flight.arrived((sent.batch if isinstance(sent, SharedBatch) else sent).info.step)
                        yield sent
                        del sent
                except StopIteration:
                    return
                except WorkerError as error:
                    loader.forget_workers()  # persistent ones are gone as well
                    if not restarts:
                        raise
                    restarts -= 1
                    warnings.warn(f"{error}; other workers take over, {restarts} more times", RuntimeWarning, stacklevel=3)
                finally:
                    del sending, pool  # in this order
                self._restart()
        finally:
            if in_flight:
                in_flight.close()

    def _begin_epoch(self) -> InFlight | None:
        return InFlight(self._planner)

    def _started(self) -> None:
        """Note that the workers run."""

    def _restart(self) -> None:
        """Prepare other workers for the rest of the epoch."""

    def _slots(self) -> SlotPool | None:
        """Return the slots that the workers of the next iteration paint into, or None if each batch gets its own memory.

        Raise `ConfigError` if there is less shared memory than the batches need.
        """
        if self._painter.pool is None:
            num_bytes = slot_bytes_of(self._planner.recipe, self._planner.text_len)
            require_room(num_bytes, self._num_slots)
            self._painter.pool = self._assignments.pool = SlotPool(self._num_slots, num_bytes)
        return self._painter.pool


class PlanningInWorkers(InWorkers):
    """Planning and painting in worker processes, for items that must be decoded to find their size."""

    _planner: StreamPlanner

    def _open(self, seeds: WorkerSeeds | None) -> None:
        self._streams = PlannedInWorkers(self._planner, self._num_workers)
        self._painter, self._assignments = self._streams.painter, Assignments(self._planner)
        self._painter.seeds = seeds
        self.dataset, self.sampler = self._streams, None

    def begin(self) -> None:
        """Compile the kernels, and tell the epoch to workers that run already."""
        super().begin()
        self._streams.begin(self._planner.epoch, self._planner.seen)
        self._seen_before = self._planner.seen

    def arrived(self, info: BatchInfo) -> int:
        """Keep the state of a batch's stream. Return the samples that the stream reported before this iteration."""
        self._streams.arrived(info)
        return self._streams.already_reported(info.worker)

    def one_ends_all(self) -> bool:
        """Return True if a number of steps is set: one of several streams may have no image if the others have some."""
        return self._planner.steps_per_epoch is not None

    def all_delivered(self) -> None:
        """Count the samples of the epoch, which the planner in this process did not meet."""
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
        """Draw and shuffle for another epoch from the next iteration on."""
        if epoch != self._planner.epoch:
            self._planner.count_epoch(self._planner.seen + self._streams.forget())
        self._planner.set_epoch(epoch)

    def state_dict(self, step: int | None, *, finished: bool) -> dict[str, Any]:
        """Return the state of every stream after its last batch that arrived."""
        state = self._planner.state_dict(None, finished=finished)
        return {**state, "streams": self._num_workers, **self._at(state, None if finished else self._streams.state_dict())}

    def load_state_dict(self, loader: Loader, state: Mapping[str, Any]) -> None:
        """Continue every stream of the loader after its state."""
        require_same(state, {"streams": self._num_workers})
        require_whole(state, self._planner.position_fields)
        self._planner.load_state_dict({**state, **self._at(state, None)})
        if state["at"] is not None:
            self._streams.load_state_dict(state["at"])
        loader.forget_workers()  # persistent ones have begun already

    def _at(self, state: Mapping[str, Any], at: Any) -> dict[str, Any]:
        return with_checksum({**{name: state[name] for name in self._planner.position_fields}, "at": at})


def plans_ahead(num_workers: int, num_threads: int, options: Mapping[str, Any]) -> int:
    """Return how many plans may be on their way to a batch. Raises `ConfigError` for numbers that cannot work.

    Args:
        num_workers: painting processes.
        num_threads: painting threads.
        options: of `torch.utils.data.DataLoader`.
    """
    require_int("num_workers", num_workers, 0, 1 << 10)
    require_int("num_threads", num_threads, 0, 1 << 10)
    return num_workers * _prefetch(options) + PLANNED_AHEAD * num_threads


def transport_of(
    planner: Planner,
    num_workers: int,
    num_threads: int,
    policy: ErrorPolicy,
    options: Mapping[str, Any],
    seeds: WorkerSeeds | None,
) -> Transport:
    """Return the transport of a loader.

    Args:
        planner: makes the plans.
        num_workers: painting processes, 0 for none.
        num_threads: painting threads, 0 for none.
        policy: its timeout and restarts of workers.
        options: of `torch.utils.data.DataLoader`.
        seeds: for random numbers that the user's code draws in workers, None if the user seeds them.

    Raises:
        ConfigError: processes and threads together, or a planner that keeps too few states.
    """
    needed = plans_ahead(num_workers, num_threads, options) + 1
    if num_threads and num_workers:
        raise ConfigError(
            f"num_workers={num_workers} paint in processes, num_threads={num_threads} in this one: set one of them to 0"
        )
    if planner.states_kept < needed:
        raise ConfigError(f"{needed} plans may be on their way to a batch: make the planner with states_kept={needed}")
    if num_threads:
        return InThreads(planner, num_threads)
    if not num_workers:
        return Transport(planner)
    kind = PlanningInWorkers if planner.plans_in_workers else InWorkers
    return kind(planner, num_workers, policy, _prefetch(options), seeds)


def _prefetch(options: Mapping[str, Any]) -> int:
    prefetch: int = options.get("prefetch_factor") or _PREFETCH
    return prefetch
