"""The index of a folder, a list of image files or a map-style dataset.

Like an index of shards, the index holds the size, the key and the location of every usable sample. So epochs are planned as a
whole. The reader of the source reads the images.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from multiprocessing.context import BaseContext
from typing import cast

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError, SourceError, StaleIndexError
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.index import columns as files
from patchpack.stream.index.build import Progress
from patchpack.stream.index.columns import Columns
from patchpack.stream.index.index import Index
from patchpack.stream.index.kind import first_target_kind, with_declared
from patchpack.stream.index.source_check import changed_files, changed_items, fields_of, other_source, spread
from patchpack.stream.index.source_head import Origin, SourceHead
from patchpack.stream.index.source_lines import SourceLines, join
from patchpack.stream.index.source_scan import scan_source
from patchpack.stream.sample.fields import Limits, SampleFields
from patchpack.stream.sample.source import Reader, Source
from patchpack.stream.sources.folders import FolderSource
from patchpack.stream.sources.opening import SourceOptions, open_within
from patchpack.types import Header, IntArray


class SourceIndex(Index):
    """An index of a folder, a list of image files, or a map-style dataset. `Index.build` and `Index.open` make it.

    A `SourceIndex` is planned like an index of shards and has the same attributes, with these differences. `shards` is an empty
    tuple. `num_bytes` is None if the images are not files. `formats` is empty, because formats are not recorded. `shuffle`
    permutes all samples, with True and with any number.

    Args:
        source: the indexed source, opened within the limits of the index.
        head: the contents of the index without its columns.
        columns: arrays by name.
        path: file of the index. Default None: the index is not saved.

    Attributes:
        source: the given source.
        class_names: names of the classes in the order of their numbers. None if they are unknown.
    """

    permuted_as_a_whole = True

    def __init__(self, source: Source, head: SourceHead, columns: Columns, path: str | None = None) -> None:
        self.source, self._of, self._columns, self._path = source, head, columns, path
        self.name, self.class_names, self.ignored = head.name, head.class_names, source.ignored
        self.members: SampleFields = getattr(source, "members", SampleFields((), None))
        self.shards, self.num_shards = (), 1
        self.target_kind, self.fingerprint = head.target_kind, head.fingerprint
        self._of_source = SourceLines(columns, head.containers, head.num_parts, path or "this index")
        self.key_hash: npt.NDArray[np.uint64] = columns["key_hash"]
        self.starts: npt.NDArray[np.int64] = np.array([0, len(self.key_hash)], dtype=np.int64)
        self.reader: Reader = source.reader

    def verify(self) -> None:
        """Raise `StaleIndexError` if the folder or the dataset has changed since it was indexed.

        Of a folder or a list of files, the names, the sizes and the times of change of all files are compared. A file of which
        only the time differs is read again, and must have the same height and width. Of a dataset, the number of items and the
        sizes of a few items are compared.
        """
        head, source = self._of, self.source
        why = other_source(source, head)
        if not why and isinstance(source, FolderSource):
            why = changed_files(source, head, self._columns, self.each_header, {r.key for r in self.rejections})
        elif not why:
            why = changed_items(source, head, self.headers(spread(len(self))))
        if why:
            raise StaleIndexError(
                f"{self._path or 'this index'} does not fit {self.name} any more, which {why}. Build the index again: "
                f"patchpack.Index.build(...)"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index in one step: a reader finds the old file or the new one, never a part.

        The images are not in the file. `Index.open` finds the files of a folder or a list by their paths, and needs a dataset
        as its argument ``source``.

        Raises:
            ConfigError: `path` is a file of another kind, its folder does not exist, or the locations of the samples are
                objects that a file cannot hold.
            IndexFileError: the file cannot be written. An old file is then unchanged.
        """
        line = self.first_object()
        if line is not None:
            header = self.headers([line])[0]
            raise ConfigError(
                f"the index of {self.name} cannot be saved, because the location of sample {header.key} is a "
                f"{type(header.location).__name__}: expected str, int, or a tuple of these. Build it in every run instead"
            )
        path = os.path.abspath(path)
        files.write(path, self._of.to_json(), self._columns)
        self._path = path

    def __repr__(self) -> str:
        return f"Index({len(self)} samples of {self.name}, {len(self.rejections)} rejected)"

    def __reduce__(self) -> tuple[object, ...]:
        return SourceIndex, (self.source, self._of, self._columns, self._path)

    @cached_property
    def sizes(self) -> IntArray:
        """Height and width of every image in pixels, after EXIF orientation: int32 ``[n, 2]``."""
        return self._of_source.sizes()

    @cached_property
    def num_bytes(self) -> npt.NDArray[np.unsignedinteger] | None:  # type: ignore[override]  # None if images are no files
        """Size of every image file in bytes, unsigned ``[n]``. None if the images are not files."""
        return self._of_source.num_bytes()

    @property
    def formats(self) -> Counter[str]:
        """An empty `Counter`, because an index of a folder or a dataset does not record formats."""
        return Counter()

    @cached_property
    def rejections(self) -> list[Rejection]:
        """Samples that cannot be used, in order, each with the reason."""
        return self._of_source.losses[0]

    @cached_property
    def faults(self) -> list[ShardFault]:
        """Faults that the source reported while it was scanned."""
        return self._of_source.losses[1]

    def first_object(self) -> int | None:
        """Return the first line whose location is an object that a file cannot hold. Return None if there is none."""
        return self._of_source.first_object()

    def _headers(self, lines: npt.NDArray[np.int64]) -> tuple[Header, ...]:
        return self._of_source.headers(lines)


