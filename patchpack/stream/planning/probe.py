"""Refusals before planning begins, and the kind of the targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from patchpack.errors import ConfigError, SourceError, TargetError
from patchpack.image.formats import reading_of, require_readable
from patchpack.paint.targets import infer_kind
from patchpack.plan.recipe import Recipe
from patchpack.report import Rejection
from patchpack.stream.sample.source import Reader
from patchpack.types import Event, Header, TargetKind


def require_recipe(recipe: Any) -> Recipe:
    """The recipe, or a `ConfigError` that says how to make one, or what it reads that this process cannot."""
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"expected a Recipe, such as patchpack.recipes.navit(), got {recipe!r}")
    require_readable(reading_of(recipe))
    return recipe


def probe_targets(
    events: Iterator[Event], reader: Reader, *, repeated: bool = False, fuse: int | None = None
) -> tuple[TargetKind, Iterable[Event]]:
    """Kind of the first readable target, and the same events again.

    repeated: the events go on for ever, pass after pass; the first pass is looked at.
    fuse: rejections in a row after which no readable one is waited for.
    """
    met: list[Event] = []
    in_a_row = 0
    for event in events:
        met.append(event)
        if not isinstance(event, Header):
            in_a_row += isinstance(event, Rejection)
            if fuse is not None and in_a_row >= fuse:  # the planner will stop here, and a stream without an end must
                return None, chain(met, events)
            continue
        in_a_row = 0
        if repeated and event.repeat:
            return None, chain(met, events)
        try:
            return infer_kind(reader.target(event.location)), chain(met, events)
        except (TargetError, SourceError, OSError):
            continue  # the painter will name it
    return None, met
