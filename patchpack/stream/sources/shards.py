"""Webdataset shards as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from patchpack.errors import SourceError
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.source import FieldSource, digest
from patchpack.stream.tar.reader import ShardReader
from patchpack.stream.tar.shards import scan_shard
from patchpack.stream.tar.urls import in_working_folder, is_local
from patchpack.types import Event


class ShardSource(FieldSource):
    """Webdataset shards. Keys are ``<shard file name>/<member stem>``."""

    def __init__(self, urls: list[str], members: SampleFields) -> None:
        missing = [url for url in urls if is_local(url) and not os.path.isfile(url)]
        if missing:
            what = "is not a file" if os.path.exists(missing[0]) else "does not exist"
            where = in_working_folder(missing[0])
            raise SourceError(
                f"{len(missing)} of {len(urls)} shards are missing, the first is {missing[0]}, which {what}{where}"
            )
        self.urls = urls
        self.labels = shard_labels(urls)
        self.fingerprint = digest(self.labels)
        self.name = self.labels[0] if len(urls) == 1 else f"{len(urls)} shards ({self.labels[0]} …)"
        self.num_parts = len(urls)
        self.set_members(members)

    def set_members(self, members: SampleFields) -> None:
        """Set the members to read, see `FieldSource`."""
        self.members, self.reader = members, ShardReader(self.urls, members.without_text())

    def scan(self) -> Iterator[Event]:
        """Yield a header or rejection for each sample, see `Source`."""
        return self.scan_parts(range(len(self.urls)))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """Yield a header or rejection for each sample of some shards, see `Source`."""
        for number in parts:
            yield from scan_shard(self.urls[number], number, self.labels[number], self.members)


def shard_labels(urls: list[str]) -> list[str]:
    """Return a name per shard for keys and reports.

    A name is the file name, with as many parent folders as are needed to make all names different. All further parent folders
    are left out. So the names do not depend on the folder in which a machine keeps the shards.
    """
    parts = [Path(url.split("://")[-1]).parts or (url,) for url in urls]
    first: dict[str, str] = {}
    for url in urls:
        path = url.removeprefix("file://")
        real = os.path.realpath(path) if is_local(path) else url
        if real in first:
            also = "" if first[real] == url else f", as {first[real]} too"
            raise SourceError(f"shard {url} is listed twice{also}: its samples would repeat within one pass")
        first[real] = url
    depth = 1
    while True:
        labels = ["/".join(p[-depth:]) for p in parts]
        if len(set(labels)) == len(labels):
            return labels
        depth += 1
