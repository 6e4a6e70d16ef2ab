"""The planner as a torch sampler: it decides the next batch in the parent process, from headers alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import Sampler

from patchpack.errors import ConfigError
from patchpack.image.formats import reading_of
from patchpack.plan._integers import require_epoch, require_int
from patchpack.plan.online.planner import FUSE, OnlinePlanner, Tail, already_reported
from patchpack.plan.recipe import Recipe
from patchpack.plan.shuffle import block_of
from patchpack.report import Rejection, ShardFault
from patchpack.stream.planning.order import Mark, Order, OrderedSource
from patchpack.stream.planning.probe import probe_targets, require_recipe
from patchpack.stream.planning.resume import (
    STATE,
    Marks,
    kind_of,
    recipe_fields,
    require_same,
    require_whole,
    restore,
    snapshot,
    with_checksum,
)
from patchpack.stream.planning.scanner import scan_ahead
from patchpack.stream.sample.items import ToSample
from patchpack.stream.sample.labels import MapTarget
from patchpack.stream.sample.names import IMAGE, LABEL
from patchpack.stream.sample.source import Source, tell_epoch
from patchpack.stream.sample.text import TEXT, Tokenize, require_picklable, require_text_len
from patchpack.stream.sources.map_style import MapStyleSource, SizeOf
from patchpack.stream.sources.opening import open_source
from patchpack.types import BatchPlan, TargetKind

_BLOCK = 64  # headers planned at a time: numpy's cost per call is spread, and the first batch does not wait

PLACE = ("epoch", "seen", "at")  # in a state: the position in an epoch
LOOKAHEAD_BYTES = 1 << 28  # limit for images that travel with their plan and wait in open rows


class Planner(Sampler[BatchPlan]):
    """A sampler of `BatchPlan`s, for ``DataLoader(painter, sampler=planner, batch_size=None)``.

    All decisions are made here, in one process, so the number of workers cannot change a batch.

    Args:
        source: the samples, see `patchpack.stream.sources.opening.open_source`.
        recipe: sizes, augmentation and packing of the samples.
        image: name of the image, see `open_source`.
        frames: names of the frames of a clip, default None, see `open_source`.
        target: name of the label, several, or None, see `open_source`.
        to_sample: ``(number, item) -> Sample``, for items of another kind. Default None.
        map_target: decoded label → target. Default None.
        classes: names of the class folders in the order of their numbers. None takes the existing folders, sorted.
        sizes: int ``[n, 2]``, heights and widths of a map-style dataset, None if unknown.
        size_of: number → (height, width), instead of ``sizes``. Default None.
        shuffle: False or 0 for the source's order, else shards are permuted, and headers in blocks of this many. For True see
            `load`.
        epoch: number of the epoch, for the draws, the shuffling, and a source with a ``set_epoch``. Default 0. See `set_epoch`.
        steps_per_epoch: exactly this many batches, the source repeated as needed. None for one pass.
        tail: handling of the last rows if they do not fill a batch, default ``"short"``. See `OnlinePlanner`.
        rank: number of the share of the source, default 0, see `Order`. With ``tail="pad"`` and no ``steps_per_epoch``
            (evaluation) every rank plans the whole source and takes its rows of each batch: every image once, equal steps.
        world_size: number of shares, default 1.
        seen: samples met in earlier epochs, for drop schedules, default 0. It grows with every epoch iterated to its end.
        scanner: a multiprocessing context, or the name of a start method. Headers of shards and folders are then read ahead in
            a separate process. None reads them in this process, between batches. It does not change plans.
        fuse: the planner stops after this many rejections in a row, default 100. None never stops it.
        text: name of the text, see `load`.
        tokenize: text → token ids, None for no texts, see `load`.
        text_len: tokens of text per row, see `load`.

    Attributes:
        text_len: tokens of text per row, None without texts.
        states_kept: number of plans that may be on their way to a batch. `state_dict` has a state for each of them.
        already_reported: samples that the steps before the first one of this iteration have reported.
        timeout: seconds without a header after which the scanner counts as frozen; 0 for no limit.

    Raises:
        SourceError, ConfigError: at construction.
    """

    def __init__(
        self,
        source: Any,
        recipe: Recipe,
        *,
        image: str | Sequence[str] = IMAGE,
        frames: str | None = None,
        target: str | tuple[str, ...] | None = LABEL,
        to_sample: ToSample | None = None,
        map_target: MapTarget | None = None,
        classes: Sequence[str] | None = None,
        sizes: Any = None,
        size_of: SizeOf | None = None,
        shuffle: bool | int = 0,
        epoch: int = 0,
        steps_per_epoch: int | None = None,
        tail: Tail = "short",
        rank: int = 0,
        world_size: int = 1,
        seen: int = 0,
        scanner: str | BaseContext | None = None,
        fuse: int | None = FUSE,
        text: str = TEXT,
        tokenize: Tokenize | None = None,
        text_len: int | None = None,
    ) -> None:
        require_text_len(tokenize, text_len)
        if scanner is not None:
            require_picklable(tokenize, scanner if isinstance(scanner, str) else scanner.get_start_method())
        self.fuse = fuse
        self.text_len, self._text = text_len, None if tokenize is None else text
        self.timeout = 0.0
        self.recipe = require_recipe(recipe)
        self.source: Source = open_source(
            source,
            image=image,
            frames=frames,
            clips=recipe.video is not None,
            target=target,
            max_pixels=recipe.max_pixels,
            max_bytes=recipe.max_bytes,
            background=recipe.background,
            reading=reading_of(recipe),
            to_sample=to_sample,
            map_target=map_target,
            classes=classes,
            sizes=sizes,
            size_of=size_of,
            text=text,
            tokenize=tokenize,
        )
        if world_size > 1 and getattr(self.source, "is_split", False):
            raise ConfigError(
                f"{self.source.name} is split by rank already, and would be split again: pass the whole stream, or rank=0 and "
                f"world_size=1"
            )
        if steps_per_epoch is not None:
            require_int("steps_per_epoch", steps_per_epoch, 1, 1 << 50)
        self.epoch, self.seen = epoch, seen
        self.already_reported = 0
        self._resume: Mapping[str, Any] | None = None
        self._run: tuple[int, int, Mapping[str, Any] | None] = (
            epoch,
            seen,
            None,
        )  # of the last iteration, or of the next one after a state was loaded
        self.states_kept = 64
        self._states: dict[int, dict[str, Any]] = {}
        self.steps_per_epoch, self._tail = steps_per_epoch, tail
        self._order = Order(recipe.seed, epoch, block_of(shuffle), steps_per_epoch is not None, rank, world_size)
        self._together = world_size > 1 and tail == "pad" and steps_per_epoch is None
        self._scanner = None if getattr(self.source, "scan_here", False) else scanner
        if self._together and isinstance(self.source, MapStyleSource):
            self.source = self.source.reading_twice()  # every rank reads every header, and paints its own images
        self._new_planner(None)  # refuses a wrong tail or number of steps now

    def set_epoch(self, epoch: int) -> None:
        """Draw and shuffle for another epoch from the next iteration on.

        A source with a ``set_epoch`` is set to the planner's epoch when an iteration begins. The same epoch as in a loaded
        state continues from that state.
        """
        require_epoch(epoch)
        if epoch != self.epoch:
            if self._resume and self._resume["planner"].get("finished"):  # saved after an epoch's last batch: it is over
                self.seen += self._resume["planner"]["account"]["seen"]
            self._resume = None
        self.epoch = epoch
        self._run = (epoch, self.seen, self._resume)

    def __len__(self) -> int:
        """Return ``steps_per_epoch``. Raises `TypeError` without it, because the number of batches is not known in advance."""
        if self.steps_per_epoch is None:
            raise TypeError("the number of batches is not known before the end of the source; steps_per_epoch fixes it")
        return self.steps_per_epoch

    def __bool__(self) -> bool:
        """Return True, because the length of a planner may not be known."""
        return True

    def __repr__(self) -> str:
        order = self._order
        shuffled = f", shuffle={order.shuffle}" if order.shuffle else ""
        steps = "" if self.steps_per_epoch is None else f", {self.steps_per_epoch} steps"
        ranks = f", rank {order.rank} of {order.world_size}" if order.world_size > 1 else ""
        return f"Planner({self.source.name}, epoch {self.epoch}{steps}{shuffled}{ranks})"

    def __iter__(self) -> Iterator[BatchPlan]:
        """Yield the plans of one epoch. A source without one usable image gives a single plan with `BatchPlan.fatal` set."""
        resume, self._resume = self._resume, None
        self._states.clear()
        self._run = (self.epoch, self.seen, resume)
        if self._together:
            yield from self._share_of_all(resume)
        else:
            yield from self._plans(replace(self._order, epoch=self.epoch), self.recipe, resume)

    def state_dict(self, step: int | None = None, *, finished: bool = False) -> dict[str, Any]:
        """Return the position in the epoch of the last iteration after its first `step` batches.

        The state is JSON-safe: a few kB, no pixels, no paths.

        Args:
            step: batches of that epoch that are done, including those before a resume. It must be among the last `states_kept`
                plans. None for the batches before the iteration began.
            finished: True if that epoch is over. The next iteration then starts a new epoch.
        """
        epoch, seen, at = self._run
        if finished:
            seen, at = self.seen, None
        elif step is not None:
            if step not in self._states:
                raise ConfigError(f"step {step} is not one of the last {self.states_kept} steps planned: {list(self._states)}")
            at = self._states[step]
        return {**self._belongs_to(), **with_checksum({"epoch": epoch, "seen": seen, "at": at})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue, in the next iteration, after the last plan of the state.

        The source is read again from a little before: from the shard, or the block of shuffled headers, with the oldest image
        that still waits. A source without positions (an iterable) is read from its beginning, with a warning.

        Raises:
            ConfigError: an argument, a field of the recipe or a property of the source differs, and the error names it; or the
                state is damaged.
        """
        require_same(state, self._belongs_to())
        require_whole(state, PLACE)
        self.set_epoch(state["epoch"])
        self.seen, self._resume = state["seen"], state["at"]
        self._run = (self.epoch, self.seen, self._resume)

    def _belongs_to(self) -> dict[str, Any]:
        order = self._order
        return {
            "state": STATE,
            "source": self.source.name,
            "samples or shards": getattr(self.source, "fingerprint", None),
            **recipe_fields(self.recipe),
            "shuffle": order.shuffle,
            "steps_per_epoch": self.steps_per_epoch,
            "tail": self._tail,
            "rank": order.rank,
            "world_size": order.world_size,
            "text": self._text,
            "text_len": self.text_len,
        }

    @property
    def rank(self) -> int:
        """The rank whose share of the source is planned."""
        return self._order.rank

    @property
    def world_size(self) -> int:
        """The number of ranks that share the source."""
        return self._order.world_size

    @property
    def reads_pixels(self) -> bool:
        """True if items are decoded to find their sizes. Workers then plan too."""
        return isinstance(self.source, MapStyleSource) and self.source.holds

    def stream(
        self, number: int, num_streams: int, resume: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[BatchPlan, dict[str, Any]]]:
        """Yield the plans of one of several streams that share this rank's samples and steps, each with a state.

        All streams together have one plan for every batch.

        Args:
            number: number of the stream, from 0.
            num_streams: number of streams.
            resume: the state that came with the last plan that is done, None to begin the epoch.
        """
        if self.steps_per_epoch is None or number < self.steps_per_epoch:
            share = replace(self._order.share(number, num_streams), epoch=self.epoch)
            for plan in self._plans(share, self.recipe, resume, stream=number, num_streams=num_streams):
                yield plan, self._states[plan.step + 1]

    def require_samples_for(self, num_streams: int) -> None:
        """Raise `ConfigError` if a stream would have no sample, so that `steps_per_epoch` could not be reached."""
        num_parts, ranks = getattr(self.source, "num_parts", 0), self._order.world_size
        if self.steps_per_epoch is not None and num_parts < num_streams * ranks:
            raise ConfigError(
                f"{self.source.name} cannot feed {num_streams} workers on each of {ranks} ranks, which plan for themselves "
                f"where sizes are not known: use fewer workers, or pass sizes= or size_of="
            )

    def _new_planner(self, kind: TargetKind, recipe: Recipe | None = None, **stream: int) -> OnlinePlanner:
        return OnlinePlanner(
            recipe or self.recipe,
            epoch=self.epoch,
            seen=self.seen,
            target_kind=kind,
            name=self.source.name,
            tail=self._tail,
            max_steps=self.steps_per_epoch,
            lookahead_bytes=LOOKAHEAD_BYTES,
            fuse=self.fuse,
            text_len=self.text_len,
            **stream,
        )

    def _plans(
        self, order: Order, recipe: Recipe, resume: Mapping[str, Any] | None = None, **stream: int
    ) -> Iterator[BatchPlan]:
        tell_epoch(self.source, self.epoch)  # the only call: an epoch comes from the constructor, `set_epoch` or a state
        begun, start = self.seen, Mark(*resume["mark"]) if resume else Mark()
        marks, ordered = Marks(start), OrderedSource(self.source, order, start)
        scanned = ordered.scan() if self._scanner is None else scan_ahead(ordered, self._scanner, self.timeout)
        with closing(scanned):  # an endless scan, or its process, ends with the epoch
            events = marks.without(scanned)
            if resume:
                kind = kind_of(resume)
                planner = self._new_planner(kind, recipe, **stream)
                self.already_reported = already_reported(resume["planner"])
                if self.already_reported and not ordered.has_parts:
                    warnings.warn(
                        f"{self.source.name} has no positions to begin at: it is read again from its beginning, and what was "
                        f"packed is passed over",
                        stacklevel=2,
                    )
                restore(resume, planner, OrderedSource(self.source, order), events)
            else:
                self.already_reported = 0
                kind, probed = probe_targets(events, self.source.reader, repeated=self._order.repeat, fuse=self.fuse)
                planner, events = self._new_planner(kind, recipe, **stream), iter(probed)
            while planner.takes_more and (block := list(islice(events, _BLOCK))):
                for plan in planner.feed(block):
                    self._remember(plan.step + 1, snapshot(planner, marks, kind))
                    yield plan
        for plan in planner.finish():
            self._remember(plan.step + 1, snapshot(planner, marks, kind))
            if planner.finished:  # already here: a loop that knows the number of batches requests no more
                self.seen = begun + planner.seen
            yield plan
        self.seen = begun + planner.seen

    def _remember(self, step: int, state: dict[str, Any]) -> None:
        self._states[step] = state
        while len(self._states) > self.states_kept:
            del self._states[next(iter(self._states))]

    def _share_of_all(self, resume: Mapping[str, Any] | None) -> Iterator[BatchPlan]:
        """Yield this rank's share, every world_size-th row, of plans for all ranks, with ``world_size`` times the rows."""
        rank, world_size = self._order.rank, self._order.world_size
        everything = self.recipe.replace(rows=self.recipe.rows * world_size)
        seen = before = 0 if resume is None else resume["mine"]
        for plan in self._plans(replace(self._order, epoch=self.epoch, rank=0, world_size=1), everything, resume):
            self.already_reported = before
            mine = plan.take_rows(range(rank, plan.num_rows, world_size))
            info = replace(plan.info, planned=sum(not header.part for header in mine.headers))
            if rank:  # the first rank reports losses that no rank gets; the others get the first one, so that all may stop
                first: list[Rejection | ShardFault] = [*info.rejections[:1], *info.shard_errors[:1]]
                info = replace(info, rejections=[], shard_errors=[], dropped={}, altered=0, elsewhere=first)
            seen += info.planned + len(info.rejections)
            self._states[plan.step + 1]["mine"] = seen
            yield replace(mine, info=replace(info, seen=seen))
