"""Tar files: read at random and as a stream, by us and by the standard library; members to samples, by us and by a twin."""

from __future__ import annotations

import gzip
import io
import tarfile
from functools import cache, lru_cache
from itertools import groupby
from typing import Any, NamedTuple
from zlib import crc32

from PIL import Image

from patchpack.errors import DecodeError, TargetError
from patchpack.image.size import read_size
from patchpack.losses import Rejection, ShardFault
from patchpack.stream.sample.fields import Limits, SampleFields
from patchpack.stream.tar.byte_reader import BLOCK, SeekableReader, StreamReader
from patchpack.stream.tar.members import UNREADABLE, Member, read_members
from patchpack.stream.tar.reader import ShardReader, Slice
from patchpack.stream.tar.shards import scan_shard
from patchpack.types import Event, Header

from .files import Scratch
from .target import Target

ASKED = SampleFields(("jpg", "bmp"), ("cls", "json"), limits=Limits(max_pixels=1 << 20))
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)

Found = list[tuple[str, tuple[int, int]]]


class Drips:
    """A file object with nothing but a `read` that gives less than asked for."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(data), most

    def read(self, count: int) -> bytes:
        """Some."""
        return self._file.read(min(count, self._most))


def check_tar(data: bytes) -> None:
    """First byte: whether header checksums are made right, and how the stream comes. The rest is the archive.

    Every way of reading gives the same members and bytes, and a fault or none; members are the standard library's as far as
    ours go, and all of them where there is no fault.
    """
    flags, archive = archive_of(data)
    members, fault = by_offset(archive)
    if not is_packed(archive):
        way = (flags >> 1) % 3
        file: Any = io.BytesIO(archive if way < 2 else gzip.compress(archive, 1))
        streamed, stream_fault = as_stream(Drips(archive, 1 + 37 * (flags >> 3)) if way == 1 else file)
        assert streamed == [(m.name, m.where, m.fault, content(archive, m)) for m in members]
        assert bool(stream_fault) == bool(fault), (stream_fault, fault)
    theirs = by_the_library(archive)
    ours = [(m.name, m.where) for m in members if not m.fault]
    assert ours == theirs[: len(ours)], (ours, theirs, fault)
    assert fault or len(ours) == len(theirs), (ours, theirs)


def check_samples(data: bytes) -> None:
    """Input as for `check_tar`. Samples are what a twin makes of the members, whether scanned as a file or as a stream."""
    _, archive = archive_of(data)
    members, fault = by_offset(archive)
    scanned(archive, members, bool(fault))


def archive_of(data: bytes) -> tuple[int, bytes]:
    """Flags and archive."""
    flags, archive = (data or b"\0")[0], data[1:]
    return flags, summed(archive) if flags & 1 else archive


def is_packed(archive: bytes) -> bool:
    """True for what a stream would unpack first, and a file not."""
    return archive[:3] in (b"\x1f\x8b\x08", b"BZh") or archive[:4] in (b"\xfd7zX", b"\x5d\0\0\x80")


def content(archive: bytes, member: Member) -> bytes | None:
    """The bytes that belong to a member."""
    begin, size = member.where
    return None if member.fault else archive[begin : begin + size]


def by_offset(archive: bytes) -> tuple[list[Member], str]:
    """SampleFields, and the fault behind them."""
    members: list[Member] = []
    try:
        for member in read_members(SeekableReader(io.BytesIO(archive))):
            begin, size = member.where
            assert member.data is None
            assert member.fault or 0 <= begin <= begin + size <= len(archive)
            members.append(member)
    except UNREADABLE as error:
        return members, str(error) or type(error).__name__
    return members, ""


def as_stream(file: Any) -> tuple[list[tuple[str, tuple[int, int], str, bytes | None]], str]:
    """The same, with the bytes that were held."""
    found: list[tuple[str, tuple[int, int], str, bytes | None]] = []
    try:
        found.extend((m.name, m.where, m.fault, m.data) for m in read_members(StreamReader(file), lambda *_: True))
    except UNREADABLE as error:
        return found, str(error) or type(error).__name__
    return found, ""


def by_the_library(archive: bytes) -> Found:
    """Regular files that `tarfile` finds and that lie within the archive whole, up to whatever stops it."""
    found: Found = []
    try:
        tar = tarfile.open(fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8")  # noqa: SIM115
        last = -1
        while (info := tar.next()) is not None:
            begin, stop = info.offset_data, info.offset_data + info.size
            if info.size < 0 or stop > len(archive) or info.offset <= last:
                break
            last = info.offset
            if info.isreg() and not info.issparse():
                found.append((info.name, (begin, info.size)))
    except Exception:  # whatever its parsers raise
        pass
    return found


# ------------------------------------------------------------------------------------------------------------- samples


class Sample(NamedTuple):
    """What becomes of one run of members: its places, or None where it cannot be used."""

    key: str
    places: tuple[tuple[int, int], ...] | None


def scanned(archive: bytes, members: list[Member], fault: bool) -> list[Event]:
    """The events of a file, which are those of the twin, and of a stream."""
    scratch = Scratch.get()
    path = scratch.write("s.tar", archive)
    events = list(scan_shard(path, 0, "s", ASKED))
    expected = by_the_twin(archive, members)
    got = [sample_of(event) for event in events if not isinstance(event, ShardFault)]
    if fault and len(got) == len(expected) and got and got[-1].places is None:  # the shard ends inside it
        expected[-1] = expected[-1]._replace(places=None)
    assert got == expected, (got, expected)
    assert [isinstance(event, ShardFault) for event in events] == [False] * len(expected) + [True] * fault
    if is_packed(archive):
        return events
    reader = ShardReader([path], ASKED)
    flowing = list(scan_shard(scratch.write("s.tar.gz", archive), 0, "s", ASKED))  # not packed, but the name makes it a stream
    assert len(flowing) == len(events)
    for one, other in zip(events, flowing, strict=True):
        if isinstance(one, Header):
            try:
                read = reader(one.location)
            except TargetError:
                assert isinstance(other, Rejection)
                assert (other.key, other.stage) == (one.key, "target")
                continue
            assert isinstance(other, Header)
            assert one[:4] == other[:4]
            assert repr(read) == repr(reader(other.location))
        elif isinstance(one, Rejection):
            assert isinstance(other, Rejection)
            assert one[:4] == other[:4]
        else:
            assert type(one) is type(other)
    return events


def sample_of(event: Event) -> Sample:
    """What an event says."""
    if isinstance(event, Header):
        assert isinstance(event.location, Slice)
        return Sample(event.key, (event.location.image, *event.location.labels))  # type: ignore[arg-type]  # places, in a shard
    assert isinstance(event, Rejection)
    return Sample(event.key, None)


def by_the_twin(archive: bytes, members: list[Member]) -> list[Sample]:
    """Runs of equal stems, each judged alone; what is no file and not asked for is as if it were not there."""
    made, done = [], set()
    asked = {*ASKED.image, *ASKED.labels}
    there = [member for member in members if not member.fault or split(member.name)[1] in asked]
    for stem, run in groupby(there, lambda member: split(member.name)[0]):
        by_extension: dict[str, Member] = {}
        bad = stem in done
        done.add(stem)
        for member in run:
            extension = split(member.name)[1]
            bad |= extension in by_extension or bool(member.fault)
            by_extension[extension] = member
        image = next((by_extension[e] for e in ASKED.image if e in by_extension), None)
        labels = [by_extension[e] for e in ASKED.labels if e in by_extension]
        if bad or image is None or len(labels) < len(ASKED.labels) or not is_image(content(archive, image) or b""):
            made.append(Sample(f"s/{stem}", None))
        else:
            made.append(Sample(f"s/{stem}", (image.where, *(m.where for m in labels))))
    return made


def split(name: str) -> tuple[str, str]:
    """Stem and extension: the first dot of the last part of the path, if that is not its first character."""
    folder, slash, file = name.rpartition("/")
    first, rest = file[:1], file[1:]
    stem, _, extension = rest.partition(".")
    return folder + slash + first + stem, extension.lower()


@lru_cache(256)
def is_image(data: bytes) -> bool:
    """True for one with a size."""
    try:
        read_size(data, max_pixels=ASKED.limits.max_pixels)
    except DecodeError:
        return False
    return True


# ------------------------------------------------------------------------------------------------- contents name their owner


def check_shard(data: bytes) -> None:
    """The bytes are edits of a list of members whose contents begin with what their name begins with, and of their archive.

    Whatever is lost, doubled, moved or cut: a sample that arrives has an image and labels of its own, nothing that is whole
    goes missing without an event or a fault, and as a stream it is the same.
    """
    archive, stems = built(data)
    members, fault = by_offset(archive)
    events = scanned(archive, members, bool(fault))
    reader = ShardReader([Scratch.get().path("s.tar")], ASKED)
    seen = set()
    for event in events:
        if isinstance(event, ShardFault):
            continue
        seen.add(event.key[2:])
        if isinstance(event, Header):
            assert isinstance(event.location, Slice)
            begin, _ = event.location.image
            owners = {OWNERS.get(archive[begin + 6 : begin + 10])}
            try:
                target = reader.target(event.location)
                owners |= {OWNERS.get(number(target["cls"])), OWNERS.get(number(target["json"]["of"]))}
            except (TargetError, TypeError, KeyError):
                pass  # cut, or written over
            assert owners <= {event.key[2:], None}, (event.key, owners)
    assert fault or seen == stems, (seen, stems)


STEMS = ("a", "b/a", "b")


def number(value: Any) -> bytes:
    """What names the owner of a label."""
    return value.to_bytes(4, "little") if type(value) is int and 0 <= value < 1 << 32 else b""


def own(stem: str) -> bytes:
    """Four bytes that are nobody else's."""
    return crc32(stem.encode()).to_bytes(4, "little")


