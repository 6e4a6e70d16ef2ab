"""The scan of one shard, which gives columns. The columns depend on the file alone, so they are equal on every machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from patchpack import rng
from patchpack.errors import SourceError
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.index.columns import Columns, narrow
from patchpack.stream.index.fingerprint import Fingerprint, fingerprint, status_of
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.tar.byte_reader import BLOCK
from patchpack.stream.tar.reader import open_descriptor, read_at
from patchpack.stream.tar.remote import RangeReader, RemoteFile
from patchpack.stream.tar.shards import scan_shard, starts_compressed
from patchpack.stream.tar.urls import is_local
from patchpack.types import Event, Header

INLINE_BYTES = 32
"""Longest label that is kept in the index itself, so that a class or a number needs no read when it is painted."""


class ShardTask(NamedTuple):
    """The description of one shard to scan. It is picklable."""

    url: str
    label: str
    members: SampleFields


class ShardColumns(NamedTuple):
    """The result of scanning a shard.

    Attributes:
        fingerprint: fingerprint of the shard.
        prefix: common beginning of the stems of all samples, which `columns` leaves out. A stem is a member's name up to the
            first dot of the file name.
        kinds: all different pairs (rest of an image's name after the stem, image format), in order of first use.
        columns: arrays by name, with one element per sample. ``size`` is height and width. ``key_hash`` is the hash of the key.
            ``kind`` is a number in `kinds`. ``offset`` is the position of the image in the shard, in blocks of 512 bytes.
            ``length`` is the size of the image in bytes. ``stem.lengths`` and ``stem.bytes`` hold the stems. If the value of
            label i is short, ``label{i}.lengths`` and ``label{i}.bytes`` hold it, and ``label{i}.length`` is 0. If the value is
            long, ``label{i}.offset`` and ``label{i}.length`` are its location in the shard.
        rejections: rejected samples, from `patchpack.stream.tar.shards.scan_shard`.
        faults: faults of the shard, from `scan_shard` too.
    """

    fingerprint: Fingerprint
    prefix: str
    kinds: list[tuple[str, str]]
    columns: Columns
    rejections: list[Rejection]
    faults: list[ShardFault]


def scan_columns(task: ShardTask) -> ShardColumns:
    """Scan an uncompressed shard, local or remote.

    Raises:
        SourceError: the shard cannot be opened, is compressed, was written to during the scan, or cannot be read from its URL.
        ConfigError: the shard is a URL, and fsspec is not installed.
    """
    url, label, members = task
    before = fingerprint(url)
    names: list[str] = []
    kinds: list[int] = []
    images: list[int] = []  # pairs in a flat list: making arrays of tuples takes 10 times as long
    sizes: list[int] = []
    labels = [_Label() for _ in members.labels]
    numbers: dict[tuple[str, str], int] = {}
    rejections: list[Rejection] = []
    faults: list[ShardFault] = []
    stem_at = len(label) + 1
    with _opened(url, before.num_bytes) as (read, reader):
        for event in scan_shard(url, 0, label, members, reader):
            if type(event) is Header:
                key, _, member, size, location, *_ = event
                _, image, places = cast(
                    "tuple[int, tuple[int, int], list[tuple[int, int]]]", location
                )  # a `Slice` of one image
                kind = member[len(key) - stem_at :], image_format(read(image[0], 12))
                names.append(key)
                images += image
                sizes += size
                kinds.append(numbers.setdefault(kind, len(numbers)))
                for kept, place in zip(labels, places, strict=True):
                    kept.add(read, place)
            elif isinstance(event, Rejection):
                rejections.append(event)
            elif isinstance(event, ShardFault):
                faults.append(event)
    if status_of(url) != before[:2]:
        raise SourceError(f"{url} was written to while it was scanned: build the index once the file is complete")
    stems = [key[stem_at:] for key in names]
    prefix = os.path.commonprefix([min(stems), max(stems)]) if stems else ""  # noqa: RUF071 characters are meant
    columns: Columns = {
        "size": np.array(sizes, dtype=np.uint32).reshape(-1, 2),
        "key_hash": rng.key_hash(names),
        "kind": np.array(kinds, dtype=np.uint16),
        **_places("", images),
        **_strings("stem", [stem[len(prefix) :].encode("utf-8", "surrogateescape") for stem in stems]),
    }
    for i, kept in enumerate(labels):
        columns |= _strings(f"label{i}", kept.values) | _places(f"label{i}.", kept.places)
    columns = {name: column if name == "key_hash" else narrow(column) for name, column in columns.items()}
    return ShardColumns(before, prefix, list(numbers), columns, rejections, faults)


_Read = Callable[[int, int], bytes]  # (offset, length)


@contextmanager
def _opened(url: str, num_bytes: int) -> Iterator[tuple[_Read, RangeReader | None]]:
    """Yield a function that reads by offset, and the byte reader to scan. The byte reader is None for a local file."""
    if is_local(url):
        file = open_descriptor(url)
        try:
            read = partial(_read_of, file)
            require_uncompressed(url, read)
            yield read, None
        finally:
            os.close(file)
    else:
        reader = RangeReader(RemoteFile(url).read, num_bytes)
        require_uncompressed(url, reader.read)
        yield reader.read, reader


def _read_of(file: int, offset: int, length: int) -> bytes:
    return read_at(file, length, offset)


def not_by_offset(url: str, why: str) -> SourceError:
    """Return the error for a shard that cannot be indexed."""
    return SourceError(f"{url} cannot be indexed: {why}. Expected an uncompressed tar file, whose members are read by offset")


def require_uncompressed(url: str, read: _Read) -> None:
    """Raise `SourceError` for a shard whose first bytes show a compression."""
    if starts_compressed(read):
        raise not_by_offset(url, "it is compressed, although its name does not say so")


def scan_events(task: ShardTask) -> Iterator[Event]:
    """Yield the events of a shard, from `patchpack.stream.tar.shards.scan_shard`. A remote shard is read in ranges."""
    with _opened(task.url, fingerprint(task.url).num_bytes) as (_, reader):
        yield from scan_shard(task.url, 0, task.label, task.members, reader)


class _Label:
    """One label of every sample: its bytes, or the location of a long label in the shard."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.places: list[int] = []  # pairs

    def add(self, read: _Read, place: tuple[int, int]) -> None:
        offset, length = place
        short = length <= INLINE_BYTES
        self.values.append(read(offset, length) if short else b"")
        self.places += (0, 0) if short else place


def _strings(name: str, values: Sequence[bytes]) -> Columns:
    lengths = np.fromiter(map(len, values), np.uint64, len(values))
    return {f"{name}.lengths": lengths, f"{name}.bytes": np.frombuffer(b"".join(values), np.uint8)}


def _places(prefix: str, places: Sequence[int]) -> Columns:
    table: npt.NDArray[np.uint64] = np.array(places, dtype=np.uint64).reshape(-1, 2)
    assert not (table[:, 0] % BLOCK).any()  # members of a tar file begin at a block
    return {f"{prefix}offset": table[:, 0] // np.uint64(BLOCK), f"{prefix}length": table[:, 1]}


def image_format(start: bytes) -> str:
    """Return Pillow's name for the format of an image, from its first 12 bytes. Return "" for a rare format."""
    if start[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return "WEBP"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if start[:2] == b"BM":
        return "BMP"
    if start[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    return "AVIF" if start[4:] in (b"ftypavif", b"ftypavis") else ""
