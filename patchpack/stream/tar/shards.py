"""Webdataset shards: the headers of their samples."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import BinaryIO, NamedTuple, cast

from patchpack.errors import DecodeError, TargetError
from patchpack.image.decode import too_many_bytes
from patchpack.image.size import read_size, read_size_at
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.sample.fields import SampleFields
from patchpack.stream.sample.labels import target_of
from patchpack.stream.sample.names import nearest, nearest_member
from patchpack.stream.tar.byte_reader import MAGIC_BYTES, ByteReader, SeekableReader, StreamReader, compression_of
from patchpack.stream.tar.grouping import Group, Grouper, asked_for
from patchpack.stream.tar.members import UNREADABLE, CutError, Member, read_members
from patchpack.stream.tar.reader import Slice, read_at
from patchpack.stream.tar.remote import RangeReader
from patchpack.stream.tar.urls import is_local
from patchpack.types import Clip, Event, Header, Inline

BUFFER_BYTES = 1 << 14  # one read of the file then covers small members, the header of the next image and its start


def is_compressed(url: str) -> bool:
    """Return True for the name of a compressed file. The members of such a file cannot be read by offset."""
    return url.lower().endswith((".gz", ".tgz", ".bz2", ".xz"))


def starts_compressed(read: Callable[[int, int], bytes]) -> bool:
    """Return True if the first bytes of a file show a compression. `read` takes (offset, length)."""
    return bool(compression_of(read(0, MAGIC_BYTES)))


def scan_shard(url: str, number: int, label: str, members: SampleFields, reader: RangeReader | None = None) -> Iterator[Event]:
    """Yield the events of one shard in order. The events depend on the file alone.

    Args:
        url: a local path, or a URL that webdataset's ``gopen`` opens. gzip, bzip2 and xz are recognised by their first bytes.
        number: number of the shard in the list of shards. It is stored in locations.
        label: name of the shard in keys and reports.
        members: the requested image, labels and text, and the limits.
        reader: a reader of ranges, for a remote shard whose locations must be offsets. Default None: the shard is read as a
            stream.

    Yields:
        A `Header` per usable sample, a `Rejection` per unusable sample, and at the end a `ShardFault` if the shard cannot be
        read to its end.

    Raises:
        SourceError: the reader of ranges failed. Such an error is not reported as a fault of the shard, because the network may
            have failed.
    """
    fault = None
    file = None
    if reader is not None:
        fault = yield from _scan_by_offset(reader, reader.read, number, label, members)
        if fault:
            yield ShardFault(label, fault)
        return
    try:
        file = _open(url)
        fault = yield from (
            _scan_seekable(file, number, label, members) if _is_seekable(url, file) else _scan_stream(file, label, members)
        )
        file.close()  # raises if a command failed
    except UNREADABLE as error:
        why = f"cannot be read: {type(error).__name__}: {error}"
        fault = f"{fault}; {why}" if fault else why
    finally:
        if file is not None:
            with suppress(OSError):
                file.close()
    if fault:
        yield ShardFault(label, fault)


def _open(url: str) -> BinaryIO:
    if is_local(url):
        return open(url, "rb", buffering=BUFFER_BYTES)
    from webdataset.gopen import gopen  # costs 0.7 s to import: only for a URL or a pipe

    opened: BinaryIO = gopen(url, "rb")
    return opened


def _is_seekable(url: str, file: BinaryIO) -> bool:
    """Return True for a local, uncompressed tar file, whose members can be read again by offset."""
    if not is_local(url) or is_compressed(url):
        return False
    place = file.fileno()
    return not starts_compressed(lambda at, count: read_at(place, count, at))


def _scan_seekable(file: BinaryIO, number: int, label: str, asked: SampleFields) -> Generator[Event, None, str | None]:
    place = file.fileno()  # without the buffer, which holds the next header and must keep it
    return _scan_by_offset(SeekableReader(file), lambda at, count: read_at(place, count, at), number, label, asked)


def _scan_by_offset(
    reader: ByteReader, read: Callable[[int, int], bytes], number: int, label: str, asked: SampleFields
) -> Generator[Event, None, str | None]:
    return _scan(read_members(reader), lambda group: _offset_event(group, read, number, label, asked), asked)


def _scan_stream(file: BinaryIO, label: str, asked: SampleFields) -> Generator[Event, None, str | None]:
    members = read_members(StreamReader(file), lambda name, size: asked_for(name, asked, size))
    return _scan(members, lambda group: _inline_event(group, label, asked), asked)


def _scan(
    members: Iterator[Member], event: Callable[[Group], Event], asked: SampleFields
) -> Generator[Event, None, str | None]:
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
        fault = f"is not a complete tar file: {error}"
    last = grouped.close()
    if last is not None:
        yield event(last)
    return fault


class _Chosen(NamedTuple):
    """The members of a sample that are read. `clip` is True if the images are the frames of a clip."""

    key: str
    images: list[Member]
    labels: list[Member]
    text: Member | None
    clip: bool


def _chosen(group: Group, label: str, asked: SampleFields) -> _Chosen | Rejection:
    """Return the requested members of a sample, or the rejection of the sample."""
    key = f"{label}/{group.stem}"
    frames = asked.frames_of(group.members)
    images = [group.members[extension] for extension in frames or asked.images_of(group.members)]
    if images and not frames and not asked.several:
        images = [next((m for m in images if not m.fault), images[0])]
    member = images[0].name if len(images) == 1 else ""
    for image in images:
        if image.where[1] > asked.limits.max_bytes:  # before other faults: such bytes were not even held
            return Rejection(label, key, image.name, "header", too_many_bytes(image.where[1], asked.limits.max_bytes))
    if group.fault:
        return Rejection(label, key, member, "read", group.fault)
    if not images:
        has = ", ".join(sorted(group.members))
        wanted = (*asked.frames, *asked.image)
        hint = nearest_member(wanted, group.members) if asked.image_given else ""
        return Rejection(label, key, "", "read", f"no image member ({';'.join(wanted)}), it has: {has}{hint}")
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
    if text is not None and text.where[1] > asked.limits.max_bytes:
        return Rejection(label, key, text.name, "target", too_many_bytes(text.where[1], asked.limits.max_bytes))
    for needed in (*images, *labels, *((text,) if text else ())):
        if needed.fault:
            return Rejection(label, key, needed.name, "read", needed.fault)
    return _Chosen(key, images, labels, text, bool(frames))


def _offset_event(group: Group, read: Callable[[int, int], bytes], number: int, label: str, asked: SampleFields) -> Event:
    chosen = _chosen(group, label, asked)
    if isinstance(chosen, Rejection):
        return chosen
    key, images, labels, text, clip = chosen
    places = tuple(m.where for m in labels)

    def header(image: Member) -> Header:
        begin, length = image.where
        size = read_size_at(
            lambda at, count: read(begin + at, count),
            length,
            max_pixels=asked.limits.max_pixels,
            formats=asked.limits.reading.formats,
        )
        return Header(key, label, image.name, size, Slice(number, image.where, places))

    sized = _together(images[:1] if clip else images, header, label, key)
    if isinstance(sized, Rejection):
        return sized
    if clip:  # the other frames are read when they are painted
        where = Slice(number, tuple(m.where for m in images), places)
        sized = sized._replace(member="", location=where, frames=len(images))
    if text is None:
        return sized
    data = read(*text.where)
    if len(data) != text.where[1]:
        return Rejection(label, key, text.name, "read", f"only {len(data)} of its {text.where[1]} bytes could be read")
    return _with_text(sized, data, text.name, asked)


def _with_text(sized: Header, data: bytes, member: str, asked: SampleFields) -> Header | Rejection:
    """Return the header of a sample after adding the tokens of its text, or a rejection."""
    assert asked.text is not None
    try:
        return sized._replace(text=asked.text.tokens(asked.text.of(data)))
    except TargetError as error:
        return Rejection(sized.shard, sized.key, member, "target", str(error))


def _together(images: list[Member], header: Callable[[Member], Header], label: str, key: str) -> Header | Rejection:
    """Return the header of a sample, made from the headers of its images."""
    headers: list[Header] = []
    for image in images:
        try:
            headers.append(header(image))
        except DecodeError as error:
            return Rejection(label, key, image.name, "header", str(error))
    if len(headers) == 1:
        return headers[0]
    return headers[0]._replace(rest=tuple(other._replace(part=part) for part, other in enumerate(headers[1:], 1)))


def _inline_event(group: Group, label: str, asked: SampleFields) -> Event:
    chosen = _chosen(group, label, asked)
    if isinstance(chosen, Rejection):
        return chosen
    key, images, labels, text, clip = chosen
    target: object = None

    def header(image: Member) -> Header:
        assert image.data is not None  # requested, so it was read
        size = read_size(image.data, max_pixels=asked.limits.max_pixels, formats=asked.limits.reading.formats)
        return Header(key, label, image.name, size, Inline(image.data, target), 0, len(image.data))

    sized = _together(images[:1] if clip else images, header, label, key)
    if isinstance(sized, Rejection):  # the image is checked before the labels, as in seekable shards
        return sized
    if clip:
        held = [m.data or b"" for m in images]
        sized = sized._replace(
            member="", location=Inline(Clip(held), None), num_bytes=sum(map(len, held)), frames=len(images)
        )  # fmt: skip
    try:
        target = target_of(asked.target, [m.data or b"" for m in labels])
    except TargetError as error:
        return Rejection(label, key, images[0].name if len(images) == 1 else "", "target", str(error))
    rest = tuple(other._replace(location=cast(Inline, other.location)._replace(target=target)) for other in sized.rest)
    whole = sized._replace(location=cast(Inline, sized.location)._replace(target=target), rest=rest)
    return whole if text is None else _with_text(whole, text.data or b"", text.name, asked)