OWNERS = {own(stem): stem for stem in STEMS}


class Entry(NamedTuple):
    """A member as it will be written; `size` is what its header says."""

    stem: str
    extension: str
    data: bytes
    size: int
    kind: bytes = tarfile.REGTYPE


def whole() -> list[Entry]:
    """Samples with nothing wrong."""
    made = []
    for stem in STEMS:
        token = b"%d" % int.from_bytes(own(stem), "little")
        for extension, data in (("jpg", image_of(own(stem))), ("cls", token), ("json", b'{"of":%s}' % token)):
            made.append(Entry(stem, extension, data, len(data)))
    made.insert(2, Entry(STEMS[0], "txt", b"not asked for", 13))
    return made


def image_of(token: bytes) -> bytes:
    """The segments of a JPEG up to its pixels, the first one a comment of four bytes."""
    return plain()[:2] + b"\xff\xfe\0\x06" + token + plain()[2:]


@cache
def plain() -> bytes:
    """A file with its tables cut out, so that it fits into a block."""
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "JPEG")
    data = file.getvalue()
    return (
        data[: data.index(b"\xff\xdb")]
        + data[data.index(b"\xff\xc0") : data.index(b"\xff\xc4")]
        + data[data.index(b"\xff\xda") :]
    )


@lru_cache(256)
def header_of(entry: Entry, format: int) -> bytes:
    """As the standard library writes it."""
    info = tarfile.TarInfo(f"{entry.stem}.{entry.extension}" if entry.extension else entry.stem)
    info.type, info.mtime, info.uname = entry.kind, 1.5 if format == tarfile.PAX_FORMAT else 1, "root"
    info.size = entry.size if entry.kind == tarfile.REGTYPE else 0
    return info.tobuf(format)


