"""Painting in threads of this process: nothing is sent anywhere, and Pillow and the kernels let go of the interpreter."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

from torch.utils.data import Dataset, Sampler

from patchpack.batch.packed import PackedBatch
from patchpack.stream.painting.painter import painted
from patchpack.stream.planning.index_planner import IndexPlanner
from patchpack.stream.planning.planner import Planner
from patchpack.types import BatchPlan

PLANNED_AHEAD = 2  # batches per thread that are painted before they are asked for


class PaintedAhead(Sampler["Future[PackedBatch]"]):
    """A sampler of batches that threads are painting, in the order of the planner.

    To a DataLoader without workers it is what comes before `Finished`: a plan is handed to a thread when it is made, and waited
    for when its turn has come. How many threads there are changes nothing about a batch.

    Args:
        planner: makes the plans, in the thread that iterates.
        num_threads: threads that paint, >= 1; each opens files of its own.
    """

    def __init__(self, planner: Planner | IndexPlanner, num_threads: int) -> None:
        self._planner, self._num_threads = planner, num_threads

    def __len__(self) -> int:
        """As of the planner."""
        return len(self._planner)

    def __iter__(self) -> Iterator[Future[PackedBatch]]:
        """One epoch. Threads end with the iterator; what they paint then is finished and dropped."""
        mine, reader, recipe = local(), self._planner.source.reader, self._planner.recipe

        def open_files() -> None:
            mine.reader = copy.copy(reader)  # a reader keeps descriptors, and closes the oldest

        def work(plan: BatchPlan) -> PackedBatch:
            return painted(plan, recipe, mine.reader)

        pool = ThreadPoolExecutor(self._num_threads, "patchpack-painter", open_files)
        started: deque[Future[PackedBatch]] = deque()
        try:
            for plan in self._planner:
                started.append(pool.submit(work, plan))
                if len(started) > PLANNED_AHEAD * self._num_threads:
                    yield started.popleft()
            while started:
                yield started.popleft()
        finally:
            pool.shutdown(cancel_futures=True)


class Finished(Dataset[PackedBatch]):
    """A dataset whose index is a batch that is being painted, and whose item is that batch."""

    def __getitem__(self, batch: Future[PackedBatch]) -> PackedBatch:
        """Wait for it. Raises what painting raised."""
        return batch.result()
