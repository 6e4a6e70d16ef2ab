"""The loader that `patchpack.load` returns: a torch DataLoader that plans, paints, and counts every sample."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from patchpack.batch.packed import PackedBatch
from patchpack.errors import SourceError
from patchpack.report import Report
from patchpack.stream.dataloader_options import require_options
from patchpack.stream.epoch_account import EpochAccount
from patchpack.stream.painting.transports import transport_of
from patchpack.stream.planning.planner import Planner
from patchpack.stream.policy import ErrorPolicy, OnError
from patchpack.stream.workers.exits import closed_at_exit
from patchpack.stream.workers.shared_batch import SharedBatch, as_sent, unwrap
from patchpack.stream.workers.watch import TICK, WorkerSeeds, WorkerStart


class Loader(DataLoader[PackedBatch]):
    """A `torch.utils.data.DataLoader` of `PackedBatch`es of tensors. Made by `load`.

    Args:
        planner: the planner that yields the plans of the batches. While the planner plans, its own ``max_in_a_row`` and
            ``timeout`` apply. `load` sets both to the values in `on_error`.
        num_workers: number of processes that paint, default 0.
        num_threads: number of threads of this process that paint, instead of `num_workers`, default 0.
        on_error: ``"raise"``, ``"skip"``, a function, or an `ErrorPolicy`, see `load`. Default ``"raise"``.
        dataloader: options of `torch.utils.data.DataLoader` that a recipe does not decide. Default None.

    Attributes:
        planner: the given planner.

    Raises:
        ConfigError: an option cannot work.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        num_workers: int = 0,
        num_threads: int = 0,
        on_error: OnError | ErrorPolicy = "raise",
        dataloader: Mapping[str, Any] | None = None,
    ) -> None:
        policy, options = ErrorPolicy.of(on_error), require_options(dataloader)
        self.planner = planner
        self._num_threads = num_threads
        self._account = EpochAccount(policy)
        self._delivered: int | None = None  # batches of this epoch, including those before a resume
        self._finished = False
        # iterating a DataLoader draws from torch's global generator unless it has a generator itself
        users_generator, users_start = options.get("generator"), options.get("worker_init_fn")
        options["generator"] = users_generator or torch.Generator()
        self._seeds = None if users_generator else WorkerSeeds(planner.recipe.seed, planner.rank)
        seeds = None if users_start else self._seeds  # the user's worker_init_fn may seed them
        self._transport = transport_of(planner, num_workers, num_threads, policy, options, seeds)
        if num_workers:
            options["worker_init_fn"] = WorkerStart(users_start, self._seeds)
            options["timeout"] = TICK
        super().__init__(
            self._transport.dataset,
            sampler=self._transport.sampler,
            batch_size=None,
            collate_fn=as_sent,
            num_workers=num_workers,
            **options,
        )

    def __iter__(self) -> Iterator[PackedBatch]:  # type: ignore[override]  # torch types its private iterator
        """Iterate over the batches of one epoch, in order. An open iterator is closed when the interpreter ends.

        Raises:
            ConfigError: there are workers, and their batches do not fit into the shared memory.
            WorkerError: workers died or froze more often than `worker_restarts`.
            PatchpackError: under ``on_error="raise"`` a sample or shard is unusable. The error comes in place of the batch that
                would have held the sample. Whatever `on_error` is, an error is also raised if the source has no usable image,
                or if more samples are unusable than the `ErrorPolicy` allows.
        """
        return closed_at_exit(self._batches())

    def _batches(self) -> Generator[PackedBatch, None, None]:
        self._delivered, self._finished = None, False
        self._account.begin()
        self._transport.begin()
        if self._seeds:
            self._seeds.epoch = self.planner.epoch
            self.generator.manual_seed(self._seeds.base())
        sending = self._transport.sent(self)
        try:
            for sent in sending:
                batch = unwrap(sent) if isinstance(sent, SharedBatch) else sent
                error = self._account.judge(batch.info, one_ends_all=self._transport.one_ends_all())
                self._account.add(batch.info, before=self._transport.arrived(batch.info), delivered=error is None)
                if error is not None:
                    raise error
                if batch.info.fatal is None:
                    self._delivered = batch.info.step + 1
                    if self._delivered == self.planner.steps_per_epoch:
                        self._transport.all_delivered()  # after the last step no further batch is requested
                    yield batch
                del sent, batch  # before waiting for the next batch: workers may reuse the memory of this one
        finally:  # an error would keep its traceback alive, and the traceback the workers
            if isinstance(sending, Generator):
                sending.close()
            del sending
        self._finished = True
        self._transport.all_delivered()
        # one of several ranks, or a run that was resumed, has not seen the whole epoch
        self._account.end(self.planner.source.name, whole=self.planner.world_size == 1 and not self.planner.already_reported)

    def forget_workers(self) -> None:
        """Start new workers in the next iteration, even if workers are persistent."""
        self._iterator = None

    def __len__(self) -> int:
        """Return the number of batches of an epoch.

        For an index this is the number for the current epoch. For any other source the number is ``steps_per_epoch``. If
        ``steps_per_epoch`` is None, a `TypeError` is raised.
        """
        return len(self.planner)

    def __bool__(self) -> bool:
        """Return True, because the length of a loader may not be known."""
        return True

    def __repr__(self) -> str:
        workers = f", num_workers={self.num_workers}" if self.num_workers else ""
        threads = f", num_threads={self._num_threads}" if self._num_threads else ""
        return f"Loader({self.planner!r}{workers}{threads})"

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch. Random draws and shuffling depend on this number. See `Planner.set_epoch`."""
        self._transport.set_epoch(epoch)
        self._delivered, self._finished = None, False

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch after the last delivered batch. Batches that workers made ahead do not count.

        The state is small and JSON-safe, and holds no pixels. The method follows torchdata's protocol, so trainers that support
        this protocol call it.
        """
        return self._transport.state_dict(self._delivered, finished=self._finished)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next iteration continue after a saved state.

        No batch is repeated. All batches equal the batches that the saved run would have made, to the last bit.

        If the state was saved after the end of an epoch, the next iteration starts the next epoch. `report` counts only samples
        after the state. The number of workers or threads may differ from the saved run, except for sources whose image sizes
        are not known (see ``size_of`` of `open_source`).

        Raises:
            ConfigError: the state is damaged, or an argument, a field of the recipe or a property of the source differs. The
                error names the difference. See `Planner.load_state_dict`.
        """
        self._transport.load_state_dict(self, state)
        self._delivered, self._finished = None, False
        self._account.begin()

    def report(self) -> Report:
        """Return the report on all samples up to the last delivered batch, or up to the batch that an error replaced.

        The number of workers does not change the report.
        """
        return replace(self._account.report(), ignored=dict(self.planner.source.ignored))

    @property
    def fatal(self) -> SourceError | None:
        """The error that ended the last iteration because no batch, or no further batch, could be planned. Else None."""
        return self._account.fatal

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes in the order of their numbers: class folders, or the classes of a Hugging Face label column.

        None if the source does not know its classes.
        """
        return self.planner.source.class_names
