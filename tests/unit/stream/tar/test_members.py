"""Tar files read two ways: here, and by the standard library. Healthy ones give the same members, broken ones a named fault."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patchpack.stream.tar import members as archive
from patchpack.stream.tar.byte_reader import SeekableReader, StreamReader
from patchpack.stream.tar.members import UNREADABLE, CutError, Member, read_members

BLOCK = 512
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LINKS = (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)

Found = list[tuple[str, tuple[int, int], bytes]]


class Outcome(NamedTuple):
    """SampleFields that arrived whole, and the fault behind them."""

    members: Found
    fault: str


def by_the_library(data: bytes) -> Found:
    """What `tarfile` makes of an archive: regular files that lie within it whole, up to whatever stops it."""
    found: Found = []
    try:
        tar = tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8")  # noqa: SIM115
        while (info := tar.next()) is not None:
            begin, stop = info.offset_data, info.offset_data + info.size
            if info.size < 0 or stop > len(data):
                break
            if info.isreg() and not info.issparse():
                found.append((info.name, (begin, info.size), data[begin:stop]))
    except (tarfile.TarError, OSError, ValueError, OverflowError, IndexError):
        pass
    return found


def outcome(members: Iterator[Member], data: bytes | None = None) -> Outcome:
    """SampleFields with their bytes: from `data` by place, or held. What is no file has none, and says so."""
    found: Found = []
    try:
        for member in members:
            if member.fault:
                assert re.fullmatch(
                    r".* is (a .*link to .*|a device.*|a pipe.*|of a kind .*|stored with holes .*)", member.fault, re.S
                )
                assert member.data is None
                continue
            begin, size = member.where
            held = data[begin : begin + size] if data is not None else member.data
            assert held is not None
            found.append((member.name, member.where, held))
    except UNREADABLE as error:
        return Outcome(found, str(error))
    return Outcome(found, "")


class Drips:
    """A file object with nothing but a `read` that gives less than asked for."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file, self._most = io.BytesIO(data), most

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._most))


def everything(_: str, __: int) -> bool:
    return True


def seekable(data: bytes) -> Outcome:
    return outcome(read_members(SeekableReader(io.BytesIO(data))), data)


def streamed(file: Any) -> Outcome:
    return outcome(read_members(StreamReader(file), everything))


def in_every_way(data: bytes) -> Outcome:
    """The outcome, which does not depend on how the file is read."""
    ours = seekable(data)
    for other in (streamed(io.BytesIO(data)), streamed(Drips(data, 700)), streamed(io.BytesIO(gzip.compress(data, 1)))):
        assert other.members == ours.members
        assert bool(other.fault) == bool(ours.fault)
    return ours


# ---------------------------------------------------------------------------------------------------------- strategies

letters = st.text(st.sampled_from("ab.0-_ äß漢🦆"), min_size=1, max_size=12)
names = st.one_of(
    letters,
    st.builds("/".join, st.lists(letters, min_size=1, max_size=4)),
    st.builds(lambda part, n: (part * n)[:n] + ".jpg", letters, st.sampled_from([95, 96, 97, 150, 251, 252, 300, 700])),
    st.builds(lambda part, n: "/".join([part] * n) + "/a.jpg", letters, st.integers(1, 60)),
)
sizes = st.sampled_from([0, 1, 20, 511, 512, 513, 1024])


