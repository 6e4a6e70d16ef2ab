"""The head of an index file, and the current locations of its shards."""

from __future__ import annotations

from patchpack.errors import StaleIndexError
from patchpack.stream.index import columns as files
from patchpack.stream.index.build import Paths, find_shards
from patchpack.stream.index.columns import Columns
from patchpack.stream.index.head import Head, Shard


def parse(path: str, *, verify: bool = False) -> tuple[Head, Columns]:
    """Return the head and the columns of an index file. Raises `IndexFileError` for a damaged file."""
    head, columns = files.read(path, verify=verify)
    try:
        return Head.from_json(head), columns
    except files.UNREADABLE as error:
        raise files.damaged(path, f"its head: {type(error).__name__}: {error}") from None


def with_locations(path: str, head: Head, shards: Paths) -> tuple[Shard, ...]:
    """Return the shards of a head with their current locations.

    Args:
        path: path of the index, for messages.
        head: head of the index.
        shards: paths or patterns of the current locations of the shards.

    Raises:
        StaleIndexError: a shard of the index is not among `shards`, or `shards` has one that the index lacks.
    """
    urls, labels = find_shards(shards, head.members)
    now = dict(zip(labels, urls, strict=True))
    missing = [s.label for s in head.shards if s.label not in now]
    if missing:
        raise StaleIndexError(
            f"{path}: {len(missing)} of its {len(head.shards)} shards were not given, the first is {missing[0]}"
        )
    if len(now) > len(head.shards):
        extra = next(label for label in labels if label not in {s.label for s in head.shards})
        raise StaleIndexError(f"{path} has {len(head.shards)} shards, {len(now)} were given: {extra} is not one of its shards")
    return tuple(s._replace(url=now[s.label]) for s in head.shards)
