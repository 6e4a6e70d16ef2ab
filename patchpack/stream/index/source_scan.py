"""The scan of a folder or a dataset to columns: every part is read once, in this process or in several."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Generator
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from typing import NamedTuple

import numpy as np

from patchpack import rng
from patchpack.errors import ConfigError, SourceError
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.index.columns import Columns
from patchpack.stream.jobs.engine import run_all
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.folders import FolderSource
from patchpack.types import Header

FILE, NUMBER, TEXT, OBJECT = range(4)
"""Kinds of a header's rest, which is its member and its location.

FILE: the location is the key, and the member is the file name in it. NUMBER: the location is the number in the key, and the
member is empty. TEXT: both are stored as JSON. OBJECT: both are stored as a pickle, which is never saved to a file.
"""

_MOST, _FEWEST = 1024, 16  # parts of a task
_TASKS_EACH = 8  # tasks of a process, so that processes end at nearly the same time


class PartColumns(NamedTuple):
    """The result of scanning some consecutive parts of a source.

    Attributes:
        columns: arrays by name, one line per usable sample. ``size`` is height and width, ``key_hash`` the hash of the key,
            ``container`` a number in `containers`, and ``kind`` the kind of the rest. ``key.lengths`` and ``key.bytes`` hold
            the keys, ``rest.lengths`` and ``rest.bytes`` the rests of kind TEXT and OBJECT. For image files, ``part`` is the
            number of the sample's part, and ``file.bytes`` and ``file.time`` hold size and time of change in ns, one line per
            part.
        containers: names of the folders or datasets in the headers, in order of first use.
        rejections: samples that cannot be used.
        faults: faults of the source.
        num_parts: number of parts that were scanned.
    """

    columns: Columns
    containers: list[str]
    rejections: list[Rejection]
    faults: list[ShardFault]
    num_parts: int


def scan_source(
    source: Source, *, num_workers: int = 0, context: str | BaseContext | None = None
) -> Generator[PartColumns, None, None]:
    """Yield the columns of all parts of a source, in order.

    Args:
        source: a source with parts, which holds no decoded images.
        num_workers: number of processes that scan. With 0 (default) this process scans.
        context: a multiprocessing context, or the name of a start method. Default None: the platform's start method.

    Raises:
        SourceError: a process died.
        ConfigError: a sample has several images or is a clip, or the source cannot be sent to a process.
    """
    count = source.num_parts or 0
    workers = 0 if source.scan_in_process else num_workers
    step = min(_MOST, max(_FEWEST, count // (_TASKS_EACH * max(1, workers))))
    spans = [(start, min(start + step, count)) for start in range(0, count, step)]
    if not workers:
        yield from map(partial(scan_range, source), spans)
        return
    processes = context if isinstance(context, BaseContext) else get_context(context)
    if processes.get_start_method() != "fork":
        _require_picklable(source)
    begin = partial(_keep, source)
    yield from run_all(_scan_kept, spans, num_workers=workers, context=processes, doing="reads headers", begin=begin)


def _require_picklable(source: Source) -> None:
    try:
        pickle.dumps(source)
    except Exception as error:
        raise ConfigError(
            f"{source.name} cannot be sent to processes ({type(error).__name__}: {error}): use num_workers=0, or make it "
            f"picklable"
        ) from error


_kept: list[Source] = []  # of a process that scans: the source is sent once per process, not once per task


def _keep(source: Source) -> None:
    _kept[:] = [source]


def _scan_kept(span: tuple[int, int]) -> PartColumns:
    return scan_range(_kept[0], span)


def scan_range(source: Source, span: tuple[int, int]) -> PartColumns:
    """Scan the parts ``start … stop - 1`` of a source.

    Raises:
        ConfigError: a sample has several images, or is a clip.
        SourceError: a sample holds its image in memory.
    """
    start, stop = span
    sizes: list[int] = []  # pairs in a flat list: making arrays of tuples takes 10 times as long
    keys: list[str] = []
    kinds, parts, places = bytearray(), [], []
    rests: list[bytes] = []
    containers: dict[str, int] = {}
    rejections: list[Rejection] = []
    faults: list[ShardFault] = []
    for event in source.scan_parts(range(start, stop)):
        if isinstance(event, Header):
            _require_one_image(event)
            kind, rest = _packed(event)
            parts.append(start + len(keys) + len(rejections))
            sizes += event.size
            keys.append(event.key)
            kinds.append(kind)
            rests.append(rest)
            places.append(containers.setdefault(event.shard, len(containers)))
        elif isinstance(event, Rejection):
            rejections.append(event)
        else:
            faults.append(event)
    columns: Columns = {
        "size": np.array(sizes, dtype=np.uint32).reshape(-1, 2),
        "key_hash": rng.key_hash(keys),
        "container": np.array(places, dtype=np.uint32),
        "kind": np.frombuffer(bytes(kinds), np.uint8),
        **_strings("key", [key.encode("utf-8", "surrogatepass") for key in keys]),
        **_strings("rest", rests),
    }
    if isinstance(source, FolderSource):
        columns |= {"part": np.array(parts, dtype=np.uint32), **file_status(source, start, stop)}
    return PartColumns(columns, list(containers), rejections, faults, stop - start)


def file_status(source: FolderSource, start: int, stop: int) -> Columns:
    """Return size in bytes and time of the last change in ns of some files of a folder. Both are 0 for a missing file.

    Args:
        source: the folder or the list of files.
        start: number of the first file.
        stop: number of the file after the last one.
    """
    found = [_status(source.part_file(part)) for part in range(start, stop)]
    table = np.array(found, dtype=np.uint64).reshape(-1, 2)
    return {"file.bytes": table[:, 0], "file.time": table[:, 1]}


def _status(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return 0, 0
    return status.st_size, max(0, status.st_mtime_ns)


def _strings(name: str, values: list[bytes]) -> Columns:
    lengths = np.fromiter(map(len, values), np.uint64, len(values))
    return {f"{name}.lengths": lengths, f"{name}.bytes": np.frombuffer(b"".join(values), np.uint8)}


def _require_one_image(header: Header) -> None:
    if header.rest:
        raise ConfigError(
            f"sample {header.key} has {len(header.images)} images, and an index has one image per sample: load the source "
            f"without an index"
        )
    if header.frames != 1:
        raise ConfigError(
            f"sample {header.key} is a clip of {header.frames} frames, and an index has no clips: load the source without an "
            f"index"
        )
    if header.num_bytes:
        raise SourceError(
            f"sample {header.key} is held in memory until it is painted, and an index reads each sample again: load the source "
            f"without an index"
        )


def _packed(header: Header) -> tuple[int, bytes]:
    """Return the kind of a header's rest, and its bytes."""
    key, member, location = header.key, header.member, header.location
    if location == key and member == key.rpartition("/")[2] and type(location) is str:
        return FILE, b""
    if type(location) is int and not member and str(location) == key:
        return NUMBER, b""
    if is_plain(location):
        return TEXT, json.dumps([member, location], separators=(",", ":")).encode("ascii")
    return OBJECT, pickle.dumps((member, location))


def is_plain(location: object) -> bool:
    """Return True for a location that JSON keeps: a str, an int, None, or a tuple of these."""
    return location is None or type(location) in (str, int) or (type(location) is tuple and all(map(is_plain, location)))


def rest_of(kind: int, rest: bytes, key: str) -> tuple[str, object]:
    """Return the member and the location of a header.

    Args:
        kind: kind of the rest.
        rest: bytes of the rest, empty for the kinds FILE and NUMBER.
        key: key of the sample.

    Raises:
        ValueError: the rest does not have the form of its kind.
    """
    if kind == FILE:
        return key.rpartition("/")[2], key
    if kind == NUMBER:
        return "", int(key)
    if kind == OBJECT:
        member, location = pickle.loads(rest)  # made by this program: a file with this kind of rest is refused
    else:
        member, location = json.loads(rest)
    if not isinstance(member, str):
        raise ValueError(f"a member is {member!r}")
    return member, location if kind == OBJECT else _tupled(location)


def _tupled(value: object) -> object:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
