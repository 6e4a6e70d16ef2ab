"""Indexes in memory, for tests of what is made of an index: of shards that are scanned, or of sizes alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from patchpack import rng
from patchpack.stream.iterables import InlineReader
from patchpack.stream.sampler import probe_targets
from patchpack.stream.sources import open_source
from patchpack.types import Event, Header, Rejection, ShardFault, Size


class StandIn:
    """An index of headers in a list. `asked` counts the headers that were asked for."""

    def __init__(self, shards: Sequence[Sequence[Event]], reader: Any, name: str = "the index", kind: Any = None) -> None:
        events = [event for shard in shards for event in shard]
        kept = [[event for event in shard if isinstance(event, Header)] for shard in shards]
        self._headers = tuple(header for shard in kept for header in shard)
        self.starts = np.concatenate([[0], np.cumsum([len(shard) for shard in kept])]).astype(np.int64)
        self.sizes = np.array([h.size for h in self._headers], dtype=np.int32).reshape(-1, 2)
        self.key_hash = rng.key_hash(h.key for h in self._headers)
        self.num_shards, self.name, self.reader, self.target_kind = len(shards), name, reader, kind
        self.rejections = [event for event in events if isinstance(event, Rejection)]
        self.faults = [event for event in events if isinstance(event, ShardFault)]
        self.fingerprint = hashlib.sha256(repr(events).encode()).hexdigest()[:16]
        self.asked = 0

    def __len__(self) -> int:
        return len(self._headers)

    def headers(self, lines: Any) -> tuple[Header, ...]:
        self.asked += len(lines)
        return tuple(self._headers[line] for line in np.asarray(lines).tolist())


def of_shards(shards: Any, **options: Any) -> StandIn:
    """What scanning the shards gives."""
    source: Any = open_source(shards, **options)
    parts = [list(source.scan_parts([number])) for number in range(source.num_parts)]
    kind, _ = probe_targets(iter([event for part in parts for event in part]), source.reader)
    return StandIn(parts, source.reader, source.name, kind)


def of_sizes(*shards: Sequence[tuple[int, int] | None], fault: bool = False) -> StandIn:
    """Shards of (height, width), None for a rejection; pixels are not there."""
    parts: list[list[Event]] = []
    for s, sizes in enumerate(shards):
        parts.append([])
        for i, size in enumerate(sizes):
            key = f"{s}.tar/{i}"
            bad = Rejection(f"{s}.tar", key, f"{i}.jpg", "header", "bad")
            parts[-1].append(bad if size is None else Header(key, f"{s}.tar", f"{i}.jpg", Size(*size), (s, i)))
        if fault:
            parts[-1].append(ShardFault(f"{s}.tar", "cut"))
    return StandIn(parts, InlineReader())
