"""The reader of samples by places from an index. It checks that shards are still the indexed ones."""

from __future__ import annotations

import os
from collections.abc import Sequence

from patchpack.errors import StaleIndexError
from patchpack.stream.index.fingerprint import changed
from patchpack.stream.index.head import Shard
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.tar.reader import ShardReader
from patchpack.stream.tar.remote import RemoteFile


class IndexReader(ShardReader):
    """A `ShardReader` that checks a local shard when it opens it.

    Small labels are in the index and images in the shard. If another file replaced the shard, they would not belong together.

    Raises:
        StaleIndexError: when reading, the shard is not the indexed one.
    """

    def __init__(self, shards: Sequence[Shard], members: SampleFields) -> None:
        super().__init__([shard.url for shard in shards], members)
        self._known = [shard.fingerprint for shard in shards]

    def _kept_open(self, shard: int) -> int | RemoteFile:
        file, known = super()._kept_open(shard), self._known[shard]
        if isinstance(file, int):
            status = os.fstat(file)
            if (status.st_size, status.st_mtime_ns) != known[:2] and (why := changed(self._urls[shard], known)):
                os.close(file)
                raise StaleIndexError(f"{self._urls[shard]} has changed since it was indexed, it {why}: update the index")
        return file
