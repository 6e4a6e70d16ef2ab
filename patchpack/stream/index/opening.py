"""The head of an index file, and the current locations of its shards."""

from __future__ import annotations

from collections.abc import Sequence

from patchpack.errors import StaleIndexError
from patchpack.stream.index import columns as files
from patchpack.stream.index.build import Paths, find_shards
from patchpack.stream.index.columns import Columns
from patchpack.stream.index.fingerprint import ask_each, changed
from patchpack.stream.index.head import Head, Shard
from patchpack.stream.index.source_head import KIND, SourceHead


def parse(path: str, *, verify: bool = False) -> tuple[Head | SourceHead, Columns]:
    """Return the head and the columns of an index file. Raises `IndexFileError` for a damaged file."""
    head, columns = files.read(path, verify=verify)
    try:
        return (SourceHead if KIND in head else Head).from_json(head), columns
    except files.UNREADABLE as error:
        raise files.damaged(path, f"its head: {type(error).__name__}: {error}") from None


def require_unchanged(name: str, shards: Sequence[Shard]) -> None:
    """Raise `StaleIndexError` if a shard is missing or has changed since it was indexed.

    Args:
        name: path or name of the index, for the message.
        shards: the shards of the index.
    """
    whys = ask_each(changed, [(s.url, s.fingerprint) for s in shards])
    found = [(s, why) for s, why in zip(shards, whys, strict=True) if why]
    if found:
        shard, why = found[0]
        raise StaleIndexError(
            f"{name}: {len(found)} of {len(shards)} shards have changed since they were indexed, the first is {shard.url}, "
            f"which {why}. Update the index, which reads only these shards: patchpack index SHARDS --update FILE -o FILE. If "
            f"the shards have moved, pass them: Index.open(FILE, shards=...)"
        )


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
