"""The reader of samples at locations in an index. It checks that shards have not changed since they were indexed."""

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
    """A `ShardReader` that compares each local shard with the index before reading from it.

    Small labels are in the index, images are in the shard. If another file has replaced the shard, labels and images do not
    belong together.

    Raises:
        StaleIndexError: when reading, a shard has changed since it was indexed.
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
