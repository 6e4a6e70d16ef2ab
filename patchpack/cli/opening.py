"""The opening of a source that a user types on the command line.

If the user names no label, the first sample decides whether there are labels.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from patchpack.cli.arguments import AUTO
from patchpack.errors import ConfigError, SourceError
from patchpack.stream.index.build import find_shards
from patchpack.stream.index.scan import ShardTask, scan_events
from patchpack.stream.sample.names import IMAGE, LABEL
from patchpack.stream.sample.parsing import parse_members
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.opening import open_source
from patchpack.stream.sources.shards import ShardSource
from patchpack.types import Event, Header


def open_typed(path: str | list[str], *, image: str = IMAGE, target: str | None = AUTO) -> tuple[Source, str | None]:
    """Return the source that a path names, and the extension of its labels. The extension is None if there are no labels.

    Args:
        path: shards, a folder, a table of paths, a glob or one file, or a list of several shards.
        image: extensions of the image, separated by ``;``. Default jpg, jpeg, png, webp.
        target: extension of the label. None reads no labels. Default `AUTO`: ``cls`` if the first sample has such a label, else
            None.

    Raises:
        SourceError: the path does not exist or cannot be read.
    """
    if target != AUTO:
        return open_source(path, image=image, target=target), target
    unlabelled = open_source(path, image=image, target=None)
    try:
        labelled = open_source(path, image=image, target=LABEL)
    except (SourceError, ConfigError):  # a folder without class subfolders, or a table without a column of labels
        return unlabelled, None
    found = _label_of(labelled.scan())
    return (labelled if found else unlabelled), found


def typed_target(shards: list[str], *, image: str) -> str | None:
    """Return the label of shards, of a folder or of files for an index. Return None if there are no labels.

    The shards may have any URL that an index can read. For other sources, `open_typed` finds the labels.
    """
    if not isinstance(open_source(shards, image=image, target=None), ShardSource):
        return LABEL if open_typed(shards, image=image)[1] else None
    members = parse_members(image, LABEL)
    tasks = (ShardTask(url, label, members) for url, label in zip(*find_shards(shards, members), strict=True))
    return _label_of(event for task in tasks for event in scan_events(task))


def _label_of(events: Iterable[Event]) -> str | None:
    """Return ``cls`` if the first sample has such a label, else None."""
    for event in events:
        if isinstance(event, Header):
            return "cls"
        if getattr(event, "stage", "") == "target":
            break
    return None


def source_arguments(path: str, image: str, target: str | None) -> str:
    """Return a source and its options as part of a shell command.

    Args:
        path: the source.
        image: value of ``--image``. The option is left out for the default.
        target: value of ``--target``. The option is left out for `AUTO`. None gives ``--no-target``.
    """
    flags = "" if image == IMAGE else f" --image {shlex.quote(image)}"
    flags += "" if target == AUTO else " --no-target" if target is None else f" --target {shlex.quote(target)}"
    return shlex.quote(path) + flags
