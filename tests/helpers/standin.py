"""An index of sizes alone, in memory, for tests of planning without shards and pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from patchpack import rng
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.sources.inline import InlineReader
from patchpack.types import Header, Size


class StandIn:
    """Shards of headers in lists; see `patchpack.stream.sources.indexed.SampleIndex`."""

    name, target_kind, reader = "the index", None, InlineReader()

    def __init__(self, shards: Sequence[Sequence[Header]], rejections: list[Rejection]) -> None:
        self._headers = tuple(header for shard in shards for header in shard)
        self.starts = np.concatenate([[0], np.cumsum([len(shard) for shard in shards])]).astype(np.int64)
        self.sizes = np.array([h.size for h in self._headers], dtype=np.int32).reshape(-1, 2)
        self.key_hash = rng.key_hash(h.key for h in self._headers)
        self.num_shards, self.rejections = len(shards), rejections
        self.faults: list[ShardFault] = []
        self.fingerprint = hashlib.sha256(repr((shards, rejections)).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._headers)

    def headers(self, lines: Any) -> tuple[Header, ...]:
        """The header of each line."""
        return tuple(self._headers[line] for line in np.asarray(lines).tolist())


def of_sizes(*shards: Sequence[tuple[int, int] | None]) -> StandIn:
    """Shards of (height, width), None for a rejection; pixels are not there."""
    kept: list[list[Header]] = []
    rejections = []
    for s, sizes in enumerate(shards):
        kept.append([])
        for i, size in enumerate(sizes):
            key = f"{s}.tar/{i}"
            if size is None:
                rejections.append(Rejection(f"{s}.tar", key, f"{i}.jpg", "header", "bad"))
            else:
                kept[-1].append(Header(key, f"{s}.tar", f"{i}.jpg", Size(*size), (s, i)))
    return StandIn(kept, rejections)
