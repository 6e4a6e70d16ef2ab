"""The transport in which threads of this process paint.

No data is sent to other processes. Pillow and the compiled kernels release the interpreter lock.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

import numpy as np
from torch.utils.data import Dataset, Sampler

from patchpack.batch.packed import PackedBatch
from patchpack.paint.resample import compile_kernels
from patchpack.stream.painting.painter import painted
from patchpack.stream.painting.transport import Transport
from patchpack.stream.planning.planner import Planner
from patchpack.types import BatchPlan

PLANNED_AHEAD = 2  # batches per thread that are painted before they are requested


class PaintedAhead(Sampler["Future[PackedBatch[np.ndarray]]"]):
    """A sampler of batches that threads are painting. Batches come in the order of their plans.

    This sampler and the dataset `Finished` belong together, in a DataLoader without workers. A thread starts to paint a plan
    when the plan is made. The loader waits for each batch in order. The number of threads does not change batches.

    Args:
        planner: the planner that makes the plans, in the thread that iterates.
        num_threads: number of threads that paint, at least 1. Each thread opens its own files.
    """

    def __init__(self, planner: Planner, num_threads: int) -> None:
        self._planner, self._num_threads = planner, num_threads

    def __len__(self) -> int:
        """Return the length of the planner."""
        return len(self._planner)

    def __iter__(self) -> Iterator[Future[PackedBatch[np.ndarray]]]:
        """Yield the futures of the batches of one epoch.

        When the iterator ends, each thread finishes and drops the batch that it is painting, and then ends.
        """
        mine, reader, recipe = local(), self._planner.source.reader, self._planner.recipe

        def open_files() -> None:
            mine.reader = copy.copy(reader)  # a reader keeps descriptors and closes the oldest, so threads cannot share it

        def work(plan: BatchPlan) -> PackedBatch[np.ndarray]:
            return painted(plan, recipe, mine.reader)

        pool = ThreadPoolExecutor(self._num_threads, "patchpack-painter", open_files)
        started: deque[Future[PackedBatch[np.ndarray]]] = deque()
        try:
            for plan in self._planner:
                started.append(pool.submit(work, plan))
                if len(started) > PLANNED_AHEAD * self._num_threads:
                    yield started.popleft()
            while started:
                yield started.popleft()
        finally:
            pool.shutdown(cancel_futures=True)


class Finished(Dataset[PackedBatch[np.ndarray]]):
    """A dataset whose index is the `Future` of a batch, and whose item is that batch."""

    def __getitem__(self, batch: Future[PackedBatch[np.ndarray]]) -> PackedBatch[np.ndarray]:
        """Wait for the batch and return it. Errors of painting are raised here."""
        return batch.result()


class InThreads(Transport):
    """Painting in threads of this process.

    Args:
        planner: the planner that makes the plans.
        num_threads: number of threads that paint, at least 1.
    """

    def __init__(self, planner: Planner, num_threads: int) -> None:
        self._planner = planner
        self.dataset, self.sampler = Finished(), PaintedAhead(planner, num_threads)

    def begin(self) -> None:
        """Compile the kernels once, before threads need them."""
        compile_kernels(self._planner.recipe)
