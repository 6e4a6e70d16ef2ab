"""Webdataset shards: tar members to headers, every fault an account, and the bytes of a member when its place is known.

A sample is a run of members that share everything up to the first dot of the file name; the rest is the member's extension.
Tar headers are read by the standard library; grouping is ours, because what a broken shard loses has to be named.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from patchpack.errors import DecodeError, SourceError, TargetError
from patchpack.stream.header import read_size, read_size_at
from patchpack.stream.labels import decode_target
from patchpack.types import Event, Header, Inline, Rejection, ShardFault

_UNREADABLE = (OSError, EOFError, tarfile.TarError)


@dataclass(frozen=True)
class Members:
    """Which members of a sample are asked for; only these are ever opened.

    Attributes:
        image: extensions of the image, the first present is taken.
        target: extension of the label, None for none.
        max_pixels: limit checked on the image header.
    """

    image: tuple[str, ...]
    target: str | None
    max_pixels: int


class Slice(NamedTuple):
    """Location of a sample in a seekable shard: (offset, length) in bytes of its image and of its label."""

    shard: int
    image: tuple[int, int]
    target: tuple[int, int] | None


class _Member(NamedTuple):
    name: str
    where: tuple[int, int]  # offset, length
    data: bytes | None  # held only where the shard cannot seek


@dataclass
class _Group:
    stem: str
    members: dict[str, _Member] = field(default_factory=dict)
    fault: str = ""


def is_seekable(url: str) -> bool:
    """True for a local, uncompressed tar file: its members can be read again by offset."""
    return "://" not in url and not url.startswith("pipe:") and not url.lower().endswith((".gz", ".tgz", ".bz2", ".xz"))


def scan_shard(url: str, number: int, label: str, members: Members) -> Iterator[Event]:
    """Headers of one shard in order; a pure function of the file.

    Args:
        url: local path, or anything webdataset's ``gopen`` opens.
        number: the shard's place in the list, for locations.
        label: its name in keys and reports.
        members: what is asked for.

    Yields:
        A `Header` per sample, a `Rejection` per sample that cannot be used, and at most one `ShardFault`, last.
    """
    fault = None
    file = None
    try:
        file = _open(url)
        fault = yield from (
            _scan_seekable(file, number, label, members) if is_seekable(url) else _scan_stream(file, label, members)
        )
        file.close()  # a command that failed says so here
    except _UNREADABLE as error:
        fault = fault or f"cannot be read: {type(error).__name__}: {error}"
    finally:
        if file is not None:
            with suppress(OSError):
                file.close()
    if fault:
        yield ShardFault(label, fault)


def _open(url: str) -> Any:
    if "://" not in url and not url.startswith("pipe:"):
        return open(url, "rb")
    from webdataset.gopen import gopen  # costs 0.7 s to import: only where a URL or a pipe is given

    return gopen(url, "rb")


def _scan_seekable(file: BinaryIO, number: int, label: str, asked: Members) -> Generator[Event, None, str | None]:
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    grouped = _Grouper(label, asked)
    fault = None
    try:
        tar = tarfile.open(fileobj=file, mode="r:", tarinfo=_TarHeader)  # noqa: SIM115  # the file is the caller's
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header it saw
            if not info.isreg():
                continue
            begin = info.offset_data
            if begin + info.size > end:
                fault = f"ends inside {info.name} (it announces {info.size} bytes, {max(0, end - begin)} are there)"
                grouped.cut(info.name)
                break
            for group in grouped.add(_Member(info.name, (begin, info.size), None)):
                yield _seekable_event(group, file, number, label, asked)
        fault = fault or _unread_rest(tar)
    except _UNREADABLE as error:
        fault = f"is not a whole tar file: {error}"
    for group in grouped.close():
        yield _seekable_event(group, file, number, label, asked)
    return fault


def _scan_stream(file: BinaryIO, label: str, asked: Members) -> Generator[Event, None, str | None]:
    grouped = _Grouper(label, asked)
    fault = None
    try:
        tar = tarfile.open(fileobj=file, mode="r|*", tarinfo=_TarHeader)  # noqa: SIM115
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]
            if not info.isreg():
                continue
            data = None
            if asked_for(info.name, asked):
                try:
                    data = tar.extractfile(info).read()  # type: ignore[union-attr]  # it is a regular file
                except _UNREADABLE as error:
                    fault = f"ends inside {info.name} ({error})"
                    grouped.cut(info.name)
                    break
            for group in grouped.add(_Member(info.name, (0, info.size), data)):
                yield _inline_event(group, label, asked)
        fault = fault or _unread_rest(tar)
    except _UNREADABLE as error:
        fault = f"is not a whole tar file: {error}"
    for group in grouped.close():
        yield _inline_event(group, label, asked)
    return fault


class _TarHeader(tarfile.TarInfo):
    """A tar header, or a `tarfile.ReadError` that says why there is none.

    The standard library takes every block that is no header for the end of the archive, in silence.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        begin = tar.offset
        try:
            info = super().fromtarfile(tar)
        except (tarfile.EOFHeaderError, tarfile.ReadError, OSError, EOFError):  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            lost = f"no end marker at byte {begin}, what followed is lost" if begin else "it is empty"
            raise tarfile.ReadError(lost) from None
        except Exception as error:
            raise tarfile.ReadError(f"no valid header at byte {begin} ({error}), what follows was not read") from None
        if info.size < 0:
            raise tarfile.ReadError(f"{info.name} announces {info.size} bytes, what follows was not read")
        return info


