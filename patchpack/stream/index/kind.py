"""The kind of the targets of an index: the kind that the user declares, or the kind of the first readable target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b
from typing import TypeVar

from patchpack.errors import SourceError, TargetError
from patchpack.paint.target_kinds import in_words
from patchpack.paint.targets import infer_kind
from patchpack.stream.index.head import Head
from patchpack.stream.index.source_head import SourceHead
from patchpack.stream.sample.source import Reader
from patchpack.types import Header, TargetKind

HeadT = TypeVar("HeadT", Head, SourceHead)


def with_declared(head: HeadT, kind: TargetKind) -> HeadT:
    """Return the head of an index whose targets have a declared kind. The fingerprint depends on the kind too."""
    words = f"{head.fingerprint} target_kind={in_words(kind)}"
    return replace(head, target_kind=kind, fingerprint=blake2b(words.encode(), digest_size=16).hexdigest())


def first_target_kind(reader: Reader, headers: Iterable[Header]) -> TargetKind:
    """Return the kind of the first readable target, like `patchpack.stream.planning.probe.probe_targets`."""
    for header in headers:
        try:
            return infer_kind(reader.target(header.location))
        except (TargetError, SourceError, OSError):
            continue  # the painter reports it
    return None
