"""``patchpack.load``: planner, painter and DataLoader put together, with one account of what happened."""

from __future__ import annotations

import inspect
import multiprocessing
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from patchpack.errors import ConfigError, SourceError, WorkerError
from patchpack.paint.resample import compile_kernels
from patchpack.plan._integers import require_int
from patchpack.plan.planner import FUSE, Tail
from patchpack.plan.recipe import Recipe
from patchpack.report import Account, BatchInfo, Report
from patchpack.stream.dataset import SendingPainter
from patchpack.stream.exits import closed_at_exit
from patchpack.stream.indexed import IndexPlanner
from patchpack.stream.labels import MapTarget
from patchpack.stream.listed import is_index
from patchpack.stream.mapstyle import SizeOf
from patchpack.stream.names import IMAGE, LABEL, nearest
from patchpack.stream.parcel import Parcel, as_tensors, require_room, unwrap
from patchpack.stream.policy import ErrorPolicy, Fuse, OnError
from patchpack.stream.resume import require_same, require_whole, sealed
from patchpack.stream.ring import SPARE, Ring, slot_bytes_of
from patchpack.stream.sampler import PLACE, Planner
from patchpack.stream.samples import ToSample
from patchpack.stream.streams import WorkerStreams
from patchpack.stream.text import TEXT, Tokenize
from patchpack.stream.threads import PLANNED_AHEAD, Finished, PaintedAhead
from patchpack.stream.tickets import Tickets, UnderWay
from patchpack.stream.workers import TICK, Board, WorkerSeeds, WorkerStart, next_of
from patchpack.types import PackedBatch

_OURS = ("batch_size", "sampler", "batch_sampler", "collate_fn", "drop_last", "dataset", "in_order")
PATIENCE = 600.0  # seconds without a batch, or a header, after which a process is taken for frozen


_OPTIONS = frozenset(inspect.signature(DataLoader.__init__).parameters) - {"self"}