def built(program: bytes) -> tuple[bytes, set[str]]:
    """An archive, and the stems of its files. Edits are three bytes each; those of blocks come last, one cuts a block out."""
    entries, format = whole(), tarfile.GNU_FORMAT
    blocks: list[tuple[int, int, int]] = []
    for at in range(0, len(program) - 2, 3):
        edit, one, two = program[at : at + 3]
        i, j = one % len(entries), two % len(entries)
        if edit % 16 == 0 and len(entries) > 1:
            del entries[i]
        elif edit % 16 == 1 and len(entries) < 60:
            entries.insert(j, entries[i])
        elif edit % 16 == 2:
            entries[i], entries[j] = entries[j], entries[i]
        elif edit % 16 == 3:
            entries.insert(j, entries.pop(i))
        elif edit % 16 == 4:
            entries[i] = entries[i]._replace(extension=("jpg", "bmp", "cls", "json", "txt", "", "seg.jpg", "JPG")[two % 8])
        elif edit % 16 == 5:
            entries[i] = entries[i]._replace(kind=(tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.REGTYPE)[two % 4])
        elif edit % 16 == 6:
            entries[i] = entries[i]._replace(size=two * 2)
        elif edit % 16 == 7:
            format = FORMATS[one % 3]
        elif edit % 16 >= 10:
            blocks.append((edit % 16, one, two))
    pieces = []
    for entry in entries:
        pieces.append(header_of(entry, format))
        pieces.append(entry.data.ljust(BLOCK, b"\0") if entry.kind == tarfile.REGTYPE else b"")
    archive = bytearray(b"".join(pieces) + bytes(20 * BLOCK))
    shorter = False
    for edit, one, two in blocks:
        place = one * BLOCK % len(archive)
        if edit == 10:
            archive[(place + 2 * two) % len(archive)] ^= 1 + two % 255
        elif edit == 11:
            archive[place : place + BLOCK] = bytes(BLOCK)
        elif edit == 12:
            archive[place:place] = bytes([two]) * BLOCK
        elif edit == 13 and not shorter:
            del archive[place : place + BLOCK]
            shorter = True
        elif edit == 14 and len(archive) > BLOCK:
            del archive[-(1 + one * two) % len(archive) :]
        archive = archive or bytearray(1)
    return bytes(archive), {entry.stem for entry in entries if entry.kind == tarfile.REGTYPE}


