"""In which order a source is read: shards and headers shuffled, passes repeated, ranks dealt their share.

All of it is a function of (seed, epoch, pass, rank, world size): no generator, no state but a position.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np

from patchpack import rng
from patchpack.errors import ConfigError
from patchpack.stream.source import PartedSource, Source
from patchpack.types import Event, Header, ShardFault


@dataclass(frozen=True)
class Order:
    """How one rank reads one epoch.

    Attributes:
        seed, epoch: of the shuffling.
        shuffle: 0 keeps the source's order; else shards are permuted, and headers inside blocks of this many; a source whose
            parts are single samples is permuted as a whole.
        repeat: begin again when the source ends, for ever; each pass is shuffled and drawn anew.
        rank, world_size: which share. Shards are dealt whole if there is one for every rank; else samples are dealt by
            their position.
    """

    seed: int = 0
    epoch: int = 0
    shuffle: int = 0
    repeat: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"need 0 <= rank < world_size, got rank={self.rank}, world_size={self.world_size}")
        if isinstance(self.shuffle, bool) or not 0 <= self.shuffle <= rng.MAX_DRAWS:
            raise ConfigError(
                f"shuffle is the number of headers permuted at a time, 0 … {rng.MAX_DRAWS} (0 for none), got {self.shuffle!r}"
            )

    def share(self, number: int, count: int) -> Order:
        """The part of this share that falls to one of `count`, dealt in turns."""
        return replace(self, rank=self.rank + number * self.world_size, world_size=self.world_size * count)


class OrderedSource:
    """A source read in an order; what a scanner process runs."""

    def __init__(self, source: Source, order: Order) -> None:
        self._source, self._order = source, order
        self.name = source.name

    def scan(self) -> Generator[Event, None, None]:
        """Headers, rejections and faults in this order; a header of a later pass says so in `Header.repeat`."""
        for number in count() if self._order.repeat else range(1):
            empty = True
            for event in self._blocks(number):
                empty = empty and not isinstance(event, Header)
                yield event._replace(repeat=number) if isinstance(event, Header) and number else event
            if empty:  # another pass would find no more
                return

    def _blocks(self, number: int) -> Iterator[Event]:
        events, size = self._share(number), self._order.shuffle
        if not size or getattr(self._source, "one_each", False):
            yield from events
            return
        position = 0
        while block := list(islice(events, size)):
            yield from (block[i] for i in self._permutation(rng.Stage.HEADERS, number, position, len(block)))
            position += len(block)

    def _share(self, number: int) -> Iterator[Event]:
        order, source = self._order, self._source
        if not isinstance(source, PartedSource):
            return self._by_position(source.scan())
        parts = np.arange(source.num_parts)
        if order.shuffle:
            parts = parts[self._permutation(rng.Stage.SHARDS, number, 0, len(parts))]
        if len(parts) >= order.world_size:
            return source.scan_parts(parts[order.rank :: order.world_size].tolist())
        return self._by_position(source.scan_parts(parts.tolist()))

    def _by_position(self, events: Iterator[Event]) -> Iterator[Event]:
        position = 0
        for event in events:
            if isinstance(event, ShardFault):  # every rank meets it, the first one reports it
                if self._order.rank == 0:
                    yield event
                continue
            if position % self._order.world_size == self._order.rank:
                yield event
            position += 1

    def _permutation(self, stage: rng.Stage, number: int, start: int, n: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Of the positions ``start … start + n - 1`` of pass `number`, each with a draw of its own."""
        where = np.arange(start, start + n, dtype=np.uint64) | np.uint64(number << 40)
        u = rng.uniforms(self._order.seed, self._order.epoch, where, stage, 1)[:, 0]
        return np.argsort(u, kind="stable")
