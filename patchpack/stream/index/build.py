"""The building of an index. Each shard is scanned separately, in any process. Then all columns are joined in order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np

from patchpack.errors import ConfigError, SourceError
from patchpack.stream.index.columns import Column, Columns, narrow
from patchpack.stream.index.head import Head, Shard
from patchpack.stream.index.scan import ShardColumns, ShardTask, not_by_offset, require_uncompressed, scan_columns
from patchpack.stream.index.strings import Strings
from patchpack.stream.jobs.engine import Engine, run_all
from patchpack.stream.sample.fields import Limits, SampleFields
from patchpack.stream.sample.names import IMAGE
from patchpack.stream.sample.source import Source
from patchpack.stream.sources.indexed import IndexSource, is_index
from patchpack.stream.sources.opening import SourceOptions, open_source, open_within
from patchpack.stream.sources.shards import ShardSource, shard_labels
from patchpack.stream.tar.remote import expand
from patchpack.stream.tar.shards import is_compressed
from patchpack.stream.tar.urls import absolute, is_local

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Progress = Callable[[int, int, int], None]
"""Called with (parts done, parts in all, samples so far) after every shard, or after some hundred files or items."""


def find_shards(shards: Paths, members: SampleFields) -> tuple[list[str], list[str]]:
    """Find the shards that paths and patterns name. Return their paths or URLs, and their labels.

    Raises:
        SourceError: there are no shards, or a shard cannot be read by offset.
        ConfigError: a shard is a URL, and fsspec is not installed.
    """
    source = open_source(shards, image=";".join(members.image) if members.image_given else IMAGE, target=None)
    if not isinstance(source, ShardSource):
        raise SourceError(f"{source.name} cannot be read as the shards of an index: expected tar shards")
    urls = [found for url in source.urls for found in ([url] if is_local(url) or _is_command(url) else expand(url))]
    for url in urls:
        if _is_command(url):
            raise not_by_offset(url, "it is the output of a command")
        if is_compressed(url):
            raise not_by_offset(url, "it is compressed")
        if is_local(url):  # checked now, before any shard is scanned; a remote shard is checked when it is opened
            require_uncompressed(url, partial(_first_bytes, url))
    return urls, shard_labels(urls)


def open_to_index(source: object, limits: Limits, reading: SourceOptions) -> Source:
    """Return the opened source of an index.

    Args:
        source: data in any form that `Index.build` takes.
        limits: the limits of the index.
        reading: options of `open_source`.

    Raises:
        SourceError, ConfigError: the source cannot be opened, or an index cannot hold what the options request.
    """
    if is_index(source) or isinstance(source, IndexSource):
        raise ConfigError(f"{source.name} is an index already: pass it to patchpack.load")
    if reading.get("tokenize") is not None:
        raise ConfigError("an index holds no texts, which tokenize= needs: load the source without an index")
    if reading.get("frames") is not None:
        raise ConfigError(
            f"an index has no clips, but frames={reading['frames']!r} requests them: load the source without an index"
        )
    opened = open_within(limits, source, **reading)
    members = getattr(opened, "members", None)
    if isinstance(members, SampleFields) and members.several:
        raise ConfigError(
            f"an index has one image per sample, but image={';'.join(members.image)!r} requests several: load the source "
            f"without an index"
        )
    return opened


def require_for_shards(name: str, engine: Engine, update: object) -> None:
    """Raise `ConfigError` if an option that only shards can have is passed with another source.

    Args:
        name: name of the source, for the message.
        engine: the engine that was requested.
        update: the earlier index that was passed, or None.
    """
    if engine != "local":
        raise ConfigError(f"engine={engine!r} scans shards, and {name} is not shards: use engine='local' with num_workers")
    if update is not None:
        raise ConfigError(f"update= takes unchanged shards from an earlier index, and {name} is not shards: leave update= out")


def _first_bytes(path: str, offset: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def _is_command(url: str) -> bool:
    return url.startswith("pipe:")


def require_one_place_per_key(labels: Sequence[str]) -> None:
    """Raise `SourceError` if samples of two shards could have the same key.

    Example: sample ``b.tar/0`` of shard ``a``, and sample ``0`` of shard ``a/b.tar``.
    """
    known = set(labels)
    for label in labels:
        parts = label.split("/")
        above = next((p for i in range(1, len(parts)) if (p := "/".join(parts[:i])) in known), None)
        if above is not None:
            raise SourceError(f"shards {above} and {label} could contain samples of the same key: rename one of them")


def require_same_fields(update: Any, members: SampleFields) -> None:
    """Raise `ConfigError` if `update` is an index that was built with other fields or limits. `update` may be None."""
    if update is None:
        return
    before = getattr(update, "members", None)
    if not isinstance(before, SampleFields):
        raise ConfigError(f"update must be an earlier Index, got {update!r}: patchpack.Index.open(path) opens a saved one")
    if not getattr(update, "shards", ()):
        raise ConfigError(f"update must be an earlier index of shards, got {update!r}: leave update= out")
    now = _options(members)
    for name, then in _options(before).items():
        if then != now[name]:
            raise ConfigError(
                f"{name} differs: the index to update was made for {then}, this one is to be for {now[name]}. Make it the "
                f"same, or build without update="
            )


def _options(members: SampleFields) -> dict[str, Any]:
    """Return the options of `Index.build` that decide which members are read, as a dict by name."""
    limits = members.limits
    return {
        "image": ";".join(members.image),
        "target": members.target,
        "max_pixels": limits.max_pixels,
        "max_bytes": limits.max_bytes,
        "formats": limits.reading.formats,
    }


def tasks_of(source: ShardSource) -> list[ShardTask]:
    """Return the tasks that scan the shards of a source. Raises `SourceError` if two shards could give the same key."""
    urls, labels = find_shards(source.urls, source.members)
    require_one_place_per_key(labels)
    return [ShardTask(url, label, source.members) for url, label in zip(urls, labels, strict=True)]


def scan_all(
    tasks: Sequence[ShardTask], *, engine: Engine = "local", num_workers: int = 0, context: str | BaseContext | None = None
) -> Generator[ShardColumns, None, None]:
    """Yield the columns of each shard, in order. See `patchpack.stream.jobs.engine.run_all`.

    Args:
        tasks: the shards to scan.
        engine: ``"local"`` (default) or ``"ray"``.
        num_workers: number of processes that scan. With 0 (default) this process scans.
        context: a multiprocessing context, or the name of a start method. Default None: the platform's start method.
    """
    if engine == "ray":  # a worker on another machine is in another folder
        tasks = [task._replace(url=absolute(task.url)) for task in tasks]
    return run_all(scan_columns, tasks, engine=engine, num_workers=num_workers, context=context, doing="scans shards")


def in_order(
    tasks: Sequence[ShardTask], as_before: Mapping[str, ShardColumns], fresh: Iterator[ShardColumns], progress: Progress | None
) -> Iterator[ShardColumns]:
    """Yield the columns of each shard in order, and report the progress.

    Args:
        tasks: all shards.
        as_before: columns of unchanged shards, by label.
        fresh: columns of the other shards, in order.
        progress: a function that is called after each shard, see `Progress`. None reports nothing.
    """
    samples = 0
    for done, task in enumerate(tasks, 1):
        part = as_before.get(task.label) or next(fresh)
        samples += len(part.columns["kind"])
        yield part
        if progress is not None:
            progress(done, len(tasks), samples)


def assemble(tasks: Sequence[ShardTask], parts: Iterator[ShardColumns]) -> tuple[Head, Columns]:
    """Return the head and the columns of one index that covers all shards. The kind of the targets is not set yet."""
    kinds: dict[tuple[str, str], int] = {}
    entries: list[Shard] = []
    pieces: dict[str, list[Column]] = {}
    rejections: list[Any] = []
    faults: list[Any] = []
    for task, part in zip(tasks, parts, strict=True):
        entries.append(Shard(task.label, task.url, part.fingerprint, len(part.columns["kind"]), part.prefix))
        numbers = np.array([kinds.setdefault(kind, len(kinds)) for kind in part.kinds], dtype=np.uint16)
        for name, column in part.columns.items():
            pieces.setdefault(name, []).append(numbers[column] if name == "kind" else column)
        rejections += part.rejections
        faults += part.faults
    merged = {name: np.concatenate(pieces.pop(name)) for name in list(pieces)}  # one at a time: less memory
    columns = dict(_compact(merged, len(tasks[0].members.labels)))
    columns["losses"] = np.frombuffer(json.dumps([rejections, faults], separators=(",", ":")).encode(), np.uint8)
    members = tasks[0].members
    return Head(members, tuple(entries), tuple(kinds), None, _digest(members, entries, columns)), columns


def _compact(merged: Columns, num_labels: int) -> Iterator[tuple[str, Column]]:
    for name in ("size", "kind", "offset", "length"):
        yield name, narrow(merged.pop(name))
    yield "key_hash", merged.pop("key_hash")
    for name in ("stem", *(f"label{i}" for i in range(num_labels))):
        yield from Strings.pack(merged.pop(f"{name}.lengths"), merged.pop(f"{name}.bytes")).columns(name).items()
        if merged.get(f"{name}.length", np.empty(0)).any():  # some labels are too long to be kept in the index
            for part in ("offset", "length"):
                yield f"{name}.{part}", narrow(merged.pop(f"{name}.{part}"))


def _digest(members: SampleFields, shards: Sequence[Shard], columns: Columns) -> str:
    """Return a hash of everything that plans depend on. Locations and dates of the shards do not change the hash."""
    asked = [
        members.image,
        members.target,
        members.limits.max_pixels,
        members.limits.max_bytes,
        *members.limits.reading.formats,
    ]
    said = [(s.label, s.fingerprint.num_bytes, s.fingerprint.digest, s.num_samples) for s in shards]
    hashed = blake2b(json.dumps([asked, said]).encode(), digest_size=16)
    for name in ("key_hash", "size"):
        column = columns[name]
        hashed.update(column.dtype.str.encode())
        hashed.update(np.ascontiguousarray(column).data)
    return hashed.hexdigest()