# --------------------------------------------------------------------------------------------------------------- seeds


def summed(archive: bytes) -> bytes:
    """With the checksum of every block that looks like a header made right."""
    made = bytearray(archive)
    for at in range(0, len(made) - BLOCK + 1, BLOCK):
        if made[at + 257 : at + 262] == b"ustar":
            made[at + 148 : at + 156] = b" " * 8
            made[at + 148 : at + 156] = b"%06o\0 " % (sum(made[at : at + BLOCK]) & 0o777777)
    return bytes(made)


def tars() -> list[bytes]:
    """Archives of a few members in every format, with all kinds of headers, each as it is and with checksums made right."""
    made = [archive_with(*((header_of(entry, format), entry.data) for entry in whole()[:4])) for format in FORMATS]
    pieces = []
    for kind, name, records in (
        (tarfile.REGTYPE, "folder/" * 20 + "a.cls", {}),
        (tarfile.DIRTYPE, "folder", {}),
        (tarfile.SYMTYPE, "a.json", {}),
        (tarfile.REGTYPE, "b.cls", {"comment": "c", "size": "3"}),
        (tarfile.AREGTYPE, "é.jpg", {"hdrcharset": "BINARY"}),
        (tarfile.CONTTYPE, "c.json", {"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}),
        (tarfile.REGTYPE, "c.json", {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.pax_headers = kind, "b.cls" if kind == tarfile.SYMTYPE else "", records
        data = b"2\n1\n" if kind in (tarfile.REGTYPE, tarfile.CONTTYPE) else b""
        info.size = len(data)
        pieces.append((info.tobuf(tarfile.PAX_FORMAT if records else tarfile.GNU_FORMAT), data))
    ordinary = (header_of(whole()[0], tarfile.GNU_FORMAT), whole()[0].data)
    made += [archive_with(ordinary, piece, ordinary) for piece in pieces]
    shared = tarfile.TarInfo.create_pax_global_header({"comment": "of all", "mtime": "3"})
    sparse = bytearray(tarfile.TarInfo("s.cls").tobuf(tarfile.GNU_FORMAT))
    sparse[156:157], sparse[386:410], sparse[483:495] = b"S", b"00000000000\0" * 2, b"00000000400\0"
    made += [shared + made[0], archive_with((summed(bytes(sparse)), b""), ordinary)]
    made += [archive_with((summed(with_size(ordinary[0], size)), ordinary[1])) for size in SIZES]
    return [bytes([flags]) + archive for flags in FLAGS for archive in made]


FLAGS = (0, 11, 158, 159)  # checksums as they are, and right; in one piece, packed, and in drips
SIZES = (b"         69 ", b"0000000_105\0", b"+0000000105\0", b"-0000000105\0", b"00000000109\0", b"\0" * 12, b"000000000105")


def with_size(header: bytes, field: bytes) -> bytes:
    """The same header with this in the place of its size."""
    return header[:124] + field + header[136:]


def archive_with(*members: tuple[bytes, bytes]) -> bytes:
    """Headers and contents."""
    return b"".join(header + data + bytes(-len(data) % BLOCK) for header, data in members) + bytes(2 * BLOCK)


def programs() -> list[bytes]:
    """Every edit once, and a few together."""
    single = [bytes([edit, one, two]) for edit in range(16) for one, two in ((0, 1), (5, 9), (13, 77), (30, 200))]
    return [b"", *single, *(b"".join(single[i::16]) for i in range(16))]


TAR = Target("tar", check_tar, tars, 10240)
SAMPLES = Target("samples", check_samples, tars, 10240)
SHARD = Target("shard", check_shard, programs, 60)
