"""Shards made by hand, whole and broken: which samples come out, with which label, and what is said about the rest.

Every picture is painted in its label, so a wrong pairing shows.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from helpers.naive_index import check_against_scan
from patchpack.image.decode import decode
from patchpack.losses import ShardFault
from patchpack.stream.sources.opening import open_source
from patchpack.stream.sources.shards import ShardSource
from patchpack.stream.tar import shards
from patchpack.stream.tar.byte_reader import compression_of
from patchpack.stream.tar.grouping import split_name
from patchpack.types import Header

Entry = tuple[str, bytes]
BLOCK = 512


@cache
def picture(label: int, fmt: str = "PNG") -> bytes:
    """A few pixels, all of the label's value."""
    file = io.BytesIO()
    Image.fromarray(np.full((2 + label % 3, 3, 3), label, dtype=np.uint8)).save(file, fmt)
    return file.getvalue()


def sample(label: int, stem: str = "") -> list[Entry]:
    stem = stem or f"s{label}"
    return [(f"{stem}.png", picture(label)), (f"{stem}.cls", str(label).encode())]


def samples(*labels: int) -> list[Entry]:
    return [entry for label in labels for entry in sample(label)]


def tar_bytes(entries: Iterable[Entry]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@dataclass
class Account:
    """What became of the members of a source."""

    whole: list[str] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    mispaired: list[str] = field(default_factory=list)

    @property
    def stems(self) -> tuple[list[str], list[tuple[str, str]], int]:
        """The account without the shard's name, for shards of several names."""
        whole = [key.partition("/")[2] for key in self.whole]
        return whole, [(key.partition("/")[2], stage) for key, stage in self.rejected], len(self.faults)


def is_indexed(url: str) -> bool:
    """True for a shard that an index can be made of."""
    return shards.is_local(url) and not shards.is_compressed(url) and not compression_of(Path(url).read_bytes())


def read(source: Any, *, image: str = "jpg;png", target: str | None = "cls") -> Account:
    """Scan a source and read what its headers point at."""
    opened = open_source(source, image=image, target=target)
    account = Account()
    for event in opened.scan():
        if isinstance(event, Header):
            account.whole.append(event.key)
            data, label = opened.reader(event.location)
            pixels = decode(data)
            assert pixels.shape[:2] == tuple(event.size)
            if target == "cls" and abs(int(pixels[0, 0, 0]) - label) > 1:
                account.mispaired.append(event.key)
        elif isinstance(event, pp.Rejection):
            account.rejected.append((event.key, event.stage))
            account.reasons.append(event.reason)
        else:
            account.faults.append(event.shard)
            account.reasons.append(event.reason)
    assert account.mispaired == []
    if isinstance(opened, ShardSource) and all(is_indexed(u) for u in opened.urls):
        asked: dict[str, Any] = {"image": image, "target": target}
        check_against_scan(pp.Index.build(source, **asked), source, **asked)  # every shard made here, whole or broken
    return account


@pytest.fixture
def shard(tmp_path: Path) -> Callable[[bytes | list[Entry]], str]:
    """Writes ``a.tar`` and gives its path."""

    def write(contents: bytes | list[Entry]) -> str:
        path = tmp_path / "a.tar"
        path.write_bytes(contents if isinstance(contents, bytes) else tar_bytes(contents))
        return str(path)

    return write


Shard = Callable[[Any], str]


def as_gzip(path: str) -> str:
    target = Path(path + ".gz")
    target.write_bytes(gzip.compress(Path(path).read_bytes(), mtime=0))
    return str(target)


# ------------------------------------------------------------------------------------------------------- keys and names


@pytest.mark.parametrize(
    ("name", "stem", "extension"),
    [
        ("a.png", "a", "png"),
        ("a.seg.PNG", "a", "seg.png"),
        ("a/b.c/img.png", "a/b.c/img", "png"),
        ("./a.png", "./a", "png"),
        (".hidden", ".hidden", ""),
        (".hidden.png", ".hidden", "png"),
        ("README", "README", ""),
        ("a/README", "a/README", ""),
        ("a.", "a", ""),
    ],
)
def test_names_are_split_at_the_first_dot(name: str, stem: str, extension: str) -> None:
    assert split_name(name) == (stem, extension)


def test_keys_are_shard_and_stem(shard: Shard) -> None:
    account = read(shard(samples(1, 2)))
    assert account.whole == ["a.tar/s1", "a.tar/s2"]
    assert account.rejected == account.faults == []


def test_folders_in_names_belong_to_the_key(shard: Shard) -> None:
    entries = [*sample(1, "x/0"), *sample(2, "y/0"), *sample(3, "x/v1.2/0")]
    assert read(shard(entries)).whole == ["a.tar/x/0", "a.tar/y/0", "a.tar/x/v1.2/0"]


def test_extensions_may_be_upper_case(shard: Shard) -> None:
    assert read(shard([("0.PNG", picture(5)), ("0.CLS", b"5")])).whole == ["a.tar/0"]


@pytest.mark.parametrize("asked", ["PNG", ".png", " png ;gif", "jpg;;png"])
def test_asked_extensions_may_be_written_any_way(shard: Shard, asked: str) -> None:
    assert read(shard(samples(1)), image=asked).whole == ["a.tar/s1"]


def test_the_label_may_come_first(shard: Shard) -> None:
    assert read(shard(samples(1, 2)[::-1])).whole == ["a.tar/s2", "a.tar/s1"]


@pytest.mark.parametrize(("asked", "label"), [("png;jpg", 40), ("jpg;png", 200)])
def test_the_first_of_several_image_extensions_is_taken(shard: Shard, asked: str, label: int) -> None:
    path = shard([("0.jpg", picture(200, "JPEG")), ("0.png", picture(40)), ("0.cls", str(label).encode())])
    assert read(path, image=asked).whole == ["a.tar/0"]


def test_longer_extensions_are_their_own(shard: Shard) -> None:
    path = shard([("0.seg.png", picture(7)), ("0.png", picture(3)), ("0.cls", b"3"), ("0.old.cls", b"9")])
    assert read(path).whole == ["a.tar/0"]
    assert read(path, image="seg.png", target="old.cls").whole == ["a.tar/0"]


def test_folders_and_links_take_nobodys_place(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        folder = tarfile.TarInfo("x")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("x/0.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        tar.addfile(link)
        for name, data in sample(1, "x/0"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert read(str(tmp_path / "a.tar")).whole == ["a.tar/x/0"]


def test_equal_file_names_get_keys_that_differ(tmp_path: Path) -> None:
    paths = [tmp_path / part / "x" / "0.tar" for part in ("one", "two")]
    for label, path in enumerate(paths, 1):
        path.parent.mkdir(parents=True)
        path.write_bytes(tar_bytes(sample(label, "0")))
    assert read([str(path) for path in paths]).whole == ["one/x/0.tar/0", "two/x/0.tar/0"]


def test_brace_patterns_are_expanded(tmp_path: Path) -> None:
    for label in (1, 2, 3):
        (tmp_path / f"s-{label:03}.tar").write_bytes(tar_bytes(samples(label)))
    assert read(str(tmp_path / "s-{001..003}.tar")).whole == ["s-001.tar/s1", "s-002.tar/s2", "s-003.tar/s3"]


def test_missing_shards_are_counted_and_the_first_named(tmp_path: Path) -> None:
    (tmp_path / "s-1.tar").write_bytes(tar_bytes(samples(1)))
    with pytest.raises(pp.errors.SourceError, match=r"2 of 3 shards are missing, the first is .*s-2\.tar"):
        open_source(str(tmp_path / "s-{1..3}.tar"))


@pytest.mark.parametrize("again", ["{}", "{parent}/./a.tar", "file://{}"])
def test_a_shard_listed_twice_is_refused(shard: Shard, again: str) -> None:
    path = shard(samples(1))
    with pytest.raises(pp.errors.SourceError, match="listed twice"):
        open_source([path, again.format(path, parent=Path(path).parent)])


def test_a_file_that_is_not_named_a_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(pp.errors.SourceError, match=r"neither a folder nor a tar file"):
        open_source(str(tmp_path / "a.zip"))


# --------------------------------------------------------------------------------------------------- samples at fault


def test_a_missing_label_is_a_rejection(shard: Shard) -> None:
    account = read(shard([*sample(1), ("s2.png", picture(2)), *sample(3)]))
    assert account.whole == ["a.tar/s1", "a.tar/s3"]
    assert account.rejected == [("a.tar/s2", "target")]
    assert "no label member 'cls', it has: png" in account.reasons[0]


def test_a_missing_label_does_not_matter_where_none_is_asked(shard: Shard) -> None:
    assert read(shard([*sample(1), ("s2.png", picture(2))]), target=None).whole == ["a.tar/s1", "a.tar/s2"]


def test_a_missing_image_is_a_rejection(shard: Shard) -> None:
    account = read(shard([*sample(1), ("s2.txt", b"2"), ("s2.cls", b"2"), *sample(3)]))
    assert account.whole == ["a.tar/s1", "a.tar/s3"]
    assert account.rejected == [("a.tar/s2", "read")]
    assert "no image member (jpg;png), it has: cls, txt" in account.reasons[0]


def test_an_image_of_another_kind_is_a_rejection(shard: Shard) -> None:
    account = read(shard([*sample(1), ("s2.png", b"not a picture"), ("s2.cls", b"2"), *sample(3)]))
    assert account.whole == ["a.tar/s1", "a.tar/s3"]
    assert account.rejected == [("a.tar/s2", "header")]


def test_a_doubled_member_is_a_rejection(shard: Shard) -> None:
    account = read(shard([*sample(1), ("s2.png", picture(2)), ("s2.png", picture(9)), ("s2.cls", b"2"), *sample(3)]))
    assert account.whole == ["a.tar/s1", "a.tar/s3"]
    assert account.rejected == [("a.tar/s2", "read")]
    assert "two members are named s2.png" in account.reasons[0]


def test_a_key_that_comes_again_is_a_rejection(shard: Shard) -> None:
    account = read(shard([*sample(1), *sample(2), *sample(7, "s1"), *sample(3)]))
    assert account.whole == ["a.tar/s1", "a.tar/s2", "a.tar/s3"]
    assert account.rejected == [("a.tar/s1", "read")]
    assert "appeared earlier in the same shard" in account.reasons[0]


def test_members_that_are_not_side_by_side_are_never_put_together(shard: Shard) -> None:
    account = read(shard([("s1.png", picture(1)), ("s2.png", picture(2)), ("s1.cls", b"1"), ("s2.cls", b"2")]))
    assert account.whole == []
    assert [key for key, _ in account.rejected] == ["a.tar/s1", "a.tar/s2", "a.tar/s1", "a.tar/s2"]


@pytest.mark.parametrize("form", ["plain", "gzip"])
def test_an_image_stored_with_holes_is_a_rejection(shard: Shard, form: str) -> None:
    """GNU's sparse files: what lies in the tar is not what the file holds."""
    info = tarfile.TarInfo("s2.png")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, BLOCK
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:410], block[483:495] = b"%011o\0%011o\0" % (4096, BLOCK), b"%011o\0" % (4096 + BLOCK)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path = shard(tar_bytes(sample(1))[: 2 * MEMBER] + block + bytes(BLOCK) + tar_bytes([("s2.cls", b"2"), *sample(3)]))
    account = read(path if form == "plain" else as_gzip(path))
    assert account.stems == (["s1", "s3"], [("s2", "read")], 0)
    assert "s2.png is stored with holes" in account.reasons[0]


@pytest.mark.parametrize("form", ["plain", "gzip"])
def test_what_webdataset_writes_is_read(tmp_path: Path, form: str) -> None:
    """Its writer dates every member by a pax header."""
    path = tmp_path / ("a.tar" if form == "plain" else "a.tar.gz")
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for label in (1, 2, 3):
            writer.write({"__key__": f"x/{label}", "png": picture(label), "cls": b"%d" % label, "json": b"{}"})
    assert read(str(path)).stems == (["x/1", "x/2", "x/3"], [], 0)


# ---------------------------------------------------------------------------------------------------- shards at fault

WHOLE = tar_bytes(samples(1, 2, 3))
MEMBER = 2 * BLOCK  # every member here: a header and one block


def header_of(name: str, size: bytes) -> bytes:
    """A header that announces any size, with a right checksum."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def pax_size(size: str) -> bytes:
    info = tarfile.TarInfo("s2.png")
    info.pax_headers = {"size": size}
    return info.tobuf(tarfile.PAX_FORMAT)


def long_name() -> bytes:
    """A header that says: the name of the next one follows; and the name."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    return info.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(BLOCK, b"\0")


AFTER_ONE = WHOLE[: 2 * MEMBER]
JUNK = b"\xa5" * BLOCK

FAULTS = {
    # contents, whole samples, rejected samples, what the fault says
    "empty": (b"", [], [], "it is empty"),
    "text": (b"no tar at all, but longer than a block " * 40, [], [], "no valid header at byte 0"),
    "short_text": (b"no tar at all", [], [], "no valid header at byte 0"),
    "cut_in_first_image": (WHOLE[: BLOCK + 20], [], [], "ends inside s1.png"),
    "cut_in_image": (WHOLE[: 2 * MEMBER + BLOCK + 20], ["s1"], [], "ends inside s2.png"),
    "cut_in_label": (WHOLE[: 3 * MEMBER + BLOCK], ["s1"], [("s2", "read")], "ends inside s2.cls"),
    "cut_in_header_of_image": (WHOLE[: 2 * MEMBER + 100], ["s1"], [], "no valid header at byte 2048"),
    "cut_in_header_of_label": (WHOLE[: 3 * MEMBER + 100], ["s1"], [("s2", "target")], "no valid header at byte 3072"),
    "cut_between_samples": (WHOLE[: 4 * MEMBER], ["s1", "s2"], [], "no end marker at byte 4096"),
    "cut_between_members": (WHOLE[: 3 * MEMBER], ["s1"], [("s2", "target")], "no end marker at byte 3072"),
    "junk_for_header_of_image": (AFTER_ONE + JUNK + WHOLE[2 * MEMBER + BLOCK :], ["s1"], [], "no valid header at byte 2048"),
    "junk_for_header_of_label": (
        WHOLE[: 3 * MEMBER] + JUNK + WHOLE[3 * MEMBER + BLOCK :], ["s1"], [("s2", "target")], "no valid header at byte 3072",
    ),
    "two_tars": (WHOLE + tar_bytes(samples(4)), ["s1", "s2", "s3"], [], "has more data after its end marker"),
    "junk_at_the_end": (WHOLE + b"\0" * 100 + b"x", ["s1", "s2", "s3"], [], "has more data after its end marker"),
    "size_of_4_eib": (
        AFTER_ONE + header_of("s2.png", b"\x80" + struct.pack(">3xQ", 1 << 62)) + picture(2), ["s1"], [], "ends inside s2.png",
    ),
    "size_below_zero": (
        AFTER_ONE + header_of("s2.png", b"\xff" * 10 + b"\xfc\x00") + WHOLE, ["s1"], [], "the rest was not read",
    ),
    "pax_size_below_zero": (AFTER_ONE + pax_size("-1024") + WHOLE, ["s1"], [], "the rest was not read"),
    "endless_long_names": (AFTER_ONE + long_name() * 3000, ["s1"], [], "no valid header at byte"),
}  # fmt: skip


@pytest.mark.parametrize("form", ["plain", "gzip"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_shard_gives_what_is_whole_and_says_the_rest(shard: Shard, name: str, form: str) -> None:
    contents, whole, rejected, reason = FAULTS[name]
    path = shard(contents)
    account = read(path if form == "plain" else as_gzip(path))
    assert account.stems == (whole, rejected, 1)
    assert reason in account.reasons[-1]


def test_a_whole_shard_has_no_fault(shard: Shard) -> None:
    for contents in (WHOLE, WHOLE[: 6 * MEMBER + BLOCK], WHOLE + b"\0" * 12345):
        assert read(shard(contents)).stems == (["s1", "s2", "s3"], [], 0)


def test_a_shard_without_members_is_no_fault(shard: Shard) -> None:
    assert read(shard(tar_bytes([]))) == Account()


def expected_of_prefix(cut: int) -> tuple[list[str], list[str]]:
    """Whole and rejected samples of the first bytes of a shard, from the places of its members alone."""
    with tarfile.open(fileobj=io.BytesIO(WHOLE)) as tar:
        arrived = {info.name for info in tar if info.offset_data + info.size <= cut}
    stems = ("s1", "s2", "s3")
    whole = [stem for stem in stems if {f"{stem}.png", f"{stem}.cls"} <= arrived]
    return whole, [stem for stem in stems if f"{stem}.png" in arrived and stem not in whole]


@given(st.integers(0, 6 * MEMBER), st.booleans())
def test_every_cut_is_an_exact_account(tmp_path_factory: pytest.TempPathFactory, cut: int, compressed: bool) -> None:
    path = str(tmp_path_factory.getbasetemp() / "cut.tar")
    Path(path).write_bytes(WHOLE[:cut])
    account = read(as_gzip(path) if compressed else path)
    whole, rejected = expected_of_prefix(cut)
    assert account.stems[0] == whole
    assert [key for key, _ in account.stems[1]] == rejected
    assert len(account.faults) == 1


@given(st.integers(0, 6 * MEMBER - 1), st.binary(min_size=1, max_size=600), st.booleans())
def test_scribbled_bytes_never_pair_wrongly_and_never_raise(
    tmp_path_factory: pytest.TempPathFactory, place: int, scribble: bytes, compressed: bool
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "scribbled.tar")
    Path(path).write_bytes(WHOLE[:place] + scribble + WHOLE[place + len(scribble) :])
    opened = open_source(as_gzip(path) if compressed else path, image="png", target="cls")
    events = list(opened.scan())
    assert sum(isinstance(event, ShardFault) for event in events) <= 1
    assert len({event.key for event in events if isinstance(event, Header)}) == sum(isinstance(e, Header) for e in events)


@given(st.integers(12, 200))
def test_a_cut_gzip_is_a_fault(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.tar.gz"
    path.write_bytes(gzip.compress(WHOLE, mtime=0)[:cut])
    account = read(str(path))
    assert len(account.faults) == 1
    assert account.stems[0] == ["s1", "s2", "s3"][: len(account.whole)]


def test_a_fault_costs_its_own_shard_alone(tmp_path: Path) -> None:
    for label, data in enumerate((WHOLE, WHOLE[: 2 * MEMBER + 600], b"", tar_bytes(samples(4)))):
        (tmp_path / f"{label}.tar").write_bytes(data)
    account = read(str(tmp_path / "{0..3}.tar"))
    assert account.whole == ["0.tar/s1", "0.tar/s2", "0.tar/s3", "1.tar/s1", "3.tar/s4"]
    assert account.faults == ["1.tar", "2.tar"]


def test_a_shard_that_vanishes_is_a_fault(shard: Shard) -> None:
    path = shard(WHOLE)
    source = open_source(path)
    Path(path).unlink()
    (event,) = source.scan()
    assert isinstance(event, ShardFault)
    assert "FileNotFoundError" in event.reason


def test_a_shard_that_shrinks_after_its_scan_is_a_source_error(shard: Shard) -> None:
    path = shard(WHOLE)
    source = open_source(path)
    headers = list(source.scan())
    Path(path).write_bytes(WHOLE[:MEMBER])
    with pytest.raises(pp.errors.SourceError, match=r"has changed: it has only 0 of \d+ bytes at"):
        source.reader(headers[-1].location)  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------------- streams


def test_a_pipe_reads_the_same_samples(shard: Shard) -> None:
    path = shard([*samples(1, 2), ("s3.png", b"broken"), ("s3.cls", b"3"), ("s4.png", picture(4)), *sample(5)])
    assert read(f"pipe:cat {path}") == read(path)


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "TAR.GZ", "tar.bz2", "tbz2", "tar.xz", "txz"])
def test_compressed_shards_read_the_same_samples(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    kind = {"bz2": "w:bz2", "xz": "w:xz"}.get(suffix[-3:].lstrip("."), "w:gz")
    kind = "w:xz" if suffix == "txz" else kind
    with tarfile.open(path, kind) as tar:
        for name, data in samples(1, 2, 3):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert read(str(path)).stems == (["s1", "s2", "s3"], [], 0)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_shard_named_tar_is_known_to_be_compressed_by_its_first_bytes(shard: Shard, tmp_path: Path, kind: Any) -> None:
    plain = shard([*samples(1, 2), ("s3.png", b"broken"), ("s3.cls", b"3"), ("s4.png", picture(4)), *sample(5)])
    path = tmp_path / "packed" / Path(plain).name  # the same name, so the same account
    path.parent.mkdir()
    path.write_bytes({"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](Path(plain).read_bytes()))
    assert path.suffix == ".tar"
    assert read(str(path)) == read(plain)
    assert len(read(plain).stems[0]) == 3
    with pytest.raises(
        pp.errors.SourceError, match=rf"{path.name} cannot be indexed: it is compressed, although its name does not say so"
    ):
        pp.Index.build(str(path))


def test_a_tar_named_as_a_compressed_one_reads_the_same_samples(shard: Shard, tmp_path: Path) -> None:
    plain = shard(samples(1, 2))
    named = tmp_path / "a.tar.gz"
    named.write_bytes(Path(plain).read_bytes())
    assert read(str(named)).stems == read(plain).stems == (["s1", "s2"], [], 0)


def test_a_url_of_a_file_reads_the_same_samples(shard: Shard) -> None:
    path = shard(WHOLE)
    assert read(f"file://{path}") == read(path)


def test_a_broken_label_in_a_stream_is_rejected_at_once(shard: Shard) -> None:
    account = read(as_gzip(shard([*sample(1), ("s2.png", picture(2)), ("s2.cls", b"two"), *sample(3)])))
    assert account.stems == (["s1", "s3"], [("s2", "target")], 0)


@pytest.mark.parametrize("command", ["cat missing 2>/dev/null", "exit 3", "true"])
def test_a_command_that_gives_nothing_is_one_fault(command: str) -> None:
    (event,) = open_source(f"pipe:{command}").scan()
    assert isinstance(event, ShardFault)


def test_a_command_that_fails_half_way_is_one_fault_that_says_both(shard: Shard) -> None:
    account = read(f"pipe:head -c {2 * MEMBER + BLOCK + 20} {shard(WHOLE)}; exit 3")
    assert [key.rpartition("/")[2] for key in account.whole] == ["s1"]
    assert len(account.faults) == 1
    assert "ends inside s2.png" in account.reasons[-1]
    assert "exit 3" in account.reasons[-1]


def test_leaving_a_pipe_early_ends_its_command(shard: Shard) -> None:
    source = open_source(f"pipe:cat {shard(WHOLE)} /dev/zero")
    events = source.scan()
    assert isinstance(next(events), Header)
    events.close()  # type: ignore[attr-defined]


def test_the_same_pixels_from_a_stream(shard: Shard) -> None:
    path = shard(samples(*range(1, 9)))
    recipe = pp.Recipe(resize=pp.resize.Native(9), patch_size=1, seq_len=40, max_images=5, rows_per_batch=2)
    ours, theirs = (list(pp.load(url, recipe)) for url in (path, f"pipe:cat {path}"))
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys == b.keys
        assert np.array_equal(a.patches, b.patches)
        assert np.array_equal(a.targets, b.targets)


# ------------------------------------------------------------------------------------- what is opened, and what is not


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("form", ["plain", "gzip"])
def test_a_pickle_is_never_opened(shard: Shard, tmp_path: Path, form: str) -> None:
    trace = tmp_path / "unpickled"
    bomb = pickle.dumps(Bomb(trace))
    path = shard([*sample(1), *[(f"s1.{extension}", bomb) for extension in ("pyd", "pkl", "pickle", "pth")], *sample(2)])
    path = path if form == "plain" else as_gzip(path)
    assert read(path).stems == (["s1", "s2"], [], 0)
    opened = open_source(path, target="pyd")
    (header,) = [event for event in opened.scan() if isinstance(event, Header)]
    assert opened.reader(header.location)[1] == bomb
    assert not trace.exists()
    pickle.loads(bomb).close()
    assert trace.exists()


class Counted(io.FileIO):
    """Counts the bytes that are read from it."""

    read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size) or b""
        Counted.read_bytes += len(data)
        return data


def test_only_members_asked_for_are_read(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "open", lambda path, *_, **__: Counted(path), raising=False)
    monkeypatch.setattr(Counted, "read_bytes", 0)
    account = read(shard([*sample(1), ("s1.npy", b"\1" * (1 << 20)), *sample(2)]))
    assert account.whole == ["a.tar/s1", "a.tar/s2"]
    assert 0 < Counted.read_bytes < 20_000
