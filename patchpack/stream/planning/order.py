"""The order in which a rank reads a source: shuffled or not, once or repeatedly, and all samples or a share of them.

The order is a function of (seed, epoch, pass, rank, world size). No random generator is kept. The only state is a position.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import numpy as np

from patchpack import rng
from patchpack.errors import ConfigError
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.sample.source import Source
from patchpack.types import Event, Header

_SINGLES = 256  # number of parts between two marks, if each part is one sample


def require_place(rank: object, world_size: object) -> None:
    """Raise `ConfigError` unless `rank` and `world_size` are integers and ``0 <= rank < world_size``."""
    for name, value in (("rank", rank), ("world_size", world_size)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ConfigError(f"{name} must be an integer, got {value!r}")
    if not 0 <= rank < world_size:  # type: ignore[operator]
        raise ConfigError(f"need 0 <= rank < world_size, got rank={rank}, world_size={world_size}")


@dataclass(frozen=True)
class Order:
    """The order in which one rank reads one epoch.

    Attributes:
        seed: seed that the shuffling depends on.
        epoch: number of the epoch that the shuffling depends on.
        shuffle: 0 keeps the source's order. A number n permutes the parts of the source (such as shards), and headers inside
            blocks of n. A source whose parts are single samples is permuted as a whole.
        repeat: True reads the source again and again without end. Each pass has a new shuffle and new random draws.
        rank: number of this rank, from 0. Each rank gets whole parts of the source if there is one for every rank. Otherwise
            each rank gets every world_size-th sample.
        world_size: number of ranks that share the source.
    """

    seed: int = 0
    epoch: int = 0
    shuffle: int = 0
    repeat: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        require_place(self.rank, self.world_size)
        if isinstance(self.shuffle, bool) or not 0 <= self.shuffle <= rng.MAX_DRAWS:
            raise ConfigError(
                f"shuffle is the number of headers permuted at a time, 0 … {rng.MAX_DRAWS} (0 for none), got {self.shuffle!r}"
            )

    @property
    def in_source_order(self) -> bool:
        """True if this rank reads every sample, in the order of the source."""
        return not self.shuffle and self.world_size == 1

    def share(self, number: int, count: int) -> Order:
        """Return the order for one of `count` readers that divide this rank's samples.

        Samples are dealt to the readers in turns.
        """
        return replace(self, rank=self.rank + number * self.world_size, world_size=self.world_size * count)


class Mark(NamedTuple):
    """A position in an ordered source at which reading can begin. An event is a header, a rejection or a fault.

    Attributes:
        samples: number of headers and rejections before the position, over all passes.
        repeat: number of the pass, from 0.
        part: number of the part to read from, counted in the order of this rank's parts.
        position: number of samples in the pass, before that part. If ranks share parts, the samples of all ranks are counted.
        events: number of events of this rank in the pass, before that part.
        block: number of events of this rank in the pass, before the shuffled block that begins at the position. The number is
            at least `events`.
    """

    samples: int = 0
    repeat: int = 0
    part: int = 0
    position: int = 0
    events: int = 0
    block: int = 0


_BEGINNING = Mark()


class OrderedSource:
    """A source that is read in a given order. A separate process may read it.

    Args:
        source: the source to read.
        order: the order, with the share of this rank.
        start: position at which to begin. The scan yields the events that a complete scan yields after this position.
    """

    def __init__(self, source: Source, order: Order, start: Mark = _BEGINNING) -> None:
        self._source, self._order, self._start = source, order, start
        self.name = source.name

    @property
    def start(self) -> Mark:
        """The position at which reading begins."""
        return self._start

    @property
    def has_parts(self) -> bool:
        """True if the source has parts, so that reading can begin at each of them."""
        return self._source.num_parts is not None

    @property
    def share(self) -> str:
        """The share of several ranks in words, for messages. An empty text if there is one rank."""
        return "" if self._order.world_size == 1 else f" by rank {self._order.rank} of {self._order.world_size}"

    def scan(self) -> Generator[Event | Mark, None, None]:
        """Yield headers, rejections and faults in the order, and marks between them.

        `Header.repeat` is the number of the pass.
        """
        first = self._start
        samples = first.samples
        for number in count(first.repeat) if self._order.repeat else range(first.repeat, 1):
            begins_inside = number == first.repeat and first.block > 0
            empty = not begins_inside
            for event in self.scan_pass(first if number == first.repeat else Mark(samples, number)):
                samples += isinstance(event, (Header, Rejection))
                empty = empty and not isinstance(event, Header)
                yield event
            if empty:  # another pass would find no header either
                return

    def scan_pass(self, start: Mark) -> Iterator[Event | Mark]:
        """Yield the rest of one pass from a position on: headers, rejections, faults, and marks between them."""
        samples, number = start.samples, start.repeat
        for event in self._blocks(number, start):
            if isinstance(event, Mark):
                yield event._replace(samples=samples)
                continue
            samples += not isinstance(event, ShardFault)
            yield event.in_pass(number) if isinstance(event, Header) and number else event

    def _blocks(self, number: int, start: Mark) -> Iterator[Event | Mark]:
        """Yield the events of one pass, and marks. The field `samples` of these marks is not set yet."""
        events, size = self._share(number, start), self._order.shuffle
        if not size or self._source.one_sample_per_part:
            yield from events
            return
        at, mark = start.events, start
        block: list[Event] = []
        for event in events:
            if isinstance(event, Mark):
                mark = event
                continue
            at += 1
            if at <= start.block:
                continue
            if not block:
                yield mark._replace(block=at - 1)
            block.append(event)
            if len(block) == size:
                yield from self._shuffled(block, number, at - size)
                block = []
        yield from self._shuffled(block, number, at - len(block))

    def _shuffled(self, block: list[Event], number: int, position: int) -> Iterator[Event]:
        return (block[i] for i in self._permutation(rng.Stage.HEADERS, number, position, len(block)))

    def _share(self, number: int, start: Mark) -> Iterator[Event | Mark]:
        """Yield this rank's events of one pass, and a mark at the beginning of each part."""
        order, source = self._order, self._source
        mine, step, dealt = [0], 1, True
        if source.num_parts is not None:
            parts = np.arange(source.num_parts)
            if order.shuffle:
                parts = parts[self._permutation(rng.Stage.SHARDS, number, 0, len(parts))]
            dealt = len(parts) < order.world_size
            mine = (parts if dealt else parts[order.rank :: order.world_size]).tolist()
            step = _SINGLES if source.one_sample_per_part else 1
        position, events = start.position, start.events
        for part in range(start.part, len(mine), step):
            yield Mark(0, number, part, position, events, events)
            scanned = source.scan() if source.num_parts is None else source.scan_parts(mine[part : part + step])
            for event in scanned:
                is_sample = not isinstance(event, ShardFault)
                # every rank meets a fault, and the first rank reports it
                if not dealt or (position % order.world_size if is_sample else 0) == order.rank:
                    events += 1
                    yield event
                position += is_sample

    def _permutation(self, stage: rng.Stage, number: int, start: int, n: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Return a permutation of the positions ``start … start + n - 1`` of pass `number`.

        The permutation takes one random draw per position.
        """
        return rng.permutation(self._order.seed, self._order.epoch, stage, (number << 40) + start, n)