def require_indexable(source: Source) -> None:
    """Raise an error for a source that cannot be indexed.

    Raises:
        SourceError: the source has no parts that are read by number.
        ConfigError: the source has texts, clips or several images per sample.
    """
    if not source.num_parts:
        raise SourceError(
            f"{source.name} cannot be indexed: it is read from its beginning. Expected uncompressed tar shards, a folder, "
            f"image files, or a dataset with __getitem__ and __len__. Load it without an index"
        )
    if source.text is not None:
        raise ConfigError("an index holds no texts, which tokenize= needs: load the source without an index")
    members = getattr(source, "members", None)
    if isinstance(members, SampleFields) and members.frames:
        raise ConfigError(
            f"an index has no clips, but frames={';'.join(members.frames)!r} requests them: load the source without an index"
        )


def index_source(
    source: Source,
    origin: Origin,
    limits: Limits,
    *,
    num_workers: int = 0,
    context: str | BaseContext | None = None,
    progress: Progress | None = None,
) -> SourceIndex:
    """Return the index of a source with parts.

    Args:
        source: the source, opened within `limits`.
        origin: the arguments that opened the source.
        limits: the limits of the index.
        num_workers: number of processes that scan. With 0 (default) this process scans.
        context: a multiprocessing context, or the name of a start method. Default None: the platform's start method.
        progress: a function that is called with (parts done, parts in all, samples so far). Default None.

    Raises:
        SourceError, ConfigError: the source cannot be indexed.
    """
    require_indexable(source)
    source = source.reading_twice()
    total = source.num_parts or 0

    def met(done: int, samples: int) -> None:
        if progress is not None:
            progress(done, total, samples)

    with closing(scan_source(source, num_workers=num_workers, context=context)) as scanned:  # ends its processes
        columns, containers = join(scanned, met)
    fields = fields_of(source)
    head = SourceHead(source.name, total, source.fingerprint, fields, source.class_names, containers, limits, origin, None, "")
    head = replace(head, fingerprint=_digest(head, columns))
    if source.target_kind is not None:
        return SourceIndex(source, with_declared(head, source.target_kind), columns)
    index = SourceIndex(source, head, columns)
    kind = first_target_kind(source.reader, index.each_header())
    return SourceIndex(source, replace(head, target_kind=kind), columns)


def _digest(head: SourceHead, columns: Columns) -> str:
    """Return a hash of everything that plans depend on. The location of the source does not change the hash."""
    limits = head.limits
    said = [
        head.num_parts,
        head.samples,
        head.fields,
        head.class_names,
        limits.max_pixels,
        limits.max_bytes,
        *limits.reading.formats,
    ]
    hashed = blake2b(json.dumps(said).encode(), digest_size=16)
    for name in ("key_hash", "size"):
        column = columns[name]
        hashed.update(column.dtype.str.encode())
        hashed.update(np.ascontiguousarray(column).data)
    return hashed.hexdigest()


def reopen(path: str, source: object, head: SourceHead, columns: Columns) -> SourceIndex:
    """Return a saved index with its source.

    Args:
        path: path of the index file.
        source: the source, in any form that `open_source` takes. None: the paths that the file names.
        head: head of the file.
        columns: columns of the file.

    Raises:
        ConfigError: the file names no paths, and `source` is None.
        SourceError: the source cannot be opened.
        IndexFileError: the columns contradict each other, or hold locations that a file cannot hold.
    """
    options = head.origin.options or {}
    if source is None:
        if head.origin.paths is None or head.origin.options is None:
            raise ConfigError(
                f"{path} is an index of {head.name}, which the file does not hold: pass it as "
                f"patchpack.Index.open({path!r}, source=...), opened as it was when the index was built"
            )
        paths = head.origin.paths
        source = paths[0] if len(paths) == 1 else paths
    given = cast("SourceOptions", {} if isinstance(source, Source) else options)
    opened = open_within(head.limits, source, **given)
    require_indexable(opened)
    index = SourceIndex(opened.reading_twice(), head, columns, path)
    if index.first_object() is not None:  # a pickle may run any code
        raise files.damaged(path, "it has a location that a file cannot hold")
    return index