def _unread_rest(tar: tarfile.TarFile) -> str | None:
    """What stands behind the end marker, where nothing but zeros should."""
    while chunk := tar.fileobj.read(1 << 20):
        if chunk.strip(b"\0"):
            return f"goes on after its end marker at byte {tar.offset} (tar files put together?), what follows was not read"
    return None


class _Grouper:
    """Members in, whole samples out: a sample is whole when a member of another one begins."""

    def __init__(self, label: str, asked: Members) -> None:
        self._label, self._asked = label, asked
        self._open: _Group | None = None
        self._done: set[str] = set()

    def add(self, member: _Member) -> Iterator[_Group]:
        stem, extension = split_name(member.name)
        if self._open is None or stem != self._open.stem:
            yield from self.close()
            self._open = _Group(stem)
            if stem in self._done:
                self._open.fault = "this key came before in the same shard: its members are doubled or not side by side"
        group = self._open
        if extension in group.members:
            group.fault = group.fault or f"two members named {member.name}"
        group.members[extension] = member

    def cut(self, name: str) -> None:
        """The shard ends inside this member: its sample is not whole."""
        if self._open is None or self._open.stem != split_name(name)[0]:
            return  # a sample of which nothing arrived; the shard's fault names the member
        if asked_for(name, self._asked):
            self._open.fault = self._open.fault or f"the shard ends inside {name}"

    def close(self) -> Iterator[_Group]:
        if self._open is not None:
            self._done.add(self._open.stem)
            group, self._open = self._open, None
            yield group


def split_name(name: str) -> tuple[str, str]:
    """Member name to (stem, extension): the stem runs to the first dot of the file name, a leading dot not counted.

    >>> split_name("a/b.c/img.seg.PNG")
    ('a/b.c/img', 'seg.png')
    """
    folder, slash, base = name.rpartition("/")
    dot = base.find(".", 1)
    if dot < 0:
        return name, ""
    return folder + slash + base[:dot], base[dot + 1 :].lower()


def asked_for(name: str, asked: Members) -> bool:
    """True if a member of this name is ever opened."""
    extension = split_name(name)[1]
    return extension in asked.image or (asked.target is not None and extension == asked.target)


