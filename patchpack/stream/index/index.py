"""The index of a set of shards. It is built once, opens in milliseconds, and gives the headers of many samples at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from multiprocessing.context import BaseContext

import numpy as np
import numpy.typing as npt
from typing_extensions import Unpack

from patchpack._arrays import IntegerArray
from patchpack.errors import ConfigError, IndexFileError
from patchpack.image.formats import MAX_BYTES, MAX_PIXELS, Reading, require_readable
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.index import columns as files
from patchpack.stream.index.build import (
    Paths,
    Progress,
    assemble,
    in_order,
    open_to_index,
    require_for_shards,
    require_same_fields,
    scan_all,
    tasks_of,
)
from patchpack.stream.index.columns import Columns
from patchpack.stream.index.head import Head, Shard
from patchpack.stream.index.kind import first_target_kind, with_declared
from patchpack.stream.index.lines import Lines, checked
from patchpack.stream.index.opening import parse, require_unchanged, with_locations
from patchpack.stream.index.reader import IndexReader
from patchpack.stream.index.source_head import Origin, SourceHead
from patchpack.stream.jobs.engine import Engine, require_engine
from patchpack.stream.sample.fields import Limits, SampleFields
from patchpack.stream.sample.source import Reader
from patchpack.stream.sources.opening import SourceOptions
from patchpack.stream.sources.shards import ShardSource
from patchpack.types import Header, IntArray, TargetKind

_BLOCK = 1 << 10  # headers made at a time


class Index:
    """A table of the size, key and location of every usable sample of some shards.

    Samples are numbered 0 … n − 1, in the order of the shards. Line i of the table describes sample i.

    An index takes a few dozen bytes per sample. `build` makes an index, `save` writes it to one file, and `open` maps that file
    without reading it whole. An index is picklable: the pickle of a saved index holds only the path, and the pickle of an
    unsaved index holds all contents.

    Args:
        head: the contents of the index without its columns.
        columns: arrays by name.
        path: file of the index. Default None: the index is not saved.
        moved: True if the shards are at other locations than the file says. Default False.

    Attributes:
        permuted_as_a_whole: True if any `shuffle` but 0 permutes all samples. False for shards.
        name: name of the index in messages.
        members: the fields that were read of each sample.
        shards: location, label and fingerprint of each shard.
        num_shards: number of shards.
        starts: int64 ``[num_shards + 1]``. Shard s holds the samples ``starts[s] … starts[s + 1] - 1``, in the order of the
            shard.
        key_hash: uint64 ``[n]``, the hash of each sample's key, see `patchpack.rng.key_hash`.
        target_kind: kind of the targets: the kind given to `build`, or the kind of the first readable target.
        fingerprint: a hexadecimal hash. Two indexes have equal fingerprints if samples, sizes and shards are equal, even if the
            shards are at different locations.
        reader: a function from the location in a header to (image bytes, target).
    """

    permuted_as_a_whole = False

    def __init__(self, head: Head, columns: Columns, path: str | None = None, *, moved: bool = False) -> None:
        self._head, self._columns, self._path, self._moved = head, columns, path, moved
        self.shards: tuple[Shard, ...] = head.shards
        self.num_shards = len(head.shards)
        self.members: SampleFields = head.members
        self.target_kind: TargetKind = head.target_kind
        self.fingerprint: str = head.fingerprint
        self._lines = Lines(head, columns, path or "this index")
        self.starts: npt.NDArray[np.int64] = self._lines.starts
        self.key_hash: npt.NDArray[np.uint64] = columns["key_hash"]
        first = head.shards[0].label
        self.name = first if self.num_shards == 1 else f"{self.num_shards} shards ({first} …)"
        self.reader: Reader = IndexReader(head.shards, head.members)

    @classmethod
    def build(
        cls,
        source: object,
        *,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
        formats: tuple[str, ...] = (),
        num_workers: int = 0,
        engine: Engine = "local",
        update: Index | None = None,
        progress: Progress | None = None,
        context: str | BaseContext | None = None,
        **reading: Unpack[SourceOptions],
    ) -> Index:
        """Read the header of every sample once, and return the index of all samples.

        Args:
            source: uncompressed tar files: a path, a URL, a pattern ``train-{0000..0099}.tar``, a glob, or a list of these. A
                URL may be of any kind that fsspec opens. URLs need ``patchpack[remote]``. Only the parts of a remote shard that
                hold headers are read. Or a folder, image files, a map-style dataset (torch, Hugging Face), or a
                `Source` with parts from `open_source`. If a dataset does not state sizes, every image is decoded once.
            max_pixels: largest number of pixels of an image, checked on its header, default 64 million. Larger images are
                rejected.
            max_bytes: largest size of an image file in bytes, default 512 MiB. Larger files are rejected without being read.
            formats: names of further image formats, as in `Recipe`. A recipe for this index must name the same formats.
            num_workers: number of processes that scan, each one shard, or some hundred files or items, at a time. With 0
                (default) and ``engine="local"`` this process scans. With 0 and ``engine="ray"`` every CPU of the cluster scans.
            engine: ``"local"`` (default) for processes of this machine, ``"ray"`` for a Ray cluster, see
                `patchpack.stream.jobs.engine.run_all`. Both engines give byte-identical indexes. Ray scans only shards.
            update: an earlier index of shards. Shards that have not changed since then are not read again. `update` saves time,
                and does not change the result. Default None: everything is read.
            progress: a function that is called with (parts done, parts in all, samples so far), after each shard or after some
                hundred files or items. Default None.
            context: a multiprocessing context, or the name of a start method, for the processes. Default None: the platform's
                start method.
            **reading: options of `open_source`, such as ``image``, ``target``, ``classes`` and ``sizes``. Shards take
                ``image`` and ``target``. An index holds no clips and no texts.

        Raises:
            SourceError: there is nothing to index, a shard cannot be read by offset, a shard is being written, or the source
                can only be read from its beginning.
            ConfigError: `update` was built with other members or limits, a sample has several images, an option does not fit
                the kind of source, the labels cannot have the kind `target_kind`, or Ray or fsspec is needed and not installed.
        """
        require_engine(engine, num_workers)
        require_readable(Reading(formats=formats))
        limits = Limits(max_pixels, max_bytes, False, Reading(formats=formats))
        opened = open_to_index(source, limits, reading)
        if not isinstance(opened, ShardSource):
            require_for_shards(opened.name, engine, update)
            of_source = import_module("patchpack.stream.index.of_source")  # imported now, because it is a kind of index itself
            index: Index = of_source.index_source(
                opened, Origin.of(source, reading), limits, num_workers=num_workers, context=context, progress=progress
            )
            return index
        require_same_fields(update, opened.members)
        tasks = tasks_of(opened)
        as_before = {} if update is None else update._lines.unchanged(tasks)
        fresh = [task for task in tasks if task.label not in as_before]
        with closing(scan_all(fresh, engine=engine, num_workers=num_workers, context=context)) as scanned:
            head, columns = assemble(tasks, in_order(tasks, as_before, scanned, progress))
        if opened.target_kind is not None:
            return Index(with_declared(head, opened.target_kind), columns)
        index = Index(head, columns)
        kind = first_target_kind(index.reader, index.each_header())
        return Index(replace(head, target_kind=kind), columns)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, shards: Paths | None = None, source: object = None, verify: bool = True
    ) -> Index:
        """Map a saved index into memory.

        Args:
            path: path of the index file.
            shards: the new locations of the shards, in any form that `build` takes. Default None: the shards have not moved.
            source: for an index of a folder or a dataset, the data, as `build` took it. Default None: the folder or the files
                have not moved. A dataset must always be passed.
            verify: True (default) compares the whole file with its checksums, and compares size and version of every shard with
                the index. If only the version of a shard differs, the hash of a few blocks decides. Of a folder, the names,
                sizes and times of all files are compared. Of a dataset, the number of items and the sizes of a few items are
                compared. False reads only the head of the index file, and lists the files of a folder.

        Raises:
            IndexFileError: the file is missing, cut off, damaged, no index, or has another version.
            StaleIndexError: shards, a folder or a dataset have changed since they were indexed. The error names the first
                difference.
            ConfigError: `shards` is passed with an index of a folder or a dataset, `source` with an index of shards, or the
                index needs its dataset as `source`.
        """
        path = os.path.abspath(path)
        head, columns = parse(path, verify=verify)
        if isinstance(head, SourceHead):
            if shards is not None:
                raise ConfigError(f"{path} is an index of {head.name}, which is not shards: pass its new location as source=")
            of_source = import_module("patchpack.stream.index.of_source")  # imported now, because it is a kind of index itself
            index: Index = of_source.reopen(path, source, head, columns)
        else:
            if source is not None:
                raise ConfigError(f"{path} is an index of shards: pass their new locations as shards=, and leave source= out")
            if shards is not None:
                head = replace(head, shards=with_locations(path, head, shards))
            index = Index(head, columns, path, moved=shards is not None)
        if verify:
            index.verify()
        return index

    def verify(self) -> None:
        """Raise `StaleIndexError` if a shard is missing or has changed since it was indexed."""
        require_unchanged(self._path or self.name, self.shards)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index in one step: a reader finds the complete old file or the complete new one.

        Raises:
            ConfigError: `path` is a file of another kind, or its folder does not exist.
            IndexFileError: the file cannot be written. A file that was there before is unchanged.
        """
        path = os.path.abspath(path)
        files.write(path, self._head.to_json(), self._columns)
        self._path, self._moved = path, False

    def __len__(self) -> int:
        """Return the number of usable samples."""
        return int(self.starts[-1])

    def __repr__(self) -> str:
        return f"Index({len(self)} samples of {self.name}, {len(self.rejections)} rejected)"

    def __reduce__(self) -> tuple[object, ...]:
        if self._path is None:
            return Index, (self._head, self._columns)
        return _reopen, (self._path, self.fingerprint, [s.url for s in self.shards] if self._moved else None)

    @cached_property
    def sizes(self) -> IntArray:
        """Height and width of every image in pixels, after EXIF orientation: int32 ``[n, 2]``."""
        return self._lines.sizes()

    @property
    def num_bytes(self) -> np.ndarray:
        """Size of every image file in bytes, unsigned ``[n]``."""
        return self._columns["length"]

    @property
    def nbytes(self) -> int:
        """Size of all columns together, in bytes."""
        return sum(column.nbytes for column in self._columns.values())

    @property
    def formats(self) -> Counter[str]:
        """Number of images of each format. The first bytes of a file show its format."""
        return self._lines.formats()

    @cached_property
    def rejections(self) -> list[Rejection]:
        """Samples that cannot be used, in order, each with the reason."""
        return self._lines.losses[0]

    @cached_property
    def faults(self) -> list[ShardFault]:
        """Shards that could not be read to their end."""
        return self._lines.losses[1]

    def headers(self, lines: Sequence[int] | IntegerArray) -> tuple[Header, ...]:
        """Return the headers of some samples. `reader` reads a sample from the location in its header.

        Args:
            lines: numbers of the samples, ``0 … n - 1``, in any order.

        Raises:
            ConfigError: a number is not in ``0 … n - 1``.
            IndexFileError: the file is damaged where it describes one of these samples.
        """
        return self._headers(checked(lines, len(self)))

    def each_header(self) -> Iterator[Header]:
        """Yield the header of every line, in order."""
        for start in range(0, len(self), _BLOCK):
            yield from self.headers(np.arange(start, min(start + _BLOCK, len(self))))

    def _headers(self, lines: npt.NDArray[np.int64]) -> tuple[Header, ...]:
        return self._lines.headers(lines)


def _reopen(path: str, fingerprint: str, urls: list[str] | None) -> Index:
    """Return an index from a pickle that holds only its path. `urls` are the locations of the shards if they have moved."""
    head, columns = parse(path)
    if not isinstance(head, Head) or head.fingerprint != fingerprint:
        raise IndexFileError(
            f"{path} was replaced since this process was sent its name: do not write to an index that is in use"
        )
    if urls is not None:
        head = replace(head, shards=tuple(s._replace(url=url) for s, url in zip(head.shards, urls, strict=True)))
    return Index(head, columns, path, moved=urls is not None)
