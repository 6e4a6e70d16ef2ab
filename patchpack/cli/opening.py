"""A source as somebody types it: labelled or not, found out by looking."""

from __future__ import annotations

from collections.abc import Iterable

from patchpack.errors import SourceError
from patchpack.stream.index.build import find_shards
from patchpack.stream.index.scan import ShardTask, scan_events
from patchpack.stream.sample.names import IMAGE, LABEL
from patchpack.stream.sample.parsing import parse_members
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.opening import open_source
from patchpack.types import Event, Header

AUTO = "auto"


def open_typed(path: str | list[str], *, image: str = IMAGE, target: str | None = AUTO) -> tuple[Source, str | None]:
    """The source behind a path, and the label extension in use.

    Args:
        path: shards, a folder, a glob or one file; several shards as a list.
        image: extensions of the image.
        target: extension of the label, None for none, or `AUTO`: ``cls`` if the first sample has one.

    Raises:
        SourceError: nothing there that can be read.
    """
    if target != AUTO:
        return open_source(path, image=image, target=target), target
    unlabelled = open_source(path, image=image, target=None)
    try:
        labelled = open_source(path, image=image, target=LABEL)
    except SourceError:  # a folder without class subfolders
        return unlabelled, None
    found = _label_of(labelled.scan())
    return (labelled if found else unlabelled), found


def typed_target(shards: list[str], *, image: str) -> str | None:
    """As `open_typed` finds it, for shards that are to be indexed: wherever these are, as the index reads them."""
    members = parse_members(image, LABEL)
    tasks = (ShardTask(url, label, members) for url, label in zip(*find_shards(shards, members), strict=True))
    return _label_of(event for task in tasks for event in scan_events(task))


def _label_of(events: Iterable[Event]) -> str | None:
    """``cls`` if the first sample has one."""
    for event in events:
        if isinstance(event, Header):
            return "cls"
        if getattr(event, "stage", "") == "target":
            break
    return None
