"""Checks before planning begins, and the search for the kind of the targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

from patchpack.errors import ConfigError, SourceError, TargetError
from patchpack.image.formats import reading_of, require_readable
from patchpack.losses import Rejection
from patchpack.paint.targets import infer_kind
from patchpack.plan.recipe import Recipe
from patchpack.stream.sample.source import Reader, Source
from patchpack.types import Event, Header, TargetKind


def require_recipe(recipe: Any) -> Recipe:
    """Return the argument if it is a recipe. Raise `ConfigError` for another object.

    Also raise `ConfigError` if the recipe needs an image reader that is not installed.
    """
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"expected a Recipe, such as patchpack.recipes.navit(), got {recipe!r}")
    require_readable(reading_of(recipe))
    return recipe


class Scanned(Protocol):
    """An object whose events are searched, such as a `Source`."""

    def scan(self) -> Iterator[Event]:
        """Yield events in order."""
        ...


def target_kind_of(source: Source, max_in_a_row: int | None) -> tuple[TargetKind, bool]:
    """Return the kind of the first readable target of a source with parts, and whether the search came to an end.

    See `first_target_of`.
    """
    targets, ended = first_target_of(source, source.reader, max_in_a_row)
    return infer_kind(targets[0]) if targets else None, ended


def first_target_of(source: Scanned, reader: Reader, max_in_a_row: int | None) -> tuple[list[object], bool]:
    """Find the first readable target of a source with parts.

    Return two values: a list of this target, and False if the search was ended early. The list is empty if no target is found.

    The search follows the order of the source, so the kind does not depend on the shuffling, the rank, or the worker. The
    search ends early after `max_in_a_row` samples in a row whose header or target cannot be used.

    Args:
        source: a source with parts.
        reader: the reader of targets.
        max_in_a_row: number of unusable samples in a row after which the search ends early. None for no limit.
    """
    in_a_row = 0
    for event in source.scan():
        if isinstance(event, Header):
            try:
                target = reader.target(event.location)
                infer_kind(target)
                return [target], True
            except (TargetError, SourceError, OSError):
                pass  # the painter reports it
        in_a_row += isinstance(event, (Header, Rejection))
        if max_in_a_row is not None and in_a_row >= max_in_a_row:
            return [], False
    return [], True


def probe_targets(
    events: Iterator[Event],
    reader: Reader,
    declared: TargetKind = None,
    *,
    repeated: bool = False,
    max_in_a_row: int | None = None,
) -> tuple[TargetKind, Iterable[Event]]:
    """Return the kind of the targets, and an iterable of all events, also of the events that the search read.

    The kind is the declared kind, or else the kind of the first readable target.

    Args:
        events: events of a scan.
        reader: the reader of targets.
        declared: the kind that the user declares. Default None: no kind.
        repeated: True if the source is read again and again without end. The search is then limited to the first pass. Default
            False.
        max_in_a_row: number of rejections in a row after which the search ends. Default None: no limit.
    """
    if declared is not None:
        return declared, events
    met: list[Event] = []
    in_a_row = 0
    for event in events:
        met.append(event)
        if not isinstance(event, Header):
            in_a_row += isinstance(event, Rejection)
            if (
                max_in_a_row is not None and in_a_row >= max_in_a_row
            ):  # the planner stops here too, and an endless stream must end
                return None, chain(met, events)
            continue
        in_a_row = 0
        if repeated and event.repeat:
            return None, chain(met, events)
        try:
            return infer_kind(reader.target(event.location)), chain(met, events)
        except (TargetError, SourceError, OSError):
            continue  # the painter reports it
    return None, met
