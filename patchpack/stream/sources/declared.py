"""The kind of targets that the user declares with ``target_kind``, set on a source."""

from __future__ import annotations

from copy import copy

from patchpack.errors import ConfigError
from patchpack.paint.target_kinds import in_words
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.labels import map_name
from patchpack.stream.sample.names import nearest
from patchpack.stream.sample.source import FieldSource, Source
from patchpack.stream.sources.indexed import IndexSource
from patchpack.types import TargetKind


def with_kind(source: Source, kind: TargetKind) -> Source:
    """Return a copy of the source whose targets have the given kind.

    Raises:
        ConfigError: the source was opened with another kind, reads no labels, or its labels cannot have the kind.
    """
    if source.target_kind not in (None, kind):
        raise ConfigError(
            f"target_kind={in_words(kind)} cannot be used, because {source.name} was opened with "
            f"target_kind={in_words(source.target_kind)}: pass one of them"
        )
    if map_name(source.reader) is None:  # the user's function may return anything
        members = source.members if isinstance(source, FieldSource) else None
        if isinstance(source, IndexSource):
            members = getattr(source.index, "members", None)
        if members is not None:
            require_possible(members, kind, source.name)
    other = copy(source)  # the user's source stays unchanged
    other.target_kind = kind
    return other


def require_possible(members: SampleFields, kind: TargetKind, name: str) -> None:
    """Raise `ConfigError` if the labels that are read can never have a declared kind.

    Args:
        members: names of the labels.
        kind: the declared kind.
        name: name of the source in the error.
    """
    given = f"target_kind={in_words(kind)}"
    if members.target is None:
        raise ConfigError(f"{given} is for labels, and {name} reads none: leave it out")
    if isinstance(members.target, str) or (kind is not None and not isinstance(kind, dict) and kind.dtype == "object"):
        return
    if not isinstance(kind, dict):
        each = in_words({label: kind for label in members.target if kind is not None})
        raise ConfigError(f"{given} is for one label, and target={members.target!r} reads a dict: pass target_kind={each}")
    for label in kind.keys() ^ set(members.target):
        what = f"names no kind of {label!r}" if label in members.target else f"names {label!r}"
        hint = nearest(label, members.target if label in kind else kind)
        raise ConfigError(f"{given} {what}, and target={members.target!r}: name every label once{hint}")
