"""The reader of samples in shards, which returns the image and the target at a location."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

from patchpack.errors import SourceError
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.labels import target_of
from patchpack.stream.tar.remote import RemoteFile
from patchpack.stream.tar.urls import is_local
from patchpack.types import Clip, Inline


class Slice(NamedTuple):
    """The location of a sample in a seekable shard: one pair (offset, length) in bytes for the image, and one for each label.

    A clip has a pair (offset, length) for each frame. A small label may be bytes in place of a pair, because an index stores
    the values of small labels.
    """

    shard: int
    image: tuple[int, int] | tuple[tuple[int, int], ...]
    labels: tuple[tuple[int, int] | bytes, ...]


class _Frames:
    """The frames of a clip, each read on access."""

    def __init__(self, read: Callable[[tuple[int, int]], bytes], places: tuple[tuple[int, int], ...]) -> None:
        self._read, self._places = read, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> bytes:
        return self._read(self._places[number])


class ShardReader:
    """A reader that returns (image bytes, target) at a location. It is picklable, and every process opens its own files."""

    def __init__(self, urls: list[str], members: SampleFields) -> None:
        self._urls, self._members = urls, members
        # descriptors, because a garbage collector would close file objects with a warning
        self._files: dict[int, int | RemoteFile] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}}

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound now: modules are empty at exit
        for file in self._files.values():
            if isinstance(file, int):
                close(file)

    def __call__(self, location: Slice | Inline) -> tuple[object, object]:
        """Return the image and target, see `patchpack.paint.painter.Fetch`."""
        if isinstance(location, Inline):
            return location.image, location.target
        return self._image(location), self.target(location)

    def _image(self, location: Slice) -> object:
        where: Any = location.image
        if isinstance(where[0], tuple):
            return Clip(cast(Any, _Frames(partial(self._read, location.shard), where)))
        return self._read(location.shard, where)

    def target(self, location: Slice | Inline) -> object:
        """Return the target alone."""
        if isinstance(location, Inline):
            return location.target
        found = [at if isinstance(at, bytes) else self._read(location.shard, at) for at in location.labels]
        return target_of(self._members.target, found)

    def _read(self, shard: int, where: tuple[int, int]) -> bytes:
        offset, length = where
        file = self._files.get(shard)
        if file is None:
            if len(self._files) >= 64:
                oldest = self._files.pop(next(iter(self._files)))
                if isinstance(oldest, int):
                    os.close(oldest)
            file = self._files[shard] = self._kept_open(shard)
        if not isinstance(file, int):
            return file.read(offset, length)
        data = read_at(file, length, offset)
        if len(data) != length:
            raise SourceError(f"{self._urls[shard]} has changed: it has only {len(data)} of {length} bytes at {offset}")
        return data

    def _kept_open(self, shard: int) -> int | RemoteFile:
        """Open a shard and keep it open between samples."""
        url = self._urls[shard]
        return open_descriptor(url) if is_local(url) else RemoteFile(url)


def open_descriptor(path: str) -> int:
    """Open a file for `read_at`."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def read_at(file: int, length: int, offset: int) -> bytes:
    """Read bytes of an open file at an offset. Fewer bytes are returned only at the end of the file.

    The position of the file, which forked workers share, does not move.

    Args:
        file: descriptor of the file.
        length: number of bytes.
        offset: position of the first byte.
    """
    if hasattr(os, "pread"):
        return os.pread(file, length, offset)
    before = os.lseek(file, 0, os.SEEK_CUR)
    os.lseek(file, offset, os.SEEK_SET)
    data = os.read(file, length)
    os.lseek(file, before, os.SEEK_SET)
    return data
