"""A source as somebody types it: labelled or not, found out by looking."""

from __future__ import annotations

from patchpack.errors import SourceError
from patchpack.stream.source import Source
from patchpack.stream.sources import IMAGE_EXTENSIONS, open_source
from patchpack.types import Header

AUTO = "auto"


def open_typed(path: str | list[str], *, image: str = IMAGE_EXTENSIONS, target: str | None = AUTO) -> tuple[Source, str | None]:
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
        labelled = open_source(path, image=image, target="cls")
    except SourceError:  # a folder without class subfolders
        return unlabelled, None
    for event in labelled.scan():
        if isinstance(event, Header):
            return labelled, "cls"
        if getattr(event, "stage", "") == "target":
            break
    return unlabelled, None