class Loader(DataLoader[PackedBatch]):
    """A `torch.utils.data.DataLoader` of `PackedBatch`es of tensors. Made by `load`.

    Attributes:
        planner: what it carries the plans of.
        fatal: what the last iteration raised because its planner came to no batch, or to no further one.
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
        for name in _OURS:
            if name in dataloader_options:
                raise ConfigError(f"{name} is decided by the recipe (rows, seq_len, max_images) or tail and cannot be passed")
        for name in dataloader_options:
            if name not in _OPTIONS:
                ours = inspect.signature(load).parameters
                raise ConfigError(f"{name}= is no option of load or of DataLoader{nearest(name, [*ours, *_OPTIONS])}")
        self.planner = planner
        self.fatal: SourceError | None = None
        self._policy = ErrorPolicy(on_error, quarantine, fuse)
        if isinstance(planner, Planner):
            planner.fuse, planner.timeout = self._policy.in_a_row, timeout
        self._timeout, self._worker_restarts, self._num_threads = timeout, worker_restarts, num_threads
        self._board: Board | None = None
        self._accounts: dict[int, Account] = {}  # by stream; one, if the parent plans
        # iterating a DataLoader draws from torch's global generator unless it has its own
        users_generator, users_start = dataloader_options.get("generator"), dataloader_options.get("worker_init_fn")
        dataloader_options["generator"] = users_generator or torch.Generator()
        self._seeds = None if users_generator else WorkerSeeds(planner.recipe.seed, planner.rank)
        self._delivered: int | None = None  # batches of this epoch, those before a resume too
        self._finished = False
        self._streams = None
        if isinstance(planner, Planner) and planner.reads_pixels and num_workers:
            self._streams = WorkerStreams(planner, num_workers)
        self._compiles = num_workers > 0 or num_threads > 0
        if isinstance(planner, Planner):  # a state for every plan on its way, and for the batch at hand
            ahead = num_workers * (dataloader_options.get("prefetch_factor") or 2) + PLANNED_AHEAD * num_threads
            planner.states_kept = ahead + 2
        self._painter = self._streams.painter if self._streams else SendingPainter(planner)
        self._tickets = Tickets(planner)
        dataset: Dataset[Any] = self._painter
        sampler: Sampler[Any] | None = self._tickets if num_workers else planner
        if self._streams:
            dataset, sampler = self._streams, None
        if num_threads:
            dataset, sampler = Finished(), PaintedAhead(planner, num_threads)
        if num_workers:
            dataloader_options["worker_init_fn"] = WorkerStart(users_start, self._seeds)
            self._painter.seeds = None if users_start else self._seeds  # a start of the user's may seed, once for all epochs
            dataloader_options["timeout"] = TICK
        super().__init__(
            dataset,
            sampler=sampler,
            batch_size=None,
            collate_fn=as_tensors,
            num_workers=num_workers,
            **dataloader_options,
        )

    def __iter__(self) -> Iterator[PackedBatch]:  # type: ignore[override]  # torch types its private iterator
        """Batches of one epoch, in order. An iterator that is left open is closed when the interpreter ends.

        Raises:
            ConfigError: with workers, less shared memory than their batches take.
            WorkerError: a worker died or is frozen, more often than `worker_restarts`.
            PatchpackError: under ``on_error="raise"`` the first sample or shard that cannot be used, before the batch that
                would have held it; in any case a source without a single usable image, or more lost than the fuse holds.
        """
        return closed_at_exit(self._batches())

    def _batches(self) -> Generator[PackedBatch, None, None]:
        self._accounts = {}
        self._policy.begin()
        self._delivered, self._finished = None, False
        if self._compiles:  # once, here: a worker that is forked has the kernels, one that is spawned finds them on disk
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
                batch = unwrap(sent) if isinstance(sent, Parcel) else sent
                error = self._policy.judge(batch.info, self._seen(batch.info))
                # a stream among several may have no usable image, if the others do and it owes no steps
                if error is None and batch.info.fatal is not None:
                    self.fatal = SourceError(batch.info.fatal)
                    error = None if self._streams and self.planner.steps_per_epoch is None else self.fatal
                stream, before = batch.info.worker, self.planner.accounted
                if self._streams:
                    self._streams.arrived(batch.info)
                    before = self._streams.accounted(stream)
                self._accounts.setdefault(stream, Account()).add(batch.info, before=before, delivered=error is None)
                if error is not None:
                    raise error
                if batch.info.fatal is None:
                    self._delivered = batch.info.step + 1
                    if self._streams and self._delivered == self.planner.steps_per_epoch:
                        self.planner.seen = begun + self._streams.seen  # who counts steps asks for no other
                    yield batch
                del sent, batch  # before the next one is waited for: its memory may be painted again
        finally:  # an error would keep its traceback, and that the workers
            if isinstance(sending, Generator):
                sending.close()
            del sending
        self._finished = True
        if self._streams:
            self.planner.seen = begun + self._streams.seen
        if not self.fatal and self.planner.world_size == 1:  # a rank alone cannot know
            self.fatal = self._nothing_usable()
        if self.fatal and not self.report().packed:
            raise self.fatal

    def _nothing_usable(self) -> SourceError | None:
        """Return the error of an epoch, iterated from its beginning, of which every sample was rejected."""
        report = self.report()
        if self.planner.accounted or not report.rejected or len(report.rejected) < report.seen:
            return None
        counts = f"{report.seen} samples seen, {len(report.rejected)} rejected"
        return SourceError(f"{self.planner.source.name}: no image to pack, {counts}; the first: {report.rejected[0]}")

    def _from_workers(self) -> Generator[Any, None, None]:
        """What the workers of one epoch send; where one dies, others take over as often as they may."""
        under_way = None if self._streams else UnderWay(self.planner)
        restarts = self._worker_restarts
        board = self._board or Board(self.num_workers)
        if self.persistent_workers:
            self._board = board
        try:
            while True:
                ring = self._shared_memory()  # held: what arrives only names it
                self._tickets.under_way, self._painter.board = under_way, board
                sending = super().__iter__()
                if not self.persistent_workers:  # this iterator's workers have them; the next ones get others
                    self._painter.ring = self._tickets.ring = self._painter.board = None
                if self._streams:
                    self._streams.started()
                try:
                    while True:
                        sent = next_of(sending, board, self._timeout, under_way.next if under_way else str)
                        if under_way:
                            under_way.arrived((sent.batch if isinstance(sent, Parcel) else sent).info.step)
                        yield sent
                        del sent
                except StopIteration:
                    return
                except WorkerError as error:
                    self._iterator = None  # of workers that outlive an epoch none is left
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
        """Return the samples met by all streams, with what a batch says of its own."""
        return info.seen + sum(account.seen for number, account in self._accounts.items() if number != info.worker)

    def _shared_memory(self) -> Ring | None:
        """What the workers of the next iteration paint into; None where each batch gets memory of its own.

        Raises `ConfigError` where there is less than that.
        """
        batches = self.num_workers * (self.prefetch_factor or 2) + SPARE
        num_bytes = slot_bytes_of(self.planner.recipe, self.planner.text_len)
        if self._streams:  # no parent knows of a batch before it is painted, so nobody could give it a slot
            require_room(num_bytes, batches)
            return None
        if self._painter.ring is None:
            require_room(num_bytes, batches)
            self._painter.ring = self._tickets.ring = Ring(batches, num_bytes)
        return self._painter.ring

    def __len__(self) -> int:
        """Batches of an epoch, this one's of an index; else ``steps_per_epoch``, and a `TypeError` without."""
        return len(self.planner)

    def __bool__(self) -> bool:
        """True: a loader is there, though its length may not be known."""
        return True

    def __repr__(self) -> str:
        workers = f", num_workers={self.num_workers}" if self.num_workers else ""
        threads = f", num_threads={self._num_threads}" if self._num_threads else ""
        return f"Loader({self.planner!r}{workers}{threads})"

    def set_epoch(self, epoch: int) -> None:
        """Draw and shuffle for another epoch from the next iteration on, see `Planner.set_epoch`."""
        if self._streams and epoch != self.planner.epoch:
            self.planner.seen += self._streams.forget()
        self.planner.set_epoch(epoch)
        self._delivered, self._finished = None, False

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands after the last batch delivered, however far workers are ahead. Small, JSON-safe, no pixels.

        It is torchdata's protocol: trainers that look for it find it.
        """
        if self._streams is None:
            return {**self.planner.state_dict(self._delivered, finished=self._finished), "streams": 1}
        state = self.planner.state_dict(None, finished=self._finished)
        at = None if self._finished else self._streams.state_dict()
        return {**state, "streams": self.num_workers, **sealed({**{name: state[name] for name in PLACE}, "at": at})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iteration goes on after the batch that was the last when the state was taken, the same to the last bit.

        After a state that was taken when an epoch was over, the next iteration is a whole one. `report` counts what comes
        after the state. Another number of workers or threads will do, but for sources whose sizes are not known (`size_of`).

        Raises:
            ConfigError: naming the argument, field of the recipe or property of the source that differs, see
                `Planner.load_state_dict` and `IndexPlanner.load_state_dict`; or the state is damaged.
        """
        require_same(state, {"streams": self.num_workers if self._streams else 1})
        if self._streams is None:
            self.planner.load_state_dict(state)
        else:
            require_whole(state, PLACE)
            self.planner.load_state_dict({**state, **sealed({**{name: state[name] for name in PLACE}, "at": None})})
            if state["at"] is not None:
                self._streams.load_state_dict(state["at"])
            self._iterator = None  # workers that outlive an epoch have begun already
        self._delivered, self._finished, self._accounts = None, False, {}

    def report(self) -> Report:
        """The account up to the last batch delivered, or raised for; the same for any number of workers that only paint."""
        total = Report.total(account.report() for account in self._accounts.values())
        return replace(total, ignored=dict(getattr(self.planner.source, "ignored", {})))

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, in the order of their numbers: the class folders, or those of a Hugging Face label column.

        None where the source does not know any.
        """
        names: list[str] | None = getattr(self.planner.source, "class_names", None)
        return names


def load(
    source: Any,
    recipe: Recipe,
    *,
    image: str | Sequence[str] = IMAGE,
    frames: str | None = None,
    target: str | tuple[str, ...] | None = LABEL,
    to_sample: ToSample | None = None,
    map_target: MapTarget | None = None,
    classes: Sequence[str] | None = None,
    text: str = TEXT,
    tokenize: Tokenize | None = None,
    text_len: int | None = None,
    sizes: Any = None,
    size_of: SizeOf | None = None,
    shuffle: bool | int = 0,
    epoch: int = 0,
    steps_per_epoch: int | None = None,
    tail: Tail = "short",
    balance: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    num_workers: int = 0,
    num_threads: int = 0,
    on_error: OnError = "raise",
    quarantine: str | Path | None = None,
    fuse: Fuse = FUSE,
    timeout: float = PATIENCE,
    worker_restarts: int = 0,
    **dataloader_options: Any,
) -> Loader:
    """Packed batches of torch tensors from a source of images.

    Args:
        source: webdataset shards (path, brace pattern, glob, or a list of them), a folder, image files, a dataset with items by
            number (torch, Hugging Face), an iterable of `Sample`, webdataset dicts, Hugging Face rows, or pairs
            (image, target); or an index, whose epochs are planned as a whole, see `EpochPlan`: rows are fuller, ``len()`` is
            exact, ranks have equally many steps, and a state is a step.
        recipe: what to do with them, see `patchpack.recipes`.
        image: extensions of the image member or file, columns of a row, as a list or with ``;`` between them; a pattern
            (``*.jpg``) for all members of a sample that fit, see `Sample`. Where you give none, a row's image may also be in
            column ``image``, and a folder's images are all files in a format that can be decoded.
        frames: of a sample in shards or a webdataset dict, patterns of members (``*.jpg``) that are the frames of a clip, in
            order, numbers in their names by value; of a row, its column of frames. A sample without any is an image.
        target: extension of the label member (``cls``, ``txt``, ``json``, ``npy``), of the file beside an image of a folder, or
            column of a row; several for a dict of labels; None for unlabelled images. A name you give is used or refused.
            Where you give none, a row's label may also be in ``label``, and a folder's image has the number of its class
            subfolder.
        to_sample: ``(number, item) -> Sample``, for items of any other kind.
        map_target: decoded label → target, e.g. a look-up; what it raises makes the sample a rejection.
        classes: names of the class folders in the order of their numbers, for a folder that may lack some, such as a
            validation split; None for the folders that are there, sorted. An image in another folder is a rejection.
        text: where ``tokenize`` is given, extension of the text member, or of the file beside an image of a folder; column of a
            row (``text``, if there is no ``txt``). ``"json:caption"`` is a field of the JSON object that is there.
        tokenize: text → token ids, at least one: batches then have ``text_ids``. None reads no text. It runs while headers are
            read, because a row has room for so many tokens, once per sample and epoch; it must be picklable where processes
            are spawned. What it raises makes the sample a rejection. Nothing is cut: a longer text than ``text_len`` is
            rejected, so cut in here.
        text_len: tokens of text per row, beside those of images.
        sizes: int ``[n, 2]`` oriented height and width of every item of a dataset by number, where they are known.
        size_of: number → (height, width) instead, where that is cheap. Without either an item that does not come as file bytes
            must be decoded to know its size: with workers each plans its own share then, and batches depend on how many.
        shuffle: False or 0 for the source's order; else shards are permuted, and headers in blocks of this many, by (seed,
            epoch); files of a folder and items of a dataset are permuted as a whole. True permutes an index as a whole too, and
            takes blocks of 1024 of shards, streams and other iterables.
        epoch: of the draws and the shuffling, and of a source with a ``set_epoch`` (a stream of `datasets`); see
            `Loader.set_epoch`.
        steps_per_epoch: exactly this many batches on every rank, the source repeated as needed; None for one pass. Images
            that still wait when an epoch ends this way are dropped, and counted under ``steps_per_epoch``.
        tail: where the last rows of a pass do not fill a batch: ``"short"`` leaves it short, ``"drop"`` drops its images and
            counts them, ``"pad"`` adds empty rows, ``"wrap"`` repeats the first rows (repeats are not counted).
        balance: of an index: deal rows so that ranks have nearly the same to do in each step.
        rank, world_size: which share of the source; None asks `torch.distributed` if it is initialised. Shards are dealt
            whole if there is one for every rank, else samples by position. With ``tail="pad"`` and no ``steps_per_epoch``
            every rank plans all headers and takes its rows: every image once over all ranks, equal steps.
        num_workers: painting processes; they change nothing about a batch (but see `size_of`). Another one reads headers ahead.
        num_threads: painting threads of this process, instead of `num_workers`; they change nothing about a batch. Nothing is
            sent between processes, but all share one interpreter: for a few threads, and a dataset that several may read.
        on_error: ``"raise"`` stops at the first sample that cannot be used, naming it; ``"skip"`` counts and names it in
            `Loader.report` and goes on; a function of a `Rejection` (or `ShardFault`) says whether to go on.
        quarantine: a file to which every sample and shard that cannot be used is appended, a line of JSON each.
        fuse: so many samples in a row that cannot be used are an error whatever `on_error` says; a share in (0, 1) instead:
            more than that of at least 100 samples. None to go on whatever comes.
        timeout: seconds without a batch from any worker, or a header from the process that reads them, after which they are
            taken for frozen: an error that names what each was at; 0 waits for ever.
        worker_restarts: how often in an epoch workers are started anew where one died or all are frozen; the new ones paint
            what was under way, and nothing is lost or doubled. Each time is warned of.
        **dataloader_options: for `torch.utils.data.DataLoader`: ``pin_memory``, ``prefetch_factor``, ... Random numbers that a
            dataset of yours draws in workers are seeded by the recipe's seed, epoch, rank and worker; a ``generator`` seeds
            them in torch's way instead. A resume in the middle of an epoch does not repeat them.

    Returns:
        A `Loader`; iterate it, then read ``loader.report()``. ``len()`` is ``steps_per_epoch``, a `TypeError` without.

    Raises:
        SourceError, ConfigError: what can be known now is checked now. While iterating, see `Loader.__iter__`.
    """
    rank, world_size = _place(rank, world_size)
    ours: dict[str, Any] = {
        "num_workers": num_workers, "num_threads": num_threads, "on_error": on_error, "quarantine": quarantine, "fuse": fuse,
        "timeout": timeout, "worker_restarts": worker_restarts,
    }  # fmt: skip
    if is_index(source):
        for name, value, default in (
            ("image", image, IMAGE), ("frames", frames, None), ("target", target, LABEL),
            ("to_sample", to_sample, None), ("sizes", sizes, None), ("size_of", size_of, None), ("classes", classes, None),
        ):  # fmt: skip
            if value is not default and value != default:
                raise ConfigError(f"{name} is decided when an index is built and cannot be passed with it")
        if tokenize is not None or text_len is not None or text != TEXT:
            raise ConfigError("an index holds no texts, and rows are planned with them: load the shards themselves")
        indexed = IndexPlanner(
            source,
            recipe,
            shuffle=shuffle,
            epoch=epoch,
            steps_per_epoch=steps_per_epoch,
            tail=tail,
            rank=rank,
            world_size=world_size,
            balance=balance,
            map_target=map_target,
        )
        return Loader(indexed, **ours, **dataloader_options)
    if balance:
        raise ConfigError("balance=True needs an index: rows of a stream are dealt as they come")
    if world_size > 1 and steps_per_epoch is None and tail != "pad":
        warnings.warn(
            f"{world_size} ranks without steps_per_epoch: they may make different numbers of steps, and the first to end "
            f"leaves the others waiting for ever. Set steps_per_epoch to train, or tail='pad' to evaluate.",
            stacklevel=2,
        )
    # with workers, reading headers leaves the training thread too
    context = dataloader_options.get("multiprocessing_context") or multiprocessing.get_context()
    planner = Planner(
        source,
        recipe,
        image=image,
        frames=frames,
        target=target,
        to_sample=to_sample,
        map_target=map_target,
        classes=classes,
        text=text,
        tokenize=tokenize,
        text_len=text_len,
        sizes=sizes,
        size_of=size_of,
        shuffle=shuffle,
        epoch=epoch,
        steps_per_epoch=steps_per_epoch,
        tail=tail,
        rank=rank,
        world_size=world_size,
        scanner=context if num_workers else None,
    )
    return Loader(planner, **ours, **dataloader_options)


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """This process's rank and the number of ranks: as given, else as torch.distributed says, else one."""
    if (rank is None) != (world_size is None):
        raise ConfigError(f"rank and world_size go together, got rank={rank}, world_size={world_size}")
    if rank is not None and world_size is not None:
        return rank, world_size
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
