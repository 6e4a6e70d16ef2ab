"""The transport in which worker processes paint into shared memory while this process plans."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from patchpack.errors import WorkerError
from patchpack.paint.resample import compile_kernels
from patchpack.stream.painting.assignments import Assignments, InFlight
from patchpack.stream.painting.painter import SendingPainter
from patchpack.stream.painting.transport import Transport
from patchpack.stream.planning.planner import Planner
from patchpack.stream.policy import ErrorPolicy
from patchpack.stream.workers.shared_batch import SharedBatch, require_room
from patchpack.stream.workers.slot_pool import SPARE, SlotPool, slot_bytes_of
from patchpack.stream.workers.watch import StatusBoard, WorkerSeeds, next_of

if TYPE_CHECKING:
    from patchpack.stream.loader import Loader


class InWorkers(Transport):
    """Painting in worker processes, into slots of shared memory. If a worker dies, new workers may paint its batches.

    Args:
        planner: the planner that makes the plans, in this process.
        num_workers: number of worker processes, at least 1.
        policy: the error policy. Only its ``timeout`` and ``worker_restarts`` are used.
        prefetch: number of batches that each worker makes before they are requested.
        seeds: seeds for the random numbers that the user's code draws in workers. None if the user seeds these numbers.
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
        """Compile the kernels in this process, once. A forked worker inherits them, and a spawned worker finds them on disk."""
        compile_kernels(self._planner.recipe)

    def sent(self, loader: Loader) -> Generator[Any, None, None]:
        """Yield the batches that the workers of one epoch send.

        If a worker dies, start new workers, at most `worker_restarts` times.
        """
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
                    loader.forget_workers()  # persistent workers are gone as well
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
        """Record that the workers run."""

    def _restart(self) -> None:
        """Prepare new workers for the rest of the epoch."""

    def _slots(self) -> SlotPool | None:
        """Return the slots that the workers of the next iteration paint into, or None if each batch gets its own memory.

        Raise `ConfigError` if there is less shared memory than the batches need.
        """
        if self._painter.pool is None:
            num_bytes = slot_bytes_of(self._planner.recipe, self._planner.text_len)
            require_room(num_bytes, self._num_slots)
            self._painter.pool = self._assignments.pool = SlotPool(self._num_slots, num_bytes)
        return self._painter.pool
