"""The painter as a torch dataset: the index of an item is a plan, and the item is the painted batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch.utils.data import Dataset, get_worker_info

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError, SourceError
from patchpack.paint.painter import blank, paint
from patchpack.plan.recipe import Recipe
from patchpack.stream.painting.assignments import Assignment
from patchpack.stream.planning.planner import Planner
from patchpack.stream.policy import ErrorJudge, ErrorPolicy, OnError
from patchpack.stream.sample.source import Reader, tell_epoch
from patchpack.stream.workers.shared_batch import SharedBatch, wrap
from patchpack.stream.workers.slot_pool import SlotPool
from patchpack.stream.workers.watch import StatusBoard, WorkerSeeds
from patchpack.types import BatchPlan, Header


class Painter(Dataset[PackedBatch[np.ndarray]]):
    """A dataset whose index is a `BatchPlan` and whose item is a `PackedBatch` of numpy arrays.

    Args:
        planner: the `Planner` that makes the plans. The painter uses the recipe and the reader of the planner.
        on_error: ``"raise"``, ``"skip"``, a function, or an `ErrorPolicy`, see `load`. Under ``"skip"`` rejections are in
            ``batch.info``. Each process that paints counts separately. Default ``"raise"``.

    Raises:
        ConfigError: `planner` is not a planner, or `on_error` is an `ErrorPolicy` with options that only `load` can follow.
    """

    def __init__(self, planner: Planner, *, on_error: OnError | ErrorPolicy = "raise") -> None:
        if not isinstance(planner, Planner):
            raise ConfigError(
                f"Painter takes the Planner whose plans it paints, got a {type(planner).__name__}: make "
                f"planner = patchpack.Planner(source, recipe, ...), then patchpack.Painter(planner)"
            )
        policy = ErrorPolicy.of(on_error).require_default("Painter", "timeout", "worker_restarts")
        self._judge = ErrorJudge(policy)
        self._recipe = planner.recipe
        self._reader = planner.source.reader  # without the source: an iterator cannot be sent to a worker, and need not be

    def __getitem__(self, plan: BatchPlan) -> PackedBatch[np.ndarray]:
        """Paint one plan. Whether an unusable image raises an error depends on ``on_error``."""
        if plan.fatal:
            raise SourceError(plan.fatal)
        batch = painted(plan, self._recipe, self._reader)
        error = self._judge.judge(batch.info)
        if error is not None:
            raise error
        return batch


class SendingPainter(Dataset[PackedBatch[np.ndarray] | SharedBatch]):
    """The painter of a `Loader`. In a worker it makes a `SharedBatch`, even for a batch with errors.

    Attributes:
        pool: the slot pool that assignments refer to. It is set before workers start, so that every worker has it.
        board: the status board on which workers write what they paint. It is set before workers start.
        seeds: seeds for the random numbers that the user's code draws in workers. None if the user seeds these numbers.
    """

    def __init__(self, planner: Planner) -> None:
        self._recipe, self._reader = planner.recipe, planner.source.reader
        self.pool: SlotPool | None = None
        self.board: StatusBoard | None = None
        self.seeds: WorkerSeeds | None = None

    def __len__(self) -> int:
        """Raise `ConfigError`. This method is called only if the user makes another DataLoader of this dataset."""
        raise ConfigError(
            "a DataLoader was made anew around this loader's dataset, as Accelerate's prepare does: do not hand it over. "
            "It deals rows to ranks already, and batch.to(device) moves batches"
        )

    def __getitem__(self, work: BatchPlan | Assignment) -> PackedBatch[np.ndarray] | SharedBatch:
        """Paint one plan.

        A worker paints into the slot that its assignment names. If it names none, the worker paints into new shared memory.
        """
        plan, number = work if isinstance(work, Assignment) else (work, None)
        worker = get_worker_info()
        if worker is None:
            return painted(plan, self._recipe, self._reader)
        if self.seeds is not None:
            self.seeds.begin(worker.id, plan.epoch)
        slot = None if self.pool is None or number is None else self.pool.slot(number)
        sent, inside = wrap(blank(plan, self._recipe), slot)
        note = None if self.board is None else self.board.painting(worker.id, plan.step)
        painted(plan, self._recipe, self._reader, inside, note)
        if self.board is not None:
            self.board.write(worker.id, "")
        return sent


def painted(
    plan: BatchPlan,
    recipe: Recipe,
    reader: Reader,
    batch: PackedBatch[np.ndarray] | None = None,
    note: Callable[[Header], None] | None = None,
) -> PackedBatch[np.ndarray]:
    """Paint a plan. If the plan has a reason in `BatchPlan.fatal`, put the same reason into ``info.fatal`` of the batch.

    Args:
        plan: plan of the batch.
        recipe: recipe of the plan.
        reader: the reader of images and targets.
        batch: a blank batch to paint into. Default None: a new batch.
        note: a function that is called with the header of each image before the image is painted. Default None.
    """
    tell_epoch(reader, plan.epoch)
    batch = paint(plan, recipe, reader, batch, note)
    if plan.fatal:
        batch.info.fatal = plan.fatal
    return batch
