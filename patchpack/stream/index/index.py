"""The index of a set of shards. It is built once, opens in milliseconds, and gives the headers of many samples at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from multiprocessing.context import BaseContext

import numpy as np
import numpy.typing as npt

from patchpack._arrays import IntegerArray
from patchpack.errors import ConfigError, IndexFileError, StaleIndexError
from patchpack.image.formats import MAX_BYTES, MAX_PIXELS, Reading, require_readable
from patchpack.losses import Rejection, ShardFault
from patchpack.paint.target_kinds import KindOption
from patchpack.stream.index import columns as files
from patchpack.stream.index.build import (
    Paths,
    Progress,
    assemble,
    find_shards,
    require_one_place_per_key,
    require_same_fields,
    scan_all,
)
from patchpack.stream.index.columns import Columns
from patchpack.stream.index.fingerprint import ask_each, changed, unchanged
from patchpack.stream.index.head import Head, Shard
from patchpack.stream.index.kind import declared_kind, first_kind, with_declared
from patchpack.stream.index.lines import Lines
from patchpack.stream.index.opening import parse, with_locations
from patchpack.stream.index.reader import IndexReader
from patchpack.stream.index.scan import ShardColumns, ShardTask
from patchpack.stream.jobs.engine import Engine, require_engine
from patchpack.stream.sample.fields import Limits, SampleFields
from patchpack.stream.sample.names import IMAGE, LABEL
from patchpack.stream.sample.parsing import parse_members
from patchpack.stream.sample.source import Reader
from patchpack.types import Header, IntArray, TargetKind


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
        shards: Paths,
        *,
        image: str | Sequence[str] = IMAGE,
        target: str | tuple[str, ...] | None = LABEL,
        target_kind: KindOption = None,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
        formats: tuple[str, ...] = (),
        num_workers: int = 0,
        engine: Engine = "local",
        update: Index | None = None,
        progress: Progress | None = None,
        context: str | BaseContext | None = None,
    ) -> Index:
        """Read the headers of every sample once.

        Args:
            shards: uncompressed tar files: a path, a URL, a pattern ``train-{0000..0099}.tar``, a glob, or a list of these. A
                URL may be of any kind that fsspec opens. URLs need ``patchpack[remote]``. Only the parts of a remote shard that
                hold headers are read.
            image: extensions of the image, as for `patchpack.load`.
            target: name of the label, or several names, as for `patchpack.load`.
            target_kind: kind of all targets, as for `patchpack.load`. Default None: the first readable target decides.
            max_pixels: largest number of pixels of an image, checked on its header, default 64 million. Larger images are
                rejected.
            max_bytes: largest size of an image file in bytes, default 512 MiB. Larger files are rejected without being read.
            formats: names of further image formats, as in `Recipe`. A recipe for this index must name the same formats.
            num_workers: number of processes that scan, each one shard at a time. With 0 (default) and ``engine="local"`` this
                process scans. With 0 and ``engine="ray"`` every CPU of the cluster scans.
            engine: ``"local"`` (default) for processes of this machine, ``"ray"`` for a Ray cluster, see
                `patchpack.stream.jobs.engine.run_all`. Both engines give byte-identical indexes.
            update: an earlier index. Shards that have not changed since then are not read again. `update` saves time, and does
                not change the result. Default None: all shards are read.
            progress: a function that is called with (shards done, shards in all, samples so far) after each shard. Default
                None.
            context: a multiprocessing context, or the name of a start method, for the processes. Default None: the platform's
                start method.

        Raises:
            SourceError: there are no shards, a shard cannot be read by offset, or a shard is being written.
            ConfigError: `update` was built with other members or limits, the labels cannot have the kind `target_kind`, or Ray
                or fsspec is needed and not installed.
        """
        require_engine(engine, num_workers)
        reading = Reading(formats=formats)
        require_readable(reading)
        members = parse_members(image, target, None, Limits(max_pixels, max_bytes, False, reading))
        if members.several:
            raise ConfigError(
                f"an index has one image per sample, but image={image!r} requests several: load the shards without an index"
            )
        declared = declared_kind(target_kind, members)
        urls, labels = find_shards(shards, members)
        require_one_place_per_key(labels)
        require_same_fields(update, members)
        tasks = [ShardTask(url, label, members) for url, label in zip(urls, labels, strict=True)]
        as_before = {} if update is None else update._unchanged(tasks)
        fresh = [task for task in tasks if task.label not in as_before]
        scanned = scan_all(fresh, engine=engine, num_workers=num_workers, context=context)

        def parts() -> Iterator[ShardColumns]:
            samples = 0
            for done, task in enumerate(tasks, 1):
                part = as_before.get(task.label) or next(scanned)
                samples += len(part.columns["kind"])
                yield part
                if progress is not None:
                    progress(done, len(tasks), samples)

        with closing(scanned):  # ends its processes
            head, columns = assemble(tasks, parts())
        if declared is not None:
            return cls(with_declared(head, declared), columns)
        index = cls(head, columns)
        return cls(replace(head, target_kind=first_kind(index.headers, len(index), index.reader)), columns)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, shards: Paths | None = None, verify: bool = True) -> Index:
        """Map a saved index into memory.

        Args:
            path: path of the index file.
            shards: the new locations of the shards, in any form that `build` takes. Default None: the shards have not moved.
            verify: True (default) compares the whole file with its checksums, and compares size and version of every shard with
                the index. If only the version of a shard differs, the hash of a few blocks decides. False reads only the head
                of the file.

        Raises:
            IndexFileError: the file is missing, cut off, damaged, no index, or has another version.
            StaleIndexError: shards are missing or have changed. The error names the first of these shards.
        """
        path = os.path.abspath(path)
        head, columns = parse(path, verify=verify)
        if shards is not None:
            head = replace(head, shards=with_locations(path, head, shards))
        index = cls(head, columns, path, moved=shards is not None)
        if verify:
            index.verify()
        return index

    def verify(self) -> None:
        """Raise `StaleIndexError` if a shard is missing or has changed since it was indexed."""
        whys = ask_each(changed, [(s.url, s.fingerprint) for s in self.shards])
        found = [(s, why) for s, why in zip(self.shards, whys, strict=True) if why]
        if found:
            shard, why = found[0]
            raise StaleIndexError(
                f"{self._path or self.name}: {len(found)} of {self.num_shards} shards have changed since they were indexed, "
                f"the first "
                f"is {shard.url}, which {why}. Update the index, which reads only these shards: patchpack index SHARDS "
                f"--update FILE -o FILE. If the shards have moved, pass them: Index.open(FILE, shards=...)"
            )

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
        lines = np.asarray(lines)
        if lines.size and (lines.ndim != 1 or lines.dtype.kind not in "iu" or lines.min() < 0 or lines.max() >= len(self)):
            raise ConfigError(f"lines must be a flat sequence of integers in 0 … {len(self) - 1}, got {lines!r}")
        return self._lines.headers(lines.astype(np.int64))

    def _unchanged(self, tasks: Sequence[ShardTask]) -> dict[str, ShardColumns]:
        """Return a dict from the label of each unchanged shard to its columns.

        The columns have the form that a new scan gives.
        """
        known = {shard.label: (number, shard.fingerprint) for number, shard in enumerate(self.shards)}
        shared = [task for task in tasks if task.label in known]
        same = ask_each(unchanged, [(task.url, known[task.label][1]) for task in shared])
        return {
            task.label: self._lines.part(known[task.label][0])
            for task, as_it_was in zip(shared, same, strict=True)
            if as_it_was
        }


def _reopen(path: str, fingerprint: str, urls: list[str] | None) -> Index:
    """Return an index from a pickle that holds only its path. `urls` are the locations of the shards if they have moved."""
    head, columns = parse(path)
    if head.fingerprint != fingerprint:
        raise IndexFileError(
            f"{path} was replaced since this process was sent its name: do not write to an index that is in use"
        )
    if urls is not None:
        head = replace(head, shards=tuple(s._replace(url=url) for s, url in zip(head.shards, urls, strict=True)))
    return Index(head, columns, path, moved=urls is not None)