def _chosen(group: _Group, label: str, asked: Members) -> tuple[str, _Member, _Member | None] | Rejection:
    """(key, image member, label member), or why this sample cannot be used."""
    key = f"{label}/{group.stem}"
    image = next((group.members[e] for e in asked.image if e in group.members), None)
    member = image.name if image else ""
    if group.fault:
        return Rejection(label, key, member, "read", group.fault)
    if image is None:
        has = ", ".join(sorted(group.members))
        return Rejection(label, key, "", "read", f"no image member ({';'.join(asked.image)}), it has: {has}")
    target = None if asked.target is None else group.members.get(asked.target)
    if asked.target is not None and target is None:
        has = ", ".join(sorted(group.members))
        return Rejection(label, key, member, "target", f"no label member {asked.target!r}, it has: {has}")
    return key, image, target


def _seekable_event(group: _Group, file: BinaryIO, number: int, label: str, asked: Members) -> Event:
    chosen = _chosen(group, label, asked)
    if isinstance(chosen, Rejection):
        return chosen
    key, image, target = chosen
    begin, length = image.where
    here = file.tell()

    def read(offset: int, count: int) -> bytes:
        file.seek(begin + offset)
        return file.read(count)

    try:
        size = read_size_at(read, length, max_pixels=asked.max_pixels)
    except DecodeError as error:
        return Rejection(label, key, image.name, "header", str(error))
    finally:
        file.seek(here)
    return Header(key, label, image.name, size, Slice(number, image.where, target.where if target else None))


def _inline_event(group: _Group, label: str, asked: Members) -> Event:
    chosen = _chosen(group, label, asked)
    if isinstance(chosen, Rejection):
        return chosen
    key, image, target = chosen
    assert image.data is not None  # asked for, so it was read
    try:
        size = read_size(image.data, max_pixels=asked.max_pixels)
    except DecodeError as error:
        return Rejection(label, key, image.name, "header", str(error))
    try:
        value = decode_target(asked.target or "", target.data or b"") if target else None
    except TargetError as error:
        return Rejection(label, key, image.name, "target", str(error))
    return Header(key, label, image.name, size, Inline(image.data, value))


class ShardReader:
    """Location to (image bytes, target). Picklable; every process opens its own files."""

    def __init__(self, urls: list[str], target: str | None) -> None:
        self._urls, self._target = urls, target
        self._files: dict[int, int] = {}  # descriptors: a garbage collector would close file objects with a warning

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)

    def __call__(self, location: Slice | Inline) -> tuple[Any, Any]:
        """See `patchpack.paint.painter.Fetch`."""
        if isinstance(location, Inline):
            return location.image, location.target
        return self._read(location.shard, location.image), self.target(location)

    def target(self, location: Slice | Inline) -> Any:
        """The target alone."""
        if isinstance(location, Inline):
            return location.target
        if location.target is None:
            return None
        return decode_target(self._target or "", self._read(location.shard, location.target))

    def _read(self, shard: int, where: tuple[int, int]) -> bytes:
        offset, length = where
        file = self._files.get(shard)
        if file is None:
            if len(self._files) >= 64:
                os.close(self._files.pop(next(iter(self._files))))
            # kept open between samples
            file = self._files[shard] = os.open(self._urls[shard], os.O_RDONLY | getattr(os, "O_BINARY", 0))
        data = _read_at(file, length, offset)
        if len(data) != length:
            raise SourceError(f"{self._urls[shard]} has changed: {len(data)} of {length} bytes at {offset}")
        return data


def _read_at(file: int, length: int, offset: int) -> bytes:
    if hasattr(os, "pread"):  # does not move the place in the file, which forked workers share
        return os.pread(file, length, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.read(file, length)


def shard_labels(urls: list[str]) -> list[str]:
    """A name per shard for keys and reports: its file name, with as many parent folders as it takes to tell them apart.

    Stable across machines: what lies above the folder that differs does not enter.
    """
    parts = [Path(url.split("://")[-1]).parts or (url,) for url in urls]
    if len(set(parts)) != len(parts):
        twice = next(url for url, path in zip(urls, parts, strict=True) if parts.count(path) > 1)
        raise SourceError(f"shard {twice} is listed twice: its keys would repeat within one pass")
    depth = 1
    while True:
        labels = ["/".join(p[-depth:]) for p in parts]
        if len(set(labels)) == len(labels):
            return labels
        depth += 1