@st.composite
def entries(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    """A member as the standard library writes it: mostly files, all kinds of names, owners and dates."""
    info = tarfile.TarInfo(draw(names))
    info.mode = draw(st.sampled_from([0o644, 0o600]))
    info.uid = draw(st.sampled_from([0, 1000, 1 << 22]))
    info.mtime = draw(st.sampled_from([0, 1_700_000_000, 1_700_000_000.25]))
    info.uname = draw(st.sampled_from(["", "root", "ünal"]))
    if draw(st.integers(0, 5)) == 0:
        info.type = draw(st.sampled_from(LINKS))
        info.linkname = draw(names)
        return info, b""
    info.type = draw(st.sampled_from([tarfile.REGTYPE] * 6 + [tarfile.AREGTYPE, tarfile.CONTTYPE]))
    if draw(st.integers(0, 5)) == 0:
        info.pax_headers = draw(st.sampled_from([{"comment": "7 path=x\n"}, {"SCHILY.xattr.user.a": "b"}, {"size": "3"}, {}]))
    info.size = draw(sizes)
    return info, draw(st.binary(min_size=info.size, max_size=info.size)) if info.size < 30 else b"d" * info.size


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """A whole tar file in one of the three formats."""
    format = draw(st.sampled_from(sorted(FORMATS)))
    blocks = []
    if format == "pax":
        shared = draw(st.sampled_from([{}] * 4 + [{"comment": "of all"}, {"path": "one"}]))
        blocks.append(tarfile.TarInfo.create_pax_global_header(shared) if shared else b"")
    for info, data in draw(st.lists(entries(), max_size=6)):
        try:
            blocks.append(info.tobuf(FORMATS[format], "utf-8") + data + bytes(-len(data) % BLOCK))
        except ValueError:  # a name or number that this format has no place for
            continue
    return b"".join(blocks) + bytes(2 * BLOCK)


def tar_of(*files: tuple[str, bytes], format: int = tarfile.PAX_FORMAT, **shared: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, pax_headers=shared or None) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def header(name: str = "a", kind: bytes = tarfile.REGTYPE, **fields: tuple[int, bytes]) -> bytes:
    """A header with a right checksum, `fields` written over it at their place first."""
    info = tarfile.TarInfo(name)
    info.type = kind
    return summed(info.tobuf(tarfile.GNU_FORMAT), *fields.values())


def summed(block: bytes, *places: tuple[int, bytes]) -> bytes:
    changed = bytearray(block)
    for place, value in places:
        changed[place : place + len(value)] = value
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


# -------------------------------------------------------------------------------------------------------------- healthy


@given(archives())
def test_the_same_members_as_the_standard_library(data: bytes) -> None:
    ours = in_every_way(data)
    assert ours.members == by_the_library(data)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("length", [99, 100, 101, 156, 255, 256, 257, 1000])
def test_names_of_every_length(format: str, length: int) -> None:
    name = "/".join(["folder"] * 200)[-length + 5 :].lstrip("/") + "/" + "a.jpg"
    files = [(f"{name}.{n}", bytes([n]) * n) for n in range(4)]
    try:
        data = tar_of(*files, format=FORMATS[format])
    except ValueError:
        assert format == "ustar"
        assert length > 250  # its two fields take 100 and 155 bytes, split at a slash
        return
    ours = in_every_way(data)
    assert [(found, content) for found, _, content in ours.members] == files
    assert ours.fault == ""


def test_a_shared_path_names_all_that_follow() -> None:
    data = tar_of(("a", b"1"), ("b", b"2"), path="c")
    assert [name for name, _, _ in in_every_way(data).members] == ["c", "c"] == [name for name, _, _ in by_the_library(data)]


def test_a_size_of_8_gib_and_more_is_read_as_the_library_does() -> None:
    for size in (b"\x80" + (1 << 33).to_bytes(11, "big"), b"77777777777\0"):
        with pytest.raises(CutError, match="ends inside a"):
            list(read_members(SeekableReader(io.BytesIO(header(size=(124, size))))))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda d: lzma.compress(d, lzma.FORMAT_ALONE)])
def test_compression_is_known_by_the_first_bytes(pack: Callable[[bytes], bytes]) -> None:
    data = tar_of(("a", b"1" * 3000), ("b", b"2"))
    assert streamed(Drips(pack(data), 7)) == seekable(data)


def test_gzip_in_parts_is_one_file() -> None:
    data = tar_of(("a", b"1" * 3000), ("b", b"2"))
    assert streamed(io.BytesIO(gzip.compress(data[:1000]) + gzip.compress(data[1000:]))) == seekable(data)


def test_only_what_is_asked_for_is_held() -> None:
    data = tar_of(("a", b"1" * 3000), ("b", b"2"), ("c", b""))
    members = list(read_members(StreamReader(io.BytesIO(data)), lambda name, size: name in "bc"))
    assert [member.data for member in members] == [None, b"2", b""]


