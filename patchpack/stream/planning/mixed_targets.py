"""The kind of the targets of a mix, and the check that all sources have targets of this kind."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from patchpack.errors import ConfigError, SourceError, TargetError
from patchpack.paint.targets import infer_kind
from patchpack.stream.planning.probe import first_target_of
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.mix import InSource, Mix, named
from patchpack.stream.workers.watch import keep_random_states
from patchpack.types import Event, Header, TargetKind


def kind_of_mix(mix: Mix, events: Iterator[Event], max_in_a_row: int | None) -> tuple[TargetKind, Iterator[Event]]:
    """Return the kind of the targets of a mix, and the same events again.

    The first readable target of each source with parts is found in the order of this source. The first target of any other
    source is found in the events, because such a source may be readable only once.

    Args:
        mix: the mix.
        events: events of a scan of the mix.
        max_in_a_row: number of unusable samples in a row after which the search in one source ends. None for no limit.

    Raises:
        ConfigError: two sources have targets of different kinds. The error names the sources and the kinds.
    """
    targets: dict[str, object] = {}
    declared = {name: source.target_kind for name, source in mix.sources.items() if source.target_kind is not None}
    wanted: dict[int, str] = {}
    for number, (name, source) in enumerate(mix.sources.items()):
        if name in declared:
            continue
        if source.num_parts is None:
            wanted[number] = name
            continue
        with keep_random_states():  # a dataset may draw for its first item
            first, _ = first_target_of(_Named(source, number, name), mix.reader, max_in_a_row)
        targets.update((name, target) for target in first)
    met: list[Event] = []
    unusable = 0
    while wanted and (max_in_a_row is None or unusable < max_in_a_row) and (event := next(events, None)) is not None:
        met.append(event)
        unusable += not isinstance(event, Header)
        if not isinstance(event, Header) or not isinstance(event.location, InSource) or event.location.source not in wanted:
            continue
        if event.repeat:  # its first pass had no target that can be read
            del wanted[event.location.source]
            continue
        try:
            target = mix.reader.target(event.location)
            infer_kind(target)
        except (TargetError, SourceError, OSError):
            unusable += 1  # the painter reports it
            continue
        unusable = 0
        targets[wanted.pop(event.location.source)] = target
    found = {name: infer_kind(target) for name, target in targets.items()}
    return _same_kind({**found, **declared}, targets), chain(met, events)


class _Named:
    """One source of a mix, whose headers have the locations of the mix."""

    def __init__(self, source: Source, number: int, name: str) -> None:
        self._source, self._number, self._name = source, number, name

    def scan(self) -> Iterator[Event]:
        """Yield the events of the source as events of the mix."""
        return (named(event, self._number, self._name) for event in self._source.scan())


def _same_kind(kinds: dict[str, TargetKind], targets: dict[str, object]) -> TargetKind:
    """Return the kind of the targets of all sources. Raises `ConfigError` if two of them differ in kind.

    Args:
        kinds: the kind of each source's targets, declared or found.
        targets: the first target of each source whose kind was found.
    """
    first = next(iter(kinds), None)
    words = {name: _words(kind, targets.get(name, object())) for name, kind in kinds.items()}
    for name in kinds:
        if first is not None and words[name] != words[first]:
            raise ConfigError(
                f"labels of the sources of a mix must be of one kind: those of {first!r} are {words[first]}, those of {name!r} "
                f"are {words[name]}. Open a source with another target=, map_target= or target_kind=, or both with target=None"
            )
    return None if first is None else kinds[next((name for name in kinds if name not in targets), first)]


def _words(kind: TargetKind, target: object) -> str:
    """Return a description of a kind. Two kinds are the same if their descriptions are."""
    if kind is None:
        return "None (no labels)"
    if isinstance(kind, dict):
        return f"a dict of {', '.join(f'{name}: {_words(kind[name], None)}' for name in sorted(kind))}"
    if kind.dtype == "object":
        return f"of type {type(target).__name__}"
    shape = f" of shape {list(kind.shape)}" if kind.shape else ""
    return f"{kind.dtype}{shape}"
