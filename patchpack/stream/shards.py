"""Webdataset shards: samples to headers, and the bytes of a member when its place is known."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from patchpack.errors import DecodeError, SourceError, TargetError
from patchpack.paint.decode import too_many_bytes
from patchpack.report import Rejection, ShardFault
from patchpack.stream.archive import UNREADABLE, CutError, Member, read_members
from patchpack.stream.header import read_size, read_size_at
from patchpack.stream.labels import decode_target, join
from patchpack.stream.names import nearest
from patchpack.stream.remote import RangeTape, RemoteFile
from patchpack.stream.source import Reader, digest
from patchpack.stream.tape import MAGIC_BYTES, SeekableTape, StreamTape, Tape, compression_of
from patchpack.stream.tar import Group, Grouper, Members, asked_for
from patchpack.types import Clip, Event, Header, Inline

BUFFER_BYTES = 1 << 14  # small members, the header of the next image and its start come in one read of the file


class Slice(NamedTuple):
    """Location of a sample in a seekable shard: (offset, length) in bytes of its image and of its labels.

    A clip has a pair for each frame. A label may be there itself, as bytes: an index holds the small ones.
    """

    shard: int
    image: tuple[int, int] | tuple[tuple[int, int], ...]
    labels: tuple[tuple[int, int] | bytes, ...]


class _Frames:
    """The frames of a clip, each read when it is asked for."""

    def __init__(self, read: Callable[[tuple[int, int]], bytes], places: tuple[tuple[int, int], ...]) -> None:
        self._read, self._places = read, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> bytes:
        return self._read(self._places[number])


def is_compressed(url: str) -> bool:
    """True for a name of a compressed file: what lies at an offset is known when all before it is unpacked."""
    return url.lower().endswith((".gz", ".tgz", ".bz2", ".xz"))


def starts_compressed(read: Callable[[int, int], bytes]) -> bool:
    """True for a file that is compressed by its first bytes, whatever its name; `read` takes (offset, length)."""
    return bool(compression_of(read(0, MAGIC_BYTES)))


def scan_shard(url: str, number: int, label: str, members: Members, tape: RangeTape | None = None) -> Iterator[Event]:
    """Headers of one shard in order; a pure function of the file.

    Args:
        url: local path, or anything webdataset's ``gopen`` opens; gzip, bzip2 and xz are known by their first bytes.
        number: the shard's place in the list, for locations.
        label: its name in keys and reports.
        members: what is asked for.
        tape: the shard by ranges, where it is a URL and its samples are to be found again by offset; None reads it as a stream.

    Yields:
        A `Header` per sample, a `Rejection` per sample that cannot be used, and at most one `ShardFault`, last.

    Raises:
        SourceError: of the tape. What a network loses for a moment is no fault of the shard.
    """
    fault = None
    file = None
    if tape is not None:
        fault = yield from _scan_by_offset(tape, tape.read, number, label, members)
        if fault:
            yield ShardFault(label, fault)
        return
    try:
        file = _open(url)
        fault = yield from (
            _scan_seekable(file, number, label, members) if _is_seekable(url, file) else _scan_stream(file, label, members)
        )
        file.close()  # a command that failed says so here
    except UNREADABLE as error:
        why = f"cannot be read: {type(error).__name__}: {error}"
        fault = f"{fault}; {why}" if fault else why
    finally:
        if file is not None:
            with suppress(OSError):
                file.close()
    if fault:
        yield ShardFault(label, fault)


def _open(url: str) -> Any:
    if is_local(url):
        return open(url, "rb", buffering=BUFFER_BYTES)
    from webdataset.gopen import gopen  # costs 0.7 s to import: only where a URL or a pipe is given

    return gopen(url, "rb")


def _is_seekable(url: str, file: Any) -> bool:
    """True for a local, uncompressed tar file: its members can be read again by offset."""
    if not is_local(url) or is_compressed(url):
        return False
    place = file.fileno()
    return not starts_compressed(lambda at, count: read_at(place, count, at))


def _scan_seekable(file: Any, number: int, label: str, asked: Members) -> Generator[Event, None, str | None]:
    place = file.fileno()  # past the buffer, which holds the next header and is not to be filled anew
    return _scan_by_offset(SeekableTape(file), lambda at, count: read_at(place, count, at), number, label, asked)


def _scan_by_offset(
    tape: Tape, read: Callable[[int, int], bytes], number: int, label: str, asked: Members
) -> Generator[Event, None, str | None]:
    return _scan(read_members(tape), lambda group: _offset_event(group, read, number, label, asked), asked)


def _scan_stream(file: Any, label: str, asked: Members) -> Generator[Event, None, str | None]:
    members = read_members(StreamTape(file), lambda name, size: asked_for(name, asked, size))
    return _scan(members, lambda group: _inline_event(group, label, asked), asked)


def _scan(members: Iterator[Member], event: Callable[[Group], Event], asked: Members) -> Generator[Event, None, str | None]:
    grouped = Grouper(asked)
    fault = None
    try:
        for member in members:
            whole = grouped.add(member)
            if whole is not None:
                yield event(whole)
    except CutError as error:
        fault = str(error)
        grouped.cut(error.name)
    except UNREADABLE as error:
        fault = f"is not a whole tar file: {error}"
    last = grouped.close()
    if last is not None:
        yield event(last)
    return fault


class _Chosen(NamedTuple):
    """The members of a sample that are asked for; `clip` where the images are the frames of one."""

    key: str
    images: list[Member]
    labels: list[Member]
    text: Member | None
    clip: bool


def _chosen(group: Group, label: str, asked: Members) -> _Chosen | Rejection:
    """What of a sample is asked for, or why it cannot be used."""
    key = f"{label}/{group.stem}"
    frames = asked.frames_of(group.members)
    images = [group.members[extension] for extension in frames or asked.images_of(group.members)]
    if images and not frames and not asked.several:
        images = [next((m for m in images if not m.fault), images[0])]
    member = images[0].name if len(images) == 1 else ""
    for image in images:
        if image.where[1] > asked.max_bytes:  # whatever else is wrong: such bytes were not even held
            return Rejection(label, key, image.name, "header", too_many_bytes(image.where[1], asked.max_bytes))
    if group.fault:
        return Rejection(label, key, member, "read", group.fault)
    if not images:
        has = ", ".join(sorted(group.members))
        return Rejection(label, key, "", "read", f"no image member ({';'.join((*asked.frames, *asked.image))}), it has: {has}")
    missing = [extension for extension in asked.labels if extension not in group.members]
    if missing:
        has = ", ".join(sorted(group.members))
        return Rejection(
            label, key, member, "target", f"no label member {missing[0]!r}, it has: {has}{nearest(missing[0], group.members)}"
        )
    labels = [group.members[extension] for extension in asked.labels]
    text = None if asked.text is None else group.members.get(asked.text.member)
    if asked.text is not None and text is None:
        has = ", ".join(sorted(group.members))
        return Rejection(label, key, member, "target", f"no text member {asked.text.member!r}, it has: {has}")
    if text is not None and text.where[1] > asked.max_bytes:
        return Rejection(label, key, text.name, "target", too_many_bytes(text.where[1], asked.max_bytes))
    for needed in (*images, *labels, *((text,) if text else ())):
        if needed.fault:
            return Rejection(label, key, needed.name, "read", needed.fault)
    return _Chosen(key, images, labels, text, bool(frames))


def _offset_event(group: Group, read: Callable[[int, int], bytes], number: int, label: str, asked: Members) -> Event:
    chosen = _chosen(group, label, asked)
    if isinstance(chosen, Rejection):
        return chosen
    key, images, labels, text, clip = chosen
    places = tuple(m.where for m in labels)

    def header(image: Member) -> Header:
        begin, length = image.where
        size = read_size_at(
            lambda at, count: read(begin + at, count), length, max_pixels=asked.max_pixels, formats=asked.reading.formats
        )
        return Header(key, label, image.name, size, Slice(number, image.where, places))

    sized = _together(images[:1] if clip else images, header, label, key)
    if isinstance(sized, Rejection):
        return sized
    if clip:  # the other frames are looked at when they are painted
        where = Slice(number, tuple(m.where for m in images), places)
        sized = sized._replace(member="", location=where, frames=len(images))
    if text is None:
        return sized
    data = read(*text.where)
    if len(data) != text.where[1]:
        return Rejection(label, key, text.name, "read", f"{len(data)} of {text.where[1]} bytes could be read")
    return _with_text(sized, data, text.name, asked)


def _with_text(sized: Header, data: bytes, member: str, asked: Members) -> Header | Rejection:
    """The header of a sample with the tokens of its text."""
    assert asked.text is not None
    try:
        return sized._replace(text=asked.text.tokens(asked.text.of(data)))
    except TargetError as error:
        return Rejection(sized.shard, sized.key, member, "target", str(error))


def _together(images: list[Member], header: Callable[[Member], Header], label: str, key: str) -> Header | Rejection:
    """The header of a sample of one image or several, made of those of its images."""
    headers: list[Header] = []
    for image in images:
        try:
            headers.append(header(image))
        except DecodeError as error:
            return Rejection(label, key, image.name, "header", str(error))
    if len(headers) == 1:
        return headers[0]
    return headers[0]._replace(rest=tuple(other._replace(part=part) for part, other in enumerate(headers[1:], 1)))


def _inline_event(group: Group, label: str, asked: Members) -> Event:
    chosen = _chosen(group, label, asked)
    if isinstance(chosen, Rejection):
        return chosen
    key, images, labels, text, clip = chosen
    target: Any = None

    def header(image: Member) -> Header:
        assert image.data is not None  # asked for, so it was read
        size = read_size(image.data, max_pixels=asked.max_pixels, formats=asked.reading.formats)
        return Header(key, label, image.name, size, Inline(image.data, target), 0, len(image.data))

    sized = _together(images[:1] if clip else images, header, label, key)
    if isinstance(sized, Rejection):  # the image is looked at first, as where labels are read later
        return sized
    if clip:
        held = [m.data or b"" for m in images]
        sized = sized._replace(
            member="", location=Inline(Clip(held), None), num_bytes=sum(map(len, held)), frames=len(images)
        )  # fmt: skip
    try:
        target = join(asked.target, [decode_target(e, m.data or b"") for e, m in zip(asked.labels, labels, strict=True)])
    except TargetError as error:
        return Rejection(label, key, images[0].name if len(images) == 1 else "", "target", str(error))
    rest = tuple(other._replace(location=other.location._replace(target=target)) for other in sized.rest)
    whole = sized._replace(location=sized.location._replace(target=target), rest=rest)
    return whole if text is None else _with_text(whole, text.data or b"", text.name, asked)


class ShardSource:
    """Webdataset shards. Keys are ``<shard file name>/<member stem>``."""

    def __init__(self, urls: list[str], members: Members) -> None:
        missing = [url for url in urls if is_local(url) and not os.path.isfile(url)]
        if missing:
            what = "is no file" if os.path.exists(missing[0]) else "is not there"
            where = in_working_folder(missing[0])
            raise SourceError(f"{len(missing)} of {len(urls)} shards are missing, the first is {missing[0]}: it {what}{where}")
        self.urls, self._members = urls, members
        self.labels = shard_labels(urls)
        self.fingerprint = digest(self.labels)
        self.name = self.labels[0] if len(urls) == 1 else f"{len(urls)} shards ({self.labels[0]} …)"
        self.reader: Reader = ShardReader(urls, members.without_text())
        self.num_parts = len(urls)

    def scan(self) -> Iterator[Event]:
        """See `Source`."""
        return self.scan_parts(range(self.num_parts))

    def scan_parts(self, parts: Sequence[int]) -> Iterator[Event]:
        """See `PartedSource`."""
        for number in parts:
            yield from scan_shard(self.urls[number], number, self.labels[number], self._members)


class ShardReader:
    """Location to (image bytes, target). Picklable; every process opens its own files."""

    def __init__(self, urls: list[str], members: Members) -> None:
        self._urls, self._members = urls, members
        # descriptors, as a garbage collector would close file objects with a warning
        self._files: dict[int, int | RemoteFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound now: modules are empty at the very end
        for file in self._files.values():
            if isinstance(file, int):
                close(file)

    def __call__(self, location: Slice | Inline) -> tuple[Any, Any]:
        """See `patchpack.paint.painter.Fetch`."""
        if isinstance(location, Inline):
            return location.image, location.target
        return self._image(location), self.target(location)

    def _image(self, location: Slice) -> Any:
        where: Any = location.image
        if isinstance(where[0], tuple):
            return Clip(cast(Any, _Frames(partial(self._read, location.shard), where)))
        return self._read(location.shard, where)

    def target(self, location: Slice | Inline) -> Any:
        """The target alone."""
        if isinstance(location, Inline):
            return location.target
        asked = self._members
        found = zip(asked.labels, location.labels, strict=True)
        return join(
            asked.target,
            [decode_target(e, at if isinstance(at, bytes) else self._read(location.shard, at)) for e, at in found],
        )

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
            raise SourceError(f"{self._urls[shard]} has changed: {len(data)} of {length} bytes at {offset}")
        return data

    def _kept_open(self, shard: int) -> int | RemoteFile:
        """A shard as it stays open between samples."""
        url = self._urls[shard]
        return open_descriptor(url) if is_local(url) else RemoteFile(url)


def open_descriptor(path: str) -> int:
    """For `read_at`."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def read_at(file: int, length: int, offset: int) -> bytes:
    """So many bytes of an open file, fewer only where it ends; the place in it, which forked workers share, stays."""
    if hasattr(os, "pread"):
        return os.pread(file, length, offset)
    before = os.lseek(file, 0, os.SEEK_CUR)
    os.lseek(file, offset, os.SEEK_SET)
    data = os.read(file, length)
    os.lseek(file, before, os.SEEK_SET)
    return data


def shard_labels(urls: list[str]) -> list[str]:
    """A name per shard for keys and reports: its file name, with as many parent folders as it takes to tell them apart.

    Stable across machines: what lies above the folder that differs does not enter.
    """
    parts = [Path(url.split("://")[-1]).parts or (url,) for url in urls]
    first: dict[str, str] = {}
    for url in urls:
        path = url.removeprefix("file://")
        real = os.path.realpath(path) if is_local(path) else url
        if real in first:
            also = "" if first[real] == url else f", as {first[real]} too"
            raise SourceError(f"shard {url} is listed twice{also}: its samples would repeat within one pass")
        first[real] = url
    depth = 1
    while True:
        labels = ["/".join(p[-depth:]) for p in parts]
        if len(set(labels)) == len(labels):
            return labels
        depth += 1


def is_local(url: str) -> bool:
    """True for a path on this machine."""
    return "://" not in url and not url.startswith("pipe:")


def in_working_folder(path: str) -> str:
    """For an error about a path that is not there: where a relative one was looked for."""
    return "" if os.path.isabs(path) or not is_local(path) else f" (the working folder is {os.getcwd()})"


def absolute(url: str) -> str:
    """The same shard for a process in another folder."""
    return os.path.abspath(url) if is_local(url) else url
