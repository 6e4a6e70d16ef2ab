"""The planner of a stream, which plans rows while headers are read. It runs in the training process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

from patchpack.errors import ConfigError
from patchpack.losses import Rejection, ShardFault
from patchpack.paint.target_kinds import declared_by
from patchpack.plan._integers import require_int
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.online.saved import already_reported
from patchpack.plan.recipe import Recipe
from patchpack.plan.shuffle import block_of
from patchpack.stream.planning.mixed_order import TokenCount, in_order
from patchpack.stream.planning.mixed_targets import kind_of_mix
from patchpack.stream.planning.order import Order
from patchpack.stream.planning.planner import Planner, PlanOptions
from patchpack.stream.planning.probe import probe_targets, target_kind_of
from patchpack.stream.planning.resume import STATE, Marks, kind_of, recipe_fields, restore, snapshot
from patchpack.stream.planning.scanner import scan_ahead
from patchpack.stream.sample.labels import map_name
from patchpack.stream.sample.text import require_picklable, require_text_len
from patchpack.stream.sources.indexed import IndexSource, is_index
from patchpack.stream.sources.mix import Mix, require_end
from patchpack.stream.workers.watch import keep_random_states
from patchpack.types import BatchPlan, Event, TargetKind

_BLOCK = 64  # headers planned at a time: numpy's cost per call is spread, and the first batch does not wait

PLACE = ("epoch", "seen", "at")  # in a state: the position in an epoch
LOOKAHEAD_BYTES = 1 << 28  # limit for images that travel with their plan and wait in open rows


class StreamPlanner(Planner):
    """The planner of a source that is read in order. See `Planner` for its arguments."""

    position_fields = PLACE

    @classmethod
    def suits(cls, source: Any) -> bool:
        """Return True for every source except an index."""
        return not is_index(source) and not isinstance(source, IndexSource)

    def _prepare(self, options: PlanOptions) -> None:
        if options.balance:
            raise ConfigError("balance=True needs an index: rows of a stream are dealt in arrival order")
        if isinstance(self.source, Mix):
            require_end(self.source, options.steps_per_epoch)
        if options.packer is not None:
            raise ConfigError(f"packer={options.packer!r} is for an index: rows of a stream are packed by Recipe.packer")
        text, scanner = self.source.text, options.scanner
        require_text_len(text, options.text_len)
        if scanner is not None:
            for each in self.source.texts:
                require_picklable(each.tokenize, scanner if isinstance(scanner, str) else scanner.get_start_method())
        if options.world_size > 1 and self.source.is_split:
            raise ConfigError(
                f"{self.source.name} is split by rank already, and would be split again: pass the whole stream, or rank=0 and "
                f"world_size=1"
            )
        require_int("states_kept", options.states_kept, 1, 1 << 30)
        self.states_kept = options.states_kept
        self._max_in_a_row, self._timeout = options.max_in_a_row, options.timeout
        self._resume: Mapping[str, Any] | None = None
        self._start_run()
        self._states: dict[int, dict[str, Any]] = {}
        self._tail, repeat = options.tail, options.steps_per_epoch is not None
        rank, world_size = options.rank, options.world_size
        self._order = Order(self.recipe.seed, self.epoch, block_of(options.shuffle), repeat, rank, world_size)
        self._together = world_size > 1 and options.tail == "pad" and not repeat
        self._scanner = None if self.source.scan_in_process else scanner
        if self._together:
            self.source = self.source.reading_twice()  # every rank reads every header, and paints its own images
        self._kind: tuple[TargetKind, bool] | None = None  # found once, see `target_kind_of`
        self._new_planner(None)  # raises now for a wrong tail or number of steps

    def _start_run(self) -> None:
        # (epoch, seen, state) of the last iteration, or of the next one after a state was loaded
        self._run: tuple[int, int, Mapping[str, Any] | None] = (self.epoch, self.seen, self._resume)

    def _forget_state(self) -> int:
        over = self._resume is not None and self._resume["planner"].get("finished")  # saved after an epoch's last batch
        seen: int = self._resume["planner"]["account"]["seen"] if self._resume is not None and over else 0
        self._resume = None
        return seen

    def __len__(self) -> int:
        """Return ``steps_per_epoch``.

        If ``steps_per_epoch`` is None, raise `TypeError`, because the number of batches is not known in advance.
        """
        if self.steps_per_epoch is None:
            raise TypeError("the number of batches is not known before the end of the source; steps_per_epoch fixes it")
        return self.steps_per_epoch

    @property
    def _shuffle(self) -> int:
        return self._order.shuffle

    def __iter__(self) -> Iterator[BatchPlan]:
        """Yield the plans of one epoch. A source without any usable image gives a single plan with `BatchPlan.fatal` set."""
        resume, self._resume = self._resume, None
        self._states.clear()
        self._run = (self.epoch, self.seen, resume)
        if self._together:
            yield from self._share_of_all(resume)
        else:
            yield from self._plans(replace(self._order, epoch=self.epoch), self.recipe, resume)

    def _position(self, step: int | None, finished: bool) -> dict[str, Any]:
        epoch, seen, at = self._run
        if finished:
            seen, at = self.seen, None
        elif step is not None:
            if step not in self._states:
                raise ConfigError(f"step {step} is not one of the last {self.states_kept} steps planned: {list(self._states)}")
            at = self._states[step]
        return {"epoch": epoch, "seen": seen, "at": at}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.set_epoch(state["epoch"])
        self.seen, self._resume = state["seen"], state["at"]
        self._start_run()

    def belongs_to(self) -> dict[str, Any]:
        """Return the fields of a state that identify the run."""
        order = self._order
        return {
            "state": STATE,
            "source": self.source.name,
            "samples or shards": self.source.fingerprint,
            **recipe_fields(self.recipe),
            **self.source.read_fields(),
            "map_target": map_name(self.source.reader),
            "target_kind": declared_by(self.source.target_kind),
            "shuffle": order.shuffle,
            "steps_per_epoch": self.steps_per_epoch,
            "tail": self._tail,
            "rank": order.rank,
            "world_size": order.world_size,
            "text": None if self.source.text is None else self.source.text.name,
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

    def stream(
        self, number: int, num_streams: int, resume: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[BatchPlan, dict[str, Any]]]:
        """Yield the plans of one of several streams that share this rank's samples and steps. Each plan comes with a state.

        All streams together yield one plan for every batch.

        Args:
            number: number of the stream, from 0.
            num_streams: number of streams.
            resume: the state that came with the last plan whose batch is done. Default None: the stream starts at the beginning
                of the epoch.
        """
        if self.steps_per_epoch is None or number < self.steps_per_epoch:
            share = replace(self._order.share(number, num_streams), epoch=self.epoch)
            for plan in self._plans(share, self.recipe, resume, stream=number, num_streams=num_streams):
                yield plan, self._states[plan.step + 1]

    def require_samples_for(self, num_streams: int) -> None:
        """Raise `ConfigError` if a stream would have no sample, so that `steps_per_epoch` could not be reached."""
        num_parts, ranks = self.source.num_parts or 0, self._order.world_size
        if self.steps_per_epoch is not None and num_parts < num_streams * ranks:
            raise ConfigError(
                f"{self.source.name} cannot feed {num_streams} workers on each of {ranks} ranks, which plan for themselves "
                f"where sizes are not known: use fewer workers, or pass sizes= or size_of="
            )

    def _source_kind(self) -> tuple[TargetKind, bool]:
        """Return the answer of `target_kind_of` for a source with parts. The search is made once."""
        if self._kind is None:
            with keep_random_states():  # a dataset may draw random numbers for its first item
                self._kind = target_kind_of(self.source, self._max_in_a_row)
        return self._kind

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
            max_in_a_row=self._max_in_a_row,
            text_len=self.text_len,
            sources=list(self.source.sources) if isinstance(self.source, Mix) else (),
            **stream,
        )

    def _plans(
        self, order: Order, recipe: Recipe, resume: Mapping[str, Any] | None = None, **stream: int
    ) -> Iterator[BatchPlan]:
        self.source.set_epoch(self.epoch)  # the only call: an epoch comes from the constructor, `set_epoch` or a state
        begun, tokens = self.seen, TokenCount(recipe, self.epoch, self.seen, self.text_len)
        ordered = in_order(self.source, order, tokens, resume["mark"] if resume else None)
        marks = Marks(ordered.start)
        scanned = ordered.scan() if self._scanner is None else scan_ahead(ordered, self._scanner, self._timeout)
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
                restore(resume, planner, in_order(self.source, order, tokens), events)
            else:
                self.already_reported = 0
                kind, events = self._target_kind(events, order)
                planner = self._new_planner(kind, recipe, **stream)
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

    def _target_kind(self, events: Iterator[Event], order: Order) -> tuple[TargetKind, Iterator[Event]]:
        """Return the kind of the targets, and the events. If the source has parts, the kind depends on the source alone."""
        source, declared = self.source, self.source.target_kind
        if isinstance(source, Mix) and declared is None:
            return kind_of_mix(source, events, self._max_in_a_row)
        if declared is None and source.num_parts is not None and not order.in_source_order:
            kind, found = self._source_kind()
            if found:
                return kind, events
        search: dict[str, Any] = {"repeated": self._order.repeat, "max_in_a_row": self._max_in_a_row}
        kind, probed = probe_targets(events, source.reader, declared, **search)
        return kind, iter(probed)

    def _remember(self, step: int, state: dict[str, Any]) -> None:
        self._states[step] = state
        while len(self._states) > self.states_kept:
            del self._states[next(iter(self._states))]

    def _share_of_all(self, resume: Mapping[str, Any] | None) -> Iterator[BatchPlan]:
        """Plan for all ranks together, with ``world_size`` times as many rows per batch.

        Yield plans with the rows of this rank only: every world_size-th row.
        """
        rank, world_size = self._order.rank, self._order.world_size
        everything = self.recipe.replace(rows_per_batch=self.recipe.rows_per_batch * world_size)
        seen = before = 0 if resume is None else resume["mine"]
        for plan in self._plans(replace(self._order, epoch=self.epoch, rank=0, world_size=1), everything, resume):
            self.already_reported = before
            mine = plan.take_rows(range(rank, plan.num_rows, world_size))
            none = {name: {"waiting": 0} for name in plan.info.by_source}  # every sample of the rank counts with its batch
            info = replace(plan.info, planned=sum(not header.part for header in mine.headers), by_source=none)
            if rank:  # the first rank reports losses that no rank gets; the others get the first one, so that all may stop
                first: list[Rejection | ShardFault] = [*info.rejections[:1], *info.shard_errors[:1]]
                info = replace(info, rejections=[], shard_errors=[], dropped={}, shortened=0, elsewhere=first)
            seen += info.planned + len(info.rejections)
            self._states[plan.step + 1]["mine"] = seen
            yield replace(mine, info=replace(info, seen=seen))
