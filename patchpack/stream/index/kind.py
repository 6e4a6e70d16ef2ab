"""The kind of the targets of an index: the kind that the user declares, or the kind of the first readable target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from patchpack._arrays import IntegerArray
from patchpack.errors import SourceError, TargetError
from patchpack.paint.target_kinds import KindOption, in_words, parse_kind
from patchpack.paint.targets import infer_kind
from patchpack.stream.index.head import Head
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.source import Reader
from patchpack.stream.sources.declared import require_possible
from patchpack.types import Header, TargetKind

_BLOCK = 64  # headers made at a time


def declared_kind(given: KindOption, members: SampleFields) -> TargetKind:
    """Return the kind that the user declares for an index of these members, or None.

    Raises:
        ConfigError: `given` is not a kind, or the labels cannot have it.
    """
    kind = parse_kind(given)
    if kind is not None:
        require_possible(members, kind, "the index")
    return kind


def with_declared(head: Head, kind: TargetKind) -> Head:
    """Return the head of an index whose targets have a declared kind. The fingerprint depends on the kind too."""
    words = f"{head.fingerprint} target_kind={in_words(kind)}"
    return replace(head, target_kind=kind, fingerprint=blake2b(words.encode(), digest_size=16).hexdigest())


def first_kind(headers: Callable[[IntegerArray], tuple[Header, ...]], count: int, reader: Reader) -> TargetKind:
    """Return the kind of the first readable target, as `patchpack.stream.planning.probe.probe_targets` does.

    Args:
        headers: a function that returns the headers of some samples.
        count: number of samples.
        reader: the reader of targets.
    """
    for begin in range(0, count, _BLOCK):
        for header in headers(np.arange(begin, min(begin + _BLOCK, count))):
            try:
                return infer_kind(reader.target(header.location))
            except (TargetError, SourceError, OSError):
                continue  # the painter reports it
    return None
