"""The expected contents of an index, taken from a scan of the same shards: plain lists of headers, without compact arrays or
mmap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import patchpack as pp
from helpers.opening import opened
from patchpack import rng
from patchpack.errors import SourceError, TargetError
from patchpack.losses import ShardFault
from patchpack.stream.index.scan import INLINE_BYTES
from patchpack.stream.planning.probe import probe_targets
from patchpack.stream.sources.shards import ShardSource
from patchpack.stream.tar.reader import Slice
from patchpack.types import Header


def check_against_scan(index: pp.Index, shards: Any, **asked: Any) -> None:
    """Everything an index offers equals the scan."""
    source = opened(shards, **asked)
    assert isinstance(source, ShardSource)
    events = list(source.scan())
    headers = [with_small_labels(event, source) for event in events if isinstance(event, Header)]
    assert len(index) == len(headers)
    assert index.headers(np.arange(len(headers))) == tuple(headers)
    assert index.sizes.dtype == np.int32
    assert index.sizes.tolist() == [list(header.size) for header in headers]
    assert index.key_hash.dtype == np.uint64
    assert index.key_hash.tolist() == rng.key_hash([header.key for header in headers]).tolist()
    of = [header.location.shard for header in headers]
    assert index.starts.tolist() == [sum(s < shard for s in of) for shard in range(source.num_parts + 1)]
    assert index.rejections == [event for event in events if isinstance(event, pp.Rejection)]
    assert index.faults == [event for event in events if isinstance(event, ShardFault)]
    assert index.target_kind == probe_targets(iter(events), source.reader)[0]
    assert (index.name, index.num_shards) == (source.name, source.num_parts)
    assert sum(index.formats.values()) == len(headers)


def with_small_labels(header: Header, source: ShardSource) -> Header:
    """The header with labels in place where they are small."""
    shard, image, labels = header.location
    kept = tuple(place if place[1] > INLINE_BYTES else bytes_at(source.urls[shard], *place) for place in labels)
    return header._replace(location=Slice(shard, image, kept))


def bytes_at(path: str, offset: int, length: int) -> bytes:
    """Part of a file."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def check_readers(index: pp.Index, shards: Any, **asked: Any) -> None:
    """Image and target come out the same, failures too."""
    source = opened(shards, **asked)
    scanned = [event for event in source.scan() if isinstance(event, Header)]
    for ours, theirs in zip(index.headers(np.arange(len(index))), scanned, strict=True):
        assert outcome(index.reader, ours.location) == outcome(source.reader, theirs.location)


def outcome(reader: Any, location: Any) -> Any:
    """What a reader gives, or the message of its refusal."""
    try:
        image, target = reader(location)
    except (TargetError, SourceError) as error:
        return f"{type(error).__name__}: {error}"
    return image, repr(target)