def test_reading_elsewhere_in_between_does_no_harm() -> None:
    file = io.BytesIO(tar_of(("a", b"1" * 3000), ("b", b"2")))
    members = read_members(SeekableReader(file))
    names = []
    for member in members:
        file.seek(member.where[0] // 2)
        names.append(member.name)
    assert names == ["a", "b"]


def test_headers_of_many_kinds_are_all_read() -> None:
    """More kinds than are remembered."""
    blocks = [summed(header(f"m{n}"), (100, b"%07o\0" % n)) for n in range(200)]
    ours = in_every_way(b"".join(2 * blocks) + bytes(2 * BLOCK))
    assert [name for name, _, _ in ours.members] == 2 * [f"m{n}" for n in range(200)]


@pytest.mark.parametrize("format", FORMATS)
def test_the_library_is_asked_once_for_many_headers(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dated as webdataset's writer does, and with long names: nothing of it is left to `tarfile` but a look at each kind."""
    blocks = []
    for n in range(20):
        info = tarfile.TarInfo(f"{'folder/' * (n % 2 and format != 'ustar') * 30}{n}.jpg")
        info.size, info.mtime = n, 1_700_000_000.25 + n
        blocks.append(info.tobuf(FORMATS[format]) + bytes(n + -n % BLOCK))
    looks = []
    look = tarfile.TarInfo.frombuf
    monkeypatch.setattr(tarfile.TarInfo, "frombuf", lambda block, *how: (looks.append(block), look(block, *how))[1])
    ours = seekable(b"".join(blocks) + bytes(2 * BLOCK))
    assert [size for _, (_, size), _ in ours.members] == list(range(20))
    assert len(looks) <= 2


def pax(records: bytes) -> bytes:
    return header(kind=tarfile.XHDTYPE, size=(124, b"%011o\0" % len(records))) + records.ljust(BLOCK, b"\0") + header("b")


def with_sum_field(block: bytes, field: Callable[[int], bytes]) -> bytes:
    """A header with its sum written another way."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + field(sum(blank)) + block[156:]


LAST_DIGITS = b"%08o" % sum(header("a")[:148] + b" " * 8 + header("a")[156:])
ODD = {  # each behind an ordinary header of its kind
    "no size": header(size=(124, b"\0" * 12)),
    "a size in spaces": header(size=(124, b"         10 ")) + b"d" * BLOCK,
    "a size of 12 digits": header(size=(124, b"000000000012")) + b"d" * BLOCK,
    "a size with an underscore": header(size=(124, b"0000000_012\0")) + b"d" * BLOCK,
    "a size that is none": header(size=(124, b"0000000000x\0")),
    "a size with a sign": header(size=(124, b"-0000000012\0")),
    "a size of nines": header(size=(124, b"00000000009\0")),
    "no date": header(date=(136, b"\0" * 12)),
    "a date before 1970": header(date=(136, b"\xff" * 12)),
    "a date that is none": header(date=(136, b"0000000000x\0")),
    "an owner that is none": header(owner=(108, b"x")),
    "a device that is none": header(device=(329, b"x")),
    "a sum in spaces": with_sum_field(header(), lambda total: b"%8o" % total),
    "a sum of 8 digits, and what it would be with 6": with_sum_field(header("a"), lambda total: b"%08o" % total)
    + with_sum_field(header("b"), lambda total: b"%06o" % total + LAST_DIGITS[-2:]),
    "a signed sum": with_sum_field(header("\u00e4"), lambda total: b"%06o\0 " % (total - 2 * 256)),
    "a folder as it was once": header("a/", tarfile.AREGTYPE),
    "no name": header(name=""),
    "a name of 100 bytes, and a prefix": header("n" * 100, prefix=(345, b"p" * 155)),
    "a record of no length": pax(b"00 mtime=1.25\n"),
    "a record that is too short": pax(b"11 mtime=1.25\n"),
    "a record that is too long": pax(b"99 mtime=1.25\n"),
    "a record behind the records": pax(b"13 mtime=1.2\n")[: BLOCK + 13] + pax(b"13 mtime=1.2\n9 path=c\n")[BLOCK + 13 :],
    "a path as raw bytes": pax(b"10 path=\xff\n"),
    "a path with a slash": pax(b"11 path=c/\n"),
    "an empty path": pax(b"8 path=\n"),
    "two paths": pax(b"9 path=c\n9 path=d\n"),
    "a size in a record": pax(b"9 size=1\n") + b"d" * BLOCK,
    "a charset": pax(b"21 hdrcharset=BINARY\n10 path=\xc3\n"),
    "a long name with nothing in it": header(kind=tarfile.GNUTYPE_LONGNAME, size=(124, b"00000000001\0"))
    + bytes(BLOCK) + header(),
    "records for a folder": pax(b"9 path=c\n")[: 2 * BLOCK] + header("b", tarfile.DIRTYPE),
}  # fmt: skip


NO_HEADERS = {
    "a size that is none", "a size with a sign", "a size of nines", "a date that is none", "an owner that is none",
    "a device that is none", "a sum of 8 digits, and what it would be with 6", "a record of no length",
    "a record that is too short", "a record that is too long",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_headers_are_read_as_the_library_does(name: str) -> None:
    data = header("first") + pax(b"13 mtime=1.2\n") + ODD[name] + header("last") + bytes(2 * BLOCK)
    ours, theirs = in_every_way(data), by_the_library(data)
    assert ours.members == theirs[: len(ours.members)]  # many a Python passes over records that are none
    assert ours.fault or (ours.members == theirs and theirs[-1][0] == "last")
    assert bool(ours.fault) == (name in NO_HEADERS)


# --------------------------------------------------------------------------------------------------------------- broken


@given(archives(), st.data())
def test_a_cut_gives_what_is_whole_and_a_fault(data: bytes, draw: st.DataObject) -> None:
    cut = draw.draw(st.integers(0, len(data)))
    ours = in_every_way(data[:cut])
    assert ours.members == by_the_library(data[:cut])
    if not ours.fault:
        assert ours.members == seekable(data).members
        assert data[cut - cut % BLOCK - BLOCK :].strip(b"\0") == b""  # cut within the end marker, behind its first block


@given(archives(), st.data())
def test_a_flipped_byte_is_read_as_the_library_does_or_a_fault(data: bytes, draw: st.DataObject) -> None:
    place = draw.draw(st.integers(0, len(data) - 1))
    broken = data[:place] + bytes([data[place] ^ draw.draw(st.integers(1, 255))]) + data[place + 1 :]
    ours, theirs = in_every_way(broken), by_the_library(broken)
    assert ours.members == theirs[: len(ours.members)]
    if ours.members != theirs or len(theirs) < len(by_the_library(data)):
        assert ours.fault


# a flip that the checksum does not show: what stands in a header, whatever it is, means the same to both
@given(archives(), st.data())
def test_a_changed_header_with_its_sum_means_the_same(data: bytes, draw: st.DataObject) -> None:
    places = [
        place
        for place in range(0, len(data), BLOCK)
        if data[place + 257 : place + 262] == b"ustar" and data[place : place + BLOCK] == summed(data[place : place + BLOCK])
    ]
    if not places:
        return
    place = draw.draw(st.sampled_from(places))
    change = draw.draw(st.tuples(st.integers(0, BLOCK - 1), st.binary(min_size=1, max_size=3)))
    block = summed(data[place : place + BLOCK], change)[:BLOCK]
    broken = data[:place] + block + data[place + BLOCK :]
    ours, theirs = in_every_way(broken), by_the_library(broken)
    assert ours.members == theirs[: len(ours.members)]
    assert ours.members == theirs or ours.fault


@given(archives(), st.data(), st.binary(min_size=1, max_size=1500))
def test_junk_between_is_a_fault(data: bytes, draw: st.DataObject, junk: bytes) -> None:
    place = draw.draw(st.integers(0, len(data)))
    broken = data[:place] + junk + data[place:]
    ours, theirs = in_every_way(broken), by_the_library(broken)
    assert ours.members == theirs[: len(ours.members)]
    assert ours.members == theirs or ours.fault


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.CONTTYPE])
def test_a_cut_behind_the_last_byte_of_a_member_leaves_it_whole(kind: bytes) -> None:
    data = header(kind=kind, size=(124, b"%011o\0" % 600)) + b"d" * 600
    for more in (0, 1, 423):
        ours = in_every_way(data + bytes(more))
        assert [found for _, found, _ in ours.members] == [(BLOCK, 600)]
        assert ours.fault


@given(archives(), archives())
def test_two_archives_put_together_are_a_fault(first: bytes, second: bytes) -> None:
    ours = in_every_way(first + second)
    alone = seekable(first)
    assert ours.members == alone.members
    assert bool(ours.fault) == bool(alone.fault or second.strip(b"\0"))


@example(b"")
@given(st.binary(max_size=3000))
def test_anything_else_is_a_fault(data: bytes) -> None:
    assert in_every_way(data + b"x").fault


@pytest.mark.parametrize("cut", [5, 11, 25, -9, -1])
def test_a_cut_gzip_is_a_fault(cut: int) -> None:
    packed = gzip.compress(tar_of(("a", bytes(range(256)) * 20), ("b", b"2")))
    assert streamed(io.BytesIO(packed[:cut])).fault


def test_a_gzip_with_a_wrong_sum_is_a_fault() -> None:
    packed = bytearray(gzip.compress(tar_of(("a", b"1"))))
    packed[-6] ^= 1
    assert "CRC" in streamed(io.BytesIO(bytes(packed))).fault


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_broken_compression_is_a_fault(pack: Callable[[bytes], bytes]) -> None:
    packed = bytearray(pack(tar_of(("a", bytes(range(256)) * 20))))
    packed[len(packed) // 2] ^= 0xFF
    assert streamed(io.BytesIO(bytes(packed))).fault


@pytest.mark.parametrize("held", [everything, None])
def test_a_stream_names_the_member_it_ends_inside(held: Callable[[str, int], bool] | None) -> None:
    data = tar_of(("a", b"1"), ("b", b"2" * 3000))[:4000]
    with pytest.raises(CutError, match=r"ends inside b \(its header says 3000 bytes, the file has 2464\)") as error:
        list(read_members(StreamReader(io.BytesIO(data)), held))
    assert error.value.name == "b"


# -------------------------------------------------------------------------------------------------------------- hostile


class Watched(io.BytesIO):
    """Remembers the largest read that was asked for."""

    largest = 0

    def read(self, count: int | None = -1, /) -> bytes:
        assert count is not None
        assert count >= 0
        self.largest = max(self.largest, count)
        return super().read(count)


HOSTILE = {
    "8 GiB": header(size=(124, b"77777777777\0")),
    "4 EiB": header(size=(124, b"\x80\0\0\0" + (1 << 62).to_bytes(8, "big"))),
    "8 GiB of records": header(kind=tarfile.XHDTYPE, size=(124, b"77777777777\0")),
    "4 EiB of records": header(kind=tarfile.XHDTYPE, size=(124, b"\x80\0\0\0" + (1 << 62).to_bytes(8, "big"))),
    "a long name of 4 EiB": header(kind=tarfile.GNUTYPE_LONGNAME, size=(124, b"\x80\0\0\0" + (1 << 62).to_bytes(8, "big"))),
    "an unknown kind of 4 EiB": header(kind=b"Z", size=(124, b"\x80\0\0\0" + (1 << 62).to_bytes(8, "big"))),
    "less than nothing": header(size=(124, b"\xff" * 10 + b"\xfc\x00")),
    "records of less than nothing": header(kind=tarfile.XHDTYPE, size=(124, b"\xff" * 10 + b"\xfc\x00")),
    "a sparse file that leads back": header(kind=tarfile.GNUTYPE_SPARSE, size=(124, b"\xff" * 10 + b"\xfe\x00")),
    "a chain without an end": header(kind=tarfile.GNUTYPE_LONGNAME, size=(124, b"00000000001\0")) + b"x".ljust(BLOCK, b"\0"),
    "digits": header(kind=tarfile.XHDTYPE, size=(124, b"%011o\0" % 60_000)) + b"1" * 60_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sizes_end_in_a_fault_and_take_no_memory(name: str) -> None:
    data = tar_of(("first", b"1"))[: 2 * BLOCK] + HOSTILE[name] * (300 if "chain" in name else 1) + header("last") + b"2" * 9000
    for file in (Watched(data), Watched(gzip.compress(data, 0))):
        held = outcome(read_members(StreamReader(file), everything))
        assert [found for found, _, _ in held.members] == ["first"]
        assert held.fault
        assert file.largest <= 1 << 20
    file = Watched(data)
    ours = outcome(read_members(SeekableReader(file)), data)
    assert [found for found, _, _ in ours.members] == ["first"]
    assert ours.fault
    assert file.largest <= 1 << 20


def test_a_member_too_large_to_be_held_is_named_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "HELD_BYTES", 2999)
    data = tar_of(("a", b"1" * 3000), ("b", b"2"))
    a, b = read_members(StreamReader(io.BytesIO(data)), everything)
    assert (a.data, a.fault) == (None, "a has 3000 bytes, more than the 2999 that are read from a stream")
    assert (b.data, b.fault) == (b"2", "")


@pytest.mark.parametrize("held", [everything, None])
def test_a_sparse_file_is_named_and_passed_over(held: Callable[[str, int], bool] | None) -> None:
    hole = (386, b"%011o\0%011o\0" % (4096, 512))
    sparse = header("s.jpg", tarfile.GNUTYPE_SPARSE, size=(124, b"%011o\0" % 512), hole=hole, real=(483, b"%011o\0" % 4608))
    data = sparse + b"s" * BLOCK + tar_of(("b", b"2"))
    reader = StreamReader(io.BytesIO(data)) if held else SeekableReader(io.BytesIO(data))
    s, b = read_members(reader, held)
    assert (s.name, s.data) == ("s.jpg", None)
    assert "sparse" in s.fault
    assert (b.name, b.where) == ("b", (3 * BLOCK, 1))
