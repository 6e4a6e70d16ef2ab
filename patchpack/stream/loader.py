"""The loader behind `patchpack.load`: planner, painter and DataLoader together, with one account of the epoch."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError, SourceError, WorkerError
from patchpack.paint.resample import compile_kernels
from patchpack.plan._integers import require_int
from patchpack.plan.online.planner import FUSE
from patchpack.report import Account, BatchInfo, Report
from patchpack.stream.painting.assignments import Assignments, InFlight
from patchpack.stream.painting.painter import SendingPainter
from patchpack.stream.painting.planned_in_workers import PlannedInWorkers
from patchpack.stream.painting.threads import PLANNED_AHEAD, Finished, PaintedAhead
from patchpack.stream.planning.index_planner import IndexPlanner
from patchpack.stream.planning.planner import PLACE, Planner
from patchpack.stream.planning.resume import require_same, require_whole, with_checksum
from patchpack.stream.policy import ErrorPolicy, Fuse, OnError
from patchpack.stream.sample.names import nearest
from patchpack.stream.workers.exits import closed_at_exit
from patchpack.stream.workers.shared_batch import SharedBatch, as_sent, require_room, unwrap
from patchpack.stream.workers.slot_pool import SPARE, SlotPool, slot_bytes_of
from patchpack.stream.workers.watch import TICK, StatusBoard, WorkerSeeds, WorkerStart, next_of

_OURS = ("batch_size", "sampler", "batch_sampler", "collate_fn", "drop_last", "dataset", "in_order")
PATIENCE = 600.0  # seconds without a batch, or a header, after which a process counts as frozen


_OPTIONS = frozenset(inspect.signature(DataLoader.__init__).parameters) - {"self"}


def require_options(options: Mapping[str, Any], others: Iterable[str] = ()) -> None:
    """Raise `ConfigError` for an option that a DataLoader does not have, or that a recipe decides.

    Args:
        options: by name, for a torch DataLoader.
        others: names of the caller's other arguments. The error suggests one of them if the names are close.
    """
    for name in options:
        if name in _OURS:
            raise ConfigError(f"{name} is decided by the recipe (rows, seq_len, max_images) or tail and cannot be passed")
        if name not in _OPTIONS:
            raise ConfigError(f"{name}= is no option of load or of DataLoader{nearest(name, [*others, *_OPTIONS])}")


class Loader(DataLoader[PackedBatch]):
    """A `torch.utils.data.DataLoader` of `PackedBatch`es of tensors. Made by `load`.

    Args:
        planner: yields the plans of the batches.
        num_workers: painting processes, default 0.
        num_threads: painting threads of this process, instead of `num_workers`, default 0.
        on_error: ``"raise"``, ``"skip"`` or a function of a loss, see `ErrorPolicy`.
        quarantine: a file to which every unusable sample is appended, default None.
        fuse: raise after this many unusable samples in a row, see `ErrorPolicy`.
        timeout: seconds without a batch or header after which a process counts as frozen, default 600. 0 waits for ever.
        worker_restarts: how often in an epoch workers may be started again, default 0.
        **dataloader_options: options of `torch.utils.data.DataLoader` that a recipe does not decide.

    Attributes:
        planner: the given planner.
        fatal: the error of the last iteration if its planner could make no batch, or no further one. Else None.
    """

    def __init__(
        self,
        planner: Planner | IndexPlanner,
        *,
        num_workers: int = 0,
        num_threads: int = 0,
        on_error: OnError = "raise",
        quarantine: str | Path | None = None,
        fuse: Fuse = FUSE,
        timeout: float = PATIENCE,
        worker_restarts: int = 0,
        **dataloader_options: Any,
    ) -> None:
        require_int("num_workers", num_workers, 0, 1 << 10)
        require_int("num_threads", num_threads, 0, 1 << 10)
        require_int("worker_restarts", worker_restarts, 0, 1 << 30)
        if not timeout >= 0:
            raise ConfigError(f"timeout is a number of seconds, 0 for none, got {timeout}")
        if num_threads and num_workers:
            raise ConfigError(
                f"num_workers={num_workers} paint in processes, num_threads={num_threads} in this one: set one of them to 0"
            )
        require_options(dataloader_options)
        self.planner = planner
        self.fatal: SourceError | None = None
        self._policy = ErrorPolicy(on_error, quarantine, fuse)
        if isinstance(planner, Planner):
            planner.fuse, planner.timeout = self._policy.in_a_row, timeout
        self._timeout, self._worker_restarts, self._num_threads = timeout, worker_restarts, num_threads
        self._board: StatusBoard | None = None
        self._accounts: dict[int, Account] = {}  # by stream; only one if the parent plans
        # iterating a DataLoader draws from torch's global generator unless it has a generator itself
        users_generator, users_start = dataloader_options.get("generator"), dataloader_options.get("worker_init_fn")
        dataloader_options["generator"] = users_generator or torch.Generator()
        self._seeds = None if users_generator else WorkerSeeds(planner.recipe.seed, planner.rank)
        self._delivered: int | None = None  # batches of this epoch, including those before a resume
        self._finished = False
        self._streams = None
        if isinstance(planner, Planner) and planner.reads_pixels and num_workers:
            self._streams = PlannedInWorkers(planner, num_workers)
        self._compiles = num_workers > 0 or num_threads > 0
        if isinstance(planner, Planner):  # a state for every plan on its way, and for the current batch
            ahead = num_workers * (dataloader_options.get("prefetch_factor") or 2) + PLANNED_AHEAD * num_threads
            planner.states_kept = ahead + 2
        self._painter = self._streams.painter if self._streams else SendingPainter(planner)
        self._tickets = Assignments(planner)
        dataset: Dataset[Any] = self._painter
        sampler: Sampler[Any] | None = self._tickets if num_workers else planner
        if self._streams:
            dataset, sampler = self._streams, None
        if num_threads:
            dataset, sampler = Finished(), PaintedAhead(planner, num_threads)
        if num_workers:
            dataloader_options["worker_init_fn"] = WorkerStart(users_start, self._seeds)
            self._painter.seeds = None if users_start else self._seeds  # the user's start may seed
            dataloader_options["timeout"] = TICK
        super().__init__(
            dataset,
            sampler=sampler,
            batch_size=None,
            collate_fn=as_sent,
            num_workers=num_workers,
            **dataloader_options,
        )

    def __iter__(self) -> Iterator[PackedBatch]:  # type: ignore[override]  # torch types its private iterator
        """Iterate over the batches of one epoch, in order. An open iterator is closed when the interpreter ends.

        Raises:
            ConfigError: with workers, the shared memory is smaller than their batches.
            WorkerError: workers died or froze more often than `worker_restarts`.
            PatchpackError: under ``on_error="raise"``, the first unusable sample or shard, before the batch that would have
                held it. In any case, a source without a single usable image, or more losses than the fuse allows.
        """
        return closed_at_exit(self._batches())

    def _batches(self) -> Generator[PackedBatch, None, None]:
        self._accounts = {}
        self._policy.begin()
        self._delivered, self._finished = None, False
        if self._compiles:  # once, here: a forked worker inherits the kernels, a spawned one finds them on disk
            compile_kernels(self.planner.recipe)
        self.fatal, begun = None, self.planner.seen
        if self._streams:
            self._streams.begin(self.planner.epoch, begun)
        if self._seeds:
            self._seeds.epoch = self.planner.epoch
            self.generator.manual_seed(self._seeds.base())
        sending = self._from_workers() if self.num_workers else super().__iter__()
        try:
            for sent in sending:
                batch = unwrap(sent) if isinstance(sent, SharedBatch) else sent
                error = self._policy.judge(batch.info, self._seen(batch.info))
                # one of several streams may have no usable image if the others have some and no number of steps is set
                if error is None and batch.info.fatal is not None:
                    self.fatal = SourceError(batch.info.fatal)
                    error = None if self._streams and self.planner.steps_per_epoch is None else self.fatal
                stream, before = batch.info.worker, self.planner.already_reported
                if self._streams:
                    self._streams.arrived(batch.info)
                    before = self._streams.already_reported(stream)
                self._accounts.setdefault(stream, Account()).add(batch.info, before=before, delivered=error is None)
                if error is not None:
                    raise error
                if batch.info.fatal is None:
                    self._delivered = batch.info.step + 1
                    if self._streams and self._delivered == self.planner.steps_per_epoch:
                        self.planner.seen = begun + self._streams.seen  # after the last step no further batch is requested
                    yield batch
                del sent, batch  # before waiting for the next one: its memory may be painted again
        finally:  # an error would keep its traceback alive, and the traceback the workers
            if isinstance(sending, Generator):
                sending.close()
            del sending
        self._finished = True
        if self._streams:
            self.planner.seen = begun + self._streams.seen
        if not self.fatal and self.planner.world_size == 1:  # one of several ranks cannot know
            self.fatal = self._nothing_usable()
        if self.fatal and not self.report().packed:
            raise self.fatal

    def _nothing_usable(self) -> SourceError | None:
        """Return the error if an epoch was iterated from its beginning and every sample was rejected, else None."""
        report = self.report()
        if self.planner.already_reported or not report.rejected or len(report.rejected) < report.seen:
            return None
        counts = f"{report.seen} samples seen, {len(report.rejected)} rejected"
        return SourceError(f"{self.planner.source.name}: no image to pack, {counts}; the first: {report.rejected[0]}")

    def _from_workers(self) -> Generator[Any, None, None]:
        """Yield what the workers of one epoch send. If one dies, start others, at most `worker_restarts` times."""
        under_way = None if self._streams else InFlight(self.planner)
        restarts = self._worker_restarts
        board = self._board or StatusBoard(self.num_workers)
        if self.persistent_workers:
            self._board = board
        try:
            while True:
                ring = self._shared_memory()  # held here: arriving batches only refer to it
                self._tickets.under_way, self._painter.board = under_way, board
                sending = super().__iter__()
                if not self.persistent_workers:  # this iterator's workers have copies; the next workers get new ones
                    self._painter.ring = self._tickets.ring = self._painter.board = None
                if self._streams:
                    self._streams.started()
                try:
                    while True:
                        sent = next_of(sending, board, self._timeout, under_way.next if under_way else str)
                        if under_way:
                            under_way.arrived((sent.batch if isinstance(sent, SharedBatch) else sent).info.step)
                        yield sent
                        del sent
                except StopIteration:
                    return
                except WorkerError as error:
                    self._iterator = None  # persistent workers are gone as well
                    if not restarts:
                        raise
                    restarts -= 1
                    warnings.warn(f"{error}; other workers take over, {restarts} more times", RuntimeWarning, stacklevel=3)
                finally:
                    del sending, ring  # in this order
                if self._streams:
                    self._streams.again()
        finally:
            if under_way:
                under_way.close()

    def _seen(self, info: BatchInfo) -> int:
        """Return the number of samples met by all streams, with a batch's own count for its stream."""
        return info.seen + sum(account.seen for number, account in self._accounts.items() if number != info.worker)

    def _shared_memory(self) -> SlotPool | None:
        """Return the slots that the workers of the next iteration paint into, or None if each batch gets its own memory.

        Raise `ConfigError` if there is less shared memory than the batches need.
        """
        batches = self.num_workers * (self.prefetch_factor or 2) + SPARE
        num_bytes = slot_bytes_of(self.planner.recipe, self.planner.text_len)
        if self._streams:  # the parent does not know of a batch before it is painted, so it cannot assign a slot
            require_room(num_bytes, batches)
            return None
        if self._painter.ring is None:
            require_room(num_bytes, batches)
            self._painter.ring = self._tickets.ring = SlotPool(batches, num_bytes)
        return self._painter.ring

    def __len__(self) -> int:
        """Return the number of batches: for an index, of this epoch; else ``steps_per_epoch``, or raise `TypeError` without."""
        return len(self.planner)

    def __bool__(self) -> bool:
        """Return True, because the length of a loader may not be known."""
        return True

    def __repr__(self) -> str:
        workers = f", num_workers={self.num_workers}" if self.num_workers else ""
        threads = f", num_threads={self._num_threads}" if self._num_threads else ""
        return f"Loader({self.planner!r}{workers}{threads})"

    def set_epoch(self, epoch: int) -> None:
        """Draw and shuffle for another epoch from the next iteration on. See `Planner.set_epoch`."""
        if self._streams and epoch != self.planner.epoch:
            self.planner.seen += self._streams.forget()
        self.planner.set_epoch(epoch)
        self._delivered, self._finished = None, False

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch after the last delivered batch, even if workers are ahead.

        The state is small and JSON-safe, and holds no pixels. The method is torchdata's protocol, so trainers that support it
        find it.
        """
        if self._streams is None:
            return {**self.planner.state_dict(self._delivered, finished=self._finished), "streams": 1}
        state = self.planner.state_dict(None, finished=self._finished)
        at = None if self._finished else self._streams.state_dict()
        return {**state, "streams": self.num_workers, **with_checksum({**{name: state[name] for name in PLACE}, "at": at})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue, in the next iteration, after the last batch of the state. Batches are the same to the last bit.

        A state saved after the end of an epoch starts the next epoch. `report` counts only samples after the state. The number
        of workers or threads may differ, except for sources whose sizes are not known (`size_of`).

        Raises:
            ConfigError: the state is damaged, or an argument, a field of the recipe or a property of the source differs. The
                error names it. See `Planner.load_state_dict` and `IndexPlanner.load_state_dict`.
        """
        require_same(state, {"streams": self.num_workers if self._streams else 1})
        if self._streams is None:
            self.planner.load_state_dict(state)
        else:
            require_whole(state, PLACE)
            self.planner.load_state_dict({**state, **with_checksum({**{name: state[name] for name in PLACE}, "at": None})})
            if state["at"] is not None:
                self._streams.load_state_dict(state["at"])
            self._iterator = None  # persistent workers have begun already
        self._delivered, self._finished, self._accounts = None, False, {}

    def report(self) -> Report:
        """Return the account up to the last batch delivered or raised for. Painting workers do not change it."""
        total = Report.total(account.report() for account in self._accounts.values())
        return replace(total, ignored=dict(getattr(self.planner.source, "ignored", {})))

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes in the order of their numbers: class folders, or the classes of a Hugging Face label column.

        None if the source does not know its classes.
        """
        names: list[str] | None = getattr(self.planner.source, "class_names", None)
        return names
