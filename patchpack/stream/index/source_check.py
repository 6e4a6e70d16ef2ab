"""The check that a folder or a dataset has not changed since it was indexed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from patchpack._shown import shown
from patchpack.errors import SampleError, SourceError
from patchpack.stream.index.columns import Columns
from patchpack.stream.index.source_head import SourceHead
from patchpack.stream.index.source_scan import file_status
from patchpack.stream.sample.labels import map_name
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.folders import FolderSource
from patchpack.types import Header, Size

_COMPARED = 16  # samples of a dataset whose sizes are compared, because nothing else says whether it has changed
_AT_A_TIME = 1 << 12


def fields_of(source: Source) -> dict[str, object]:
    """Return what is read of every sample, as JSON-safe values by option."""
    fields = source.read_fields()
    name = map_name(source.reader)
    return fields if name is None else {**fields, "map_target": name}


def other_source(source: Source, head: SourceHead) -> str:
    """Return how a source differs from the one that was indexed, as text. Return "" if there is no difference."""
    fields = fields_of(source)
    for name in sorted({*fields, *head.fields}):
        if fields.get(name) != head.fields.get(name):
            return f"was opened with {name}={shown(fields.get(name))}, but had {name}={shown(head.fields.get(name))}"
    if source.class_names != head.class_names:
        return _other_classes(source.class_names, head.class_names)
    return ""


def _other_classes(now: list[str] | None, then: list[str] | None) -> str:
    for number, (one, other) in enumerate(zip(now or [], then or [], strict=False)):
        if one != other:
            return f"has class {number} named {one!r}, but had {other!r}"
    return f"has {len(now or [])} classes, but had {len(then or [])}"


def changed_files(
    source: FolderSource, head: SourceHead, columns: Columns, headers: Callable[[], Iterable[Header]], refused: set[str]
) -> str:
    """Return how the files of a folder differ from the indexed ones, as text that names the first difference.

    Return "" if there is no difference.

    A file whose time of change differs, but not its size, is read again. If its image has the same height and width, the index
    is right about the file.

    Args:
        source: the folder or the list of files now.
        head: the contents of the index without its columns.
        columns: the columns of the index.
        headers: a function that returns the headers of all samples of the index.
        refused: keys of the files that the index refuses.
    """
    count = source.num_parts or 0
    if source.fingerprint != head.samples or count != head.num_parts:
        known = {*(header.key for header in headers()), *refused}
        keys = [source.part_key(part) for part in range(count)]
        new = next((key for key in keys if key not in known), None)
        gone = min(known.difference(keys), default=None)
        if new is not None:
            return f"has a new file, {new}"
        return "has its files in another order" if gone is None else f"has lost the file {gone}"
    doubtful = []
    for start in range(0, count, _AT_A_TIME):
        parts = slice(start, min(start + _AT_A_TIME, count))
        now = file_status(source, parts.start, parts.stop)
        other = np.flatnonzero(now["file.bytes"] != columns["file.bytes"][parts])
        if len(other):
            return f"has a changed file, {source.part_key(start + int(other[0]))}"
        doubtful += (np.flatnonzero(now["file.time"] != columns["file.time"][parts]) + start).tolist()
    if not doubtful:
        return ""
    then = {header.key: header.size for header in headers()}
    for part, event in zip(doubtful, source.scan_parts(doubtful), strict=True):
        key = source.part_key(part)
        if (event.size if isinstance(event, Header) else None) != then.get(key):
            return f"has a changed file, {key}"
    return ""


def changed_items(source: Source, head: SourceHead, headers: Iterable[Header]) -> str:
    """Return how a dataset differs from the indexed one, as text. Return "" if no difference is found.

    The number of items is compared, and the sizes of the given samples.

    Args:
        source: the dataset now.
        head: the contents of the index without its columns.
        headers: headers of some samples of the index.
    """
    if source.num_parts != head.num_parts:
        return f"has {source.num_parts} items, but had {head.num_parts}"
    if source.fingerprint != head.samples:
        return "has samples with other names or labels"
    for header in headers:
        now = _size_now(source, header)
        if now is not None and now != header.size:
            return f"has other images: item {header.key} had {tuple(header.size)} pixels (height, width), and has {tuple(now)}"
    return ""


def _size_now(source: Source, header: Header) -> Size | None:
    """Return the size of an item. Return None if it cannot be found without reading the whole source."""
    if not source.one_sample_per_part or not header.key.isdecimal() or int(header.key) >= (source.num_parts or 0):
        return None
    try:
        event = next(iter(source.scan_parts([int(header.key)])), None)
    except (SampleError, SourceError):
        return Size(0, 0)
    if not isinstance(event, Header):
        return Size(0, 0)
    return event.size if event.key == header.key else None


def spread(count: int) -> list[int]:
    """Return a few lines of an index of `count` lines, evenly spread."""
    found: list[int] = np.unique(np.linspace(0, count - 1, min(_COMPARED, count)).astype(np.int64)).tolist()
    return found
