"""The position of a stream's planner in an epoch, which is saved in one process and restored in another.

A state holds the numbers of the samples that wait for a row, but no headers and no bytes. A mark is a position in the source at
which reading can begin. To resume, the source is read again from the last mark before the first of these samples.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any
from zlib import crc32

from msgspec import convert, to_builtins

from patchpack.errors import ConfigError
from patchpack.losses import ShardFault
from patchpack.plan.online.planner import OnlinePlanner
from patchpack.plan.recipe import Recipe
from patchpack.stream.planning.mixed_order import MixMark, OrderedMix
from patchpack.stream.planning.order import Mark, OrderedSource
from patchpack.types import Event, Header, TargetKind

STATE = 6  # version of a state


class Marks:
    """The marks of a scan: the positions at which reading can begin. A scan yields marks among its events."""

    def __init__(self, start: Mark | MixMark) -> None:
        self._met = [start]

    def without(self, events: Iterable[Event | Mark | MixMark]) -> Iterator[Event]:
        """Yield the events without the marks."""
        for event in events:
            if isinstance(event, (Mark, MixMark)):
                self._met.append(event)
            else:
                yield event

    def before(self, sample: int) -> Mark | MixMark:
        """Return the last mark at or before the sample with this number. Earlier marks are removed."""
        while len(self._met) > 1 and self._met[1].samples <= sample:
            del self._met[0]
        return self._met[0]


def snapshot(planner: OnlinePlanner, marks: Marks, kind: TargetKind) -> dict[str, Any]:
    """Return the position of a stream after the last plan of its planner, as JSON-safe values.

    Args:
        planner: the planner of the stream.
        marks: marks of the stream's scan.
        kind: kind of the targets.
    """
    state = planner.state_dict()
    first = {position for row in state.get("first_rows", ()) for position, _ in row}  # `restore` can read these again
    waiting = (position for position, *_ in state.get("samples", ()) if position not in first)
    # a mark behind the last sample is met only by a scan that has read ahead, and a state must not depend on that
    mark = marks.before(min(waiting, default=state["account"]["seen"] - 1))
    return {"planner": state, "mark": list(mark), "kind": to_builtins(kind)}


def restore(
    state: Mapping[str, Any], planner: OnlinePlanner, ordered: OrderedSource | OrderedMix, events: Iterator[Event]
) -> None:
    """Bring a new planner to the position of a `snapshot`. The planner then continues with the next event of `events`.

    Args:
        state: the result of `snapshot`.
        planner: a new planner, made with the same arguments as the planner of the snapshot.
        ordered: the source in its order, from its beginning.
        events: events of the source from the state's mark on.

    Raises:
        SourceError: the samples differ from the samples that the state describes.
    """
    saved = state["planner"]
    if saved.get("finished"):
        planner.load_state_dict(saved, {})
        return
    start, seen = state["mark"][0], saved["account"]["seen"]
    wanted = {position for position, *_ in saved["samples"]}
    headers: dict[int, Header] = {}
    early = [position for position in wanted if position < start]
    if early:
        scanned = ordered.scan()
        _collect(Marks(ordered.start).without(scanned), 0, max(early) + 1, wanted, headers)
        scanned.close()
    _collect(events, start, seen, wanted, headers)
    planner.load_state_dict(saved, headers)


def _collect(events: Iterator[Event], at: int, stop: int, wanted: set[int], headers: dict[int, Header]) -> None:
    """Consume the events of samples `at … stop - 1`, and put the headers of samples in `wanted` into `headers`."""
    while at < stop:
        event = next(events, None)
        if event is None:  # the planner reports what is missing
            return
        if isinstance(event, ShardFault):
            continue
        if at in wanted and isinstance(event, Header):
            headers[at] = event
        at += 1


def kind_of(state: Mapping[str, Any]) -> TargetKind:
    """Return the kind of the targets that a state holds. The kind was found at the beginning of the epoch."""
    kind: TargetKind = convert(state["kind"], TargetKind)
    return kind


def recipe_fields(recipe: Recipe) -> dict[str, str]:
    """Return every field of a recipe as text. Addresses in memory are removed from the text."""
    return {f"recipe.{f.name}": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(getattr(recipe, f.name))) for f in fields(recipe)}


def require_same(saved: Any, now: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for the first field in which a state differs from the current arguments."""
    for name, value in now.items():
        require_names(saved, [name])  # in order: the version comes first
        if name == "state" and saved[name] != value:
            raise ConfigError(
                f"the state has version {saved[name]}, this loader reads version {value}: it was saved for another kind of "
                f"source (an index, or not) or by another version of patchpack. Start anew without load_state_dict"
            )
        if saved[name] != value:
            raise ConfigError(
                f"{name} differs: the state was saved with {saved[name]}, this loader has {value}. Make it the same, or start "
                f"anew without load_state_dict"
            )


def with_checksum(place: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a position together with a checksum. The checksum detects a changed digit."""
    return {**place, "checksum": _checksum(place)}


def require_whole(saved: Mapping[str, Any], names: Collection[str]) -> None:
    """Raise `ConfigError` if a field of a state is missing, or the checksum of `with_checksum` does not match."""
    require_names(saved, (*names, "checksum"))
    try:
        whole = saved["checksum"] == _checksum({name: saved[name] for name in names})
    except (TypeError, ValueError, RecursionError):  # not even JSON
        whole = False
    if not whole:
        raise ConfigError(
            f"the state is damaged: its {', '.join(names)} do not match its checksum. Load an older one, or start anew without "
            f"load_state_dict"
        )


def require_names(saved: Any, names: Iterable[str]) -> None:
    """Raise `ConfigError` if a state lacks a field."""
    if not isinstance(saved, Mapping):
        raise ConfigError(f"expected a state that state_dict() gave, got {type(saved).__name__}")
    for name in names:
        if name not in saved:
            raise ConfigError(f"the state says nothing of {name}: it is no state of this kind of loader, or of another version")


def _checksum(place: Mapping[str, Any]) -> int:
    return crc32(json.dumps(place, sort_keys=True).encode("ascii"))
