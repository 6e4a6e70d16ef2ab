"""The order in which a rank reads a mix: each source in an order of its own, and the sources by the schedule of the mix.

The only state is a position: a `MixMark` has the position in every source, and the state of the schedule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from patchpack import rng
from patchpack.losses import ShardFault
from patchpack.plan.mixture import schedule_of
from patchpack.plan.online.decisions import decide
from patchpack.plan.online.refusals import refused
from patchpack.plan.recipe import Recipe
from patchpack.stream.planning.order import Mark, Order, OrderedSource
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.mix import Mix, named
from patchpack.types import Event, Header

_BLOCK = 64  # samples whose tokens are counted together: numpy's cost per call is spread
_BLOCK_BYTES = 1 << 24  # most bytes of images in such a block, if headers carry images


class SourceMark(NamedTuple):
    """A position in one source of a mix.

    Attributes:
        mark: a position before it at which reading can begin.
        events: number of events between `mark` and the position.
        found: True if the source gave a header before the position in the pass of `mark`.
        ended: True if a pass of the source has been read to its end.
    """

    mark: Mark = Mark()
    events: int = 0
    found: bool = False
    ended: bool = False


class MixMark(NamedTuple):
    """A position in a mix at which reading can begin.

    Attributes:
        samples: number of headers and rejections before the position, over all sources.
        schedule: state of the schedule.
        sources: the position in each source.
    """

    samples: int
    schedule: list[int]
    sources: list[SourceMark]

    @classmethod
    def of(cls, saved: Sequence[Any]) -> MixMark:
        """Return the mark that was saved as JSON."""
        samples, schedule, sources = saved
        return cls(samples, list(schedule), [SourceMark(Mark(*mark), *rest) for mark, *rest in sources])


@dataclass(frozen=True)
class TokenCount:
    """The number of tokens that a planner plans for each sample.

    It is exact for a recipe with one patch size and without a drop schedule. A schedule is evaluated at the beginning of the
    epoch, and patches have the first patch size.

    Attributes:
        recipe: the policies.
        epoch: epoch of the draws.
        seen: number of samples of earlier epochs, for drop schedules.
        text_len: text tokens per row, None without texts.
    """

    recipe: Recipe
    epoch: int
    seen: int
    text_len: int | None = None

    def __call__(self, headers: Sequence[Header]) -> list[int]:
        """Return the tokens of each sample. A sample that no row takes counts as one token."""
        recipe, patch_size = self.recipe, self.recipe.patch_sizes[0]
        ordinals = np.full(len(headers), self.seen, dtype=np.int64)
        decisions = decide(recipe, list(enumerate(headers)), epoch=self.epoch, ordinals=ordinals, patch_size=patch_size)
        row_len = recipe.row_len(patch_size)
        return [1 if refused(one, recipe, row_len, self.text_len) else one.num_tokens for one in decisions]


class OrderedMix:
    """A mix that is read in a given order. A scanner process may run it.

    Args:
        mix: the mix to read.
        order: the order and the share. ``order.repeat`` is not used: `Mix.stop` says when the mix ends.
        tokens: the number of tokens of a sample, for a mix by tokens.
        start: position at which to begin. The scan yields the same events as a complete scan does after this position. Default
            None: the beginning.
    """

    def __init__(self, mix: Mix, order: Order, tokens: TokenCount, start: MixMark | None = None) -> None:
        self._mix, self._order = mix, order
        self._tokens = tokens if mix.by == "tokens" else None
        self.start = start or MixMark(0, schedule_of(mix.by, mix.weights).state(), [SourceMark()] * len(mix.sources))
        self.name = mix.name

    @property
    def has_parts(self) -> bool:
        """True if every source has parts, so that reading can begin at each of them."""
        return all(source.num_parts is not None for source in self._mix.sources.values())

    def scan(self) -> Generator[Event | MixMark, None, None]:
        """Yield headers, rejections and faults in the order, and marks between them. See `OrderedSource.scan`."""
        mix, samples = self._mix, self.start.samples
        schedule = schedule_of(mix.by, mix.weights)
        schedule.restore(self.start.schedule)
        readings = [
            _Reading(source, number, name, self._order, at, self._tokens)
            for (number, (name, source)), at in zip(enumerate(mix.sources.items()), self.start.sources, strict=True)
        ]
        marked = [reading.mark for reading in readings]
        while True:
            if any(reading.mark != mark for reading, mark in zip(readings, marked, strict=True)):
                marked = [reading.mark for reading in readings]
                yield MixMark(samples, schedule.state(), [reading.position for reading in readings])
            source = schedule.choose()
            reading = readings[source]
            for event in reading.until_header():
                samples += not isinstance(event, ShardFault)
                yield event
            header = reading.header
            if header is not None:
                schedule.took(source, reading.num_tokens)
                samples += 1
                yield header
                reading.ended = reading.ended or (mix.stop == "last" and reading.is_over())
            elif not reading.found:
                yield reading.nothing_usable()
                return
            elif mix.stop == "first":
                return
            else:
                reading.ended = True
                reading.begin_pass()
            if mix.stop == "last" and all(reading.ended for reading in readings):
                return


class _Reading:
    """The reading of one source of a mix, event by event.

    Attributes:
        mark: the last position at which reading can begin.
        found: True if the current pass has given a header.
        ended: True if a pass has been read to its end.
        header: the header that `until_header` stopped at. None at the end of a pass.
        num_tokens: tokens of this header's sample. 1 if tokens are not counted.
    """

    def __init__(self, source: Source, number: int, name: str, order: Order, at: SourceMark, tokens: TokenCount | None) -> None:
        own = (order.seed + int(rng.key_hash([name])[0])) % (1 << 64)  # sources of equal length get different shuffles
        self._ordered = OrderedSource(source, replace(order, seed=own, repeat=False))
        self._number, self._name, self._tokens = number, name, tokens
        self.mark, events, self.found, self.ended = at
        self.header: Header | None = None
        self.num_tokens = 1
        self._begin_at(self.mark)
        for _ in range(events):
            self._next()

    @property
    def position(self) -> SourceMark:
        """The position after the events that were yielded."""
        return SourceMark(self.mark, self._events, self.found, self.ended)

    def until_header(self) -> Iterator[Event]:
        """Yield the rejections and faults before the next header of the pass. Then set `header`."""
        self.header = None
        while (event := self._next()) is not None:
            if isinstance(event, Header):
                self.header, self.found = event, True
                return
            yield event

    def is_over(self) -> bool:
        """Return True if the pass has given a header and has no event left."""
        return self.found and not self._look_ahead()

    def begin_pass(self) -> None:
        """Begin the next pass."""
        self.found = False
        self._begin_at(Mark(repeat=self.mark.repeat + 1))

    def nothing_usable(self) -> ShardFault:
        """Return the fault of a source whose pass has no header."""
        name = f"{self._name}/{self._ordered.name}"
        if self.mark.repeat:
            return ShardFault(
                name,
                "the source has no sample when it is read again, so the mix ends: give a source that can be read again (a "
                "list, files), or end the mix with stop='first'",
            )
        return ShardFault(
            name,
            f"the source has no sample that can be read{self._ordered.share}, so the mix ends, because it cannot keep its "
            f"ratios: repair the source, or leave it out of the mix",
        )

    def _begin_at(self, mark: Mark) -> None:
        self.mark, self._events = mark, 0  # events since the mark
        self._ahead: deque[tuple[Mark | None, Event, int]] = deque()
        self._scan = self._ordered.scan_pass(mark)

    def _look_ahead(self) -> bool:
        """Return True if the pass has one more event. Read a block of events if none is left from the last block."""
        if not self._ahead:
            block = list(self._block())
            headers = [event for _, event in block if isinstance(event, Header)]
            counts = iter(self._tokens(headers) if self._tokens and headers else [1] * len(headers))
            self._ahead.extend((mark, event, next(counts) if isinstance(event, Header) else 0) for mark, event in block)
        return bool(self._ahead)

    def _block(self) -> Iterator[tuple[Mark | None, Event]]:
        """Yield the next events of the pass, each with the mark before it, if there is one."""
        mark, size, num_bytes = None, _BLOCK if self._tokens else 1, 0
        for event in self._scan:
            if isinstance(event, Mark):
                mark = event
                continue
            yield mark, named(event, self._number, self._name)
            mark, size = None, size - 1
            num_bytes += event.num_bytes if isinstance(event, Header) else 0
            if not size or num_bytes > _BLOCK_BYTES:
                return

    def _next(self) -> Event | None:
        if not self._look_ahead():
            return None
        mark, event, self.num_tokens = self._ahead.popleft()
        if mark is not None:
            self.mark, self._events = mark, 0
        self._events += 1
        return event


def in_order(
    source: Source, order: Order, tokens: TokenCount, saved: Sequence[Any] | None = None
) -> OrderedSource | OrderedMix:
    """Return a source, or a mix, that is read in an order.

    Args:
        source: the source to read.
        order: the order and the share.
        tokens: the number of tokens of a sample.
        saved: the mark at which to begin, as JSON. Default None: the beginning.
    """
    if isinstance(source, Mix):
        return OrderedMix(source, order, tokens, None if saved is None else MixMark.of(saved))
    return OrderedSource(source, order) if saved is None else OrderedSource(source, order, Mark(*saved))
