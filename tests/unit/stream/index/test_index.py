"""The index against a scan of the same shards, its file against every kind of damage, updates against fresh builds."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import patchpack as pp
from helpers.naive_index import check_against_scan, check_readers
from helpers.photographs import files_in
from patchpack.stream.index import columns as files
from patchpack.stream.index import scan
from patchpack.stream.index.fingerprint import Fingerprint, changed, fingerprint
from patchpack.stream.index.head import Head, Shard
from patchpack.stream.index.scan import INLINE_BYTES, image_format
from patchpack.stream.index.strings import STRIDE, Strings
from patchpack.stream.sample.fields import Limits, SampleFields
from patchpack.types import TargetSpec

Entry = tuple[str, bytes]


def picture(height: int, width: int, fmt: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (height % 256, 7, 9)).save(file, fmt)
    return file.getvalue()


def write_tar(path: Path, entries: Iterable[Entry]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def samples(*labels: int) -> list[Entry]:
    return [
        entry for n in labels for entry in ((f"s{n:03}.png", picture(2 + n % 7, 3 + n % 5)), (f"s{n:03}.cls", b"%d" % n))
    ]  # fmt: skip


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    return [write_tar(tmp_path / f"a-{i}.tar", samples(*range(10 * i, 10 * i + 4 + i))) for i in range(4)]


@pytest.fixture
def saved(shards: list[str], tmp_path: Path) -> Path:
    pp.Index.build(shards).save(tmp_path / "a.index")
    return tmp_path / "a.index"


def file_of(index: pp.Index, folder: Path) -> bytes:
    index.save(folder / "compared.index")
    return (folder / "compared.index").read_bytes()


# -------------------------------------------------------------------------------------------------- what scanning says


def test_the_packages_own_samples(tmp_path: Path) -> None:
    shards = pp.samples.shards("train")
    index = pp.Index.build(shards)
    check_against_scan(index, shards)
    check_readers(index, shards)
    assert index.formats == Counter(WEBP=150, PNG=150, JPEG=120)
    index.save(tmp_path / "a.index")
    opened = pp.Index.open(tmp_path / "a.index")
    check_against_scan(opened, shards)
    check_readers(opened, shards)
    assert index.nbytes / len(index) < 23.2


def test_photographs(photographs: list[str], tmp_path: Path) -> None:
    shards = photographs
    asked = {"target": ("cls", "json")}  # small ones and large ones
    pp.Index.build(shards, **asked).save(tmp_path / "a.index")
    index = pp.Index.open(tmp_path / "a.index")
    check_against_scan(index, shards, **asked)
    check_readers(index, shards, **asked)
    assert len(index) == len(list(files_in(shards)))


@pytest.mark.parametrize("target", [None, "cls", "txt", ("cls", "txt"), ("txt", "none")])
def test_labels_of_any_length(target: Any, tmp_path: Path) -> None:
    texts = [b"x" * n for n in (0, 1, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, 300)] * 30
    entries = [
        entry
        for i, text in enumerate(texts)
        for entry in ((f"{i}.PNG", picture(3, 4)), (f"{i}.txt", text), (f"{i}.cls", text[:2] or b"7"), (f"{i}.none", b""))
    ]
    path = write_tar(tmp_path / "a.tar", entries)
    index = pp.Index.build(path, target=target)
    check_against_scan(index, path, target=target)
    check_readers(index, path, target=target)


def test_faults_and_rejections_of_several_shards(tmp_path: Path) -> None:
    bad = [*samples(1), ("s002.png", b"no picture"), ("s002.cls", b"2"), ("s003.cls", b"3"), *samples(4, 1)]
    paths = [
        write_tar(tmp_path / "a.tar", bad),
        write_tar(tmp_path / "b.tar", []),
        write_tar(tmp_path / "c.tar", samples(5, 6)),
    ]
    Path(paths[2]).write_bytes(Path(paths[2]).read_bytes()[:3584])
    paths.append(write_tar(tmp_path / "d.tar", samples(7)))
    index = pp.Index.build(paths)
    check_against_scan(index, paths)
    assert [(r.key, r.stage) for r in index.rejections] == [
        ("a.tar/s002", "header"), ("a.tar/s003", "read"), ("a.tar/s001", "read"), ("c.tar/s006", "read"),
    ]  # fmt: skip
    assert "appeared earlier" in index.rejections[2].reason  # a key that is doubled
    assert [fault.shard for fault in index.faults] == ["c.tar"]
    assert index.starts.tolist() == [0, 2, 2, 3, 4]


def test_no_usable_sample_is_an_empty_index(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.png", b"no"), ("a.cls", b"1")])
    index = pp.Index.build(path)
    check_against_scan(index, path)
    index.save(tmp_path / "a.index")
    opened = pp.Index.open(tmp_path / "a.index")
    assert (len(opened), opened.sizes.shape, opened.headers([]), len(opened.rejections)) == (0, (0, 2), (), 1)


def test_an_image_over_the_limit_is_a_rejection(shards: list[str]) -> None:
    index = pp.Index.build(shards, max_pixels=30)
    check_against_scan(index, shards, max_pixels=30)
    assert len(index.rejections) > 3


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/.\n"), min_size=1, max_size=12)
sizes_of_labels = st.integers(0, 2 * INLINE_BYTES)


@given(
    st.lists(
        st.lists(
            st.tuples(
                names,
                st.sampled_from([".png", ".PNG", ".jpg", ".seg.png"]),
                st.tuples(*[st.integers(1, 40)] * 2),
                sizes_of_labels,
            ),
            max_size=5,
        ),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.integers(0, 2**20), max_size=4),
    st.sampled_from([None, "txt", ("txt", "cls")]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shards(tmp_path: Path, contents: list[list[Any]], cuts: list[int], target: Any) -> None:
    """Any names, sizes and labels; some shards cut anywhere."""
    paths = []
    for number, content in enumerate(contents):
        entries = []
        for stem, suffix, size, length in content:
            fmt = "JPEG" if suffix == ".jpg" else "PNG"
            entries += [(stem + suffix, picture(*size, fmt)), (f"{stem}.txt", b"t" * length), (f"{stem}.cls", b"5")]
        paths.append(write_tar(tmp_path / f"p{number}.tar", entries))
    for cut, path in zip(cuts, paths, strict=False):
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: cut % (len(whole) + 1)])
    asked = {"image": "png;jpg;seg.png", "target": target}
    index = pp.Index.build(paths, **asked)
    check_against_scan(index, paths, **asked)
    index.save(tmp_path / "p.index")
    check_against_scan(pp.Index.open(tmp_path / "p.index"), paths, **asked)


def test_formats_are_those_of_the_bytes_not_of_the_names(tmp_path: Path) -> None:
    made = {fmt: picture(5, 6, fmt) for fmt in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")}
    for fmt, data in made.items():
        assert image_format(data[:12]) == (fmt if fmt != "PPM" else "")
    path = write_tar(tmp_path / "a.tar", [(f"{fmt}.jpg", data) for fmt, data in made.items() if fmt != "PPM"])
    assert pp.Index.build(path, target=None).formats == Counter(dict.fromkeys(set(made) - {"PPM"}, 1))
    assert image_format(b"") == image_format(b"\xff\xd8") == ""


def test_headers_come_as_asked(saved: Path) -> None:
    index = pp.Index.open(saved)
    every = index.headers(range(len(index)))
    lines = np.random.default_rng(0).integers(0, len(index), 200)
    assert index.headers(lines) == tuple(every[line] for line in lines)
    assert index.headers([]) == ()
    for wrong in ([-1], [len(index)], [0.5], [[0]], [True]):
        with pytest.raises(pp.errors.ConfigError, match="lines must be a flat sequence of integers in 0 … 21"):
            index.headers(wrong)


def test_progress_is_told_per_shard(shards: list[str]) -> None:
    told: list[Any] = []
    pp.Index.build(shards, progress=lambda *now: told.append(now))
    assert told == [(1, 4, 4), (2, 4, 9), (3, 4, 15), (4, 4, 22)]


# ------------------------------------------------------------------------------------------------ what cannot be indexed


def test_what_cannot_be_read_by_offset_is_refused(tmp_path: Path, shards: list[str]) -> None:
    shutil.copy(shards[0], tmp_path / "a.tar.gz")
    for source, why in (
        ([pp.Sample("a", b"")], "list of samples cannot be indexed: it is read from its beginning"),
        ("pipe:cat a.tar", "it is the output of a command"),
        (tmp_path / "a.tar.gz", "it is compressed"),
        ("https://host/a.tar.gz", "it is compressed"),
        ([shards[0], str(tmp_path / "no.tar")], "1 of 2 shards are missing"),
        (7, "cannot read samples from a int"),
    ):
        with pytest.raises(pp.errors.SourceError, match=why):
            pp.Index.build(source)
    for wrong in (-1, 1.5, True):
        with pytest.raises(pp.errors.ConfigError, match="num_workers must be"):
            pp.Index.build(shards, num_workers=wrong)


def test_shards_that_could_share_a_key_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tar").mkdir()
    inner = write_tar(tmp_path / "x.tar" / "b.tar", samples(1))
    (tmp_path / "y").mkdir()
    write_tar(tmp_path / "y" / "x.tar", samples(2))
    write_tar(tmp_path / "y" / "b.tar", samples(2))
    monkeypatch.chdir(tmp_path / "y")
    with pytest.raises(pp.errors.SourceError, match=r"shards x\.tar and x\.tar/b\.tar could contain samples of the same key"):
        pp.Index.build(["x.tar", inner, "b.tar"])


def test_a_shard_that_is_being_written_is_refused(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def append(*args: Any) -> Any:
        with open(shards[0], "ab") as file:
            file.write(bytes(512))
        return iter(())

    monkeypatch.setattr(scan, "scan_shard", append)
    with pytest.raises(pp.errors.SourceError, match=r"a-0\.tar was written to while it was scanned"):
        pp.Index.build(shards)


# ------------------------------------------------------------------------------------------------- strings and the head


@given(st.lists(st.binary(max_size=9), max_size=3 * STRIDE), st.data())
@example([b""] * STRIDE, None)
@example([b"a"] * (STRIDE + 1), None)
def test_strings_come_back(values: list[bytes], data: Any) -> None:
    lengths = np.array([len(value) for value in values], dtype=np.uint64)
    packed = Strings.pack(lengths, np.frombuffer(b"".join(values), np.uint8))
    n = len(values)
    lines = (
        np.arange(n)[::-1] if data is None or not n else np.array(data.draw(st.lists(st.integers(0, n - 1))), dtype=np.int64)
    )
    assert packed.take(lines) == [values[line] for line in lines]
    for first, stop in ((0, n), (n // 3, n // 2), (n, n)):
        cut_lengths, blob = packed.cut(first, stop)
        assert (cut_lengths.tolist(), blob.tobytes()) == ([len(v) for v in values[first:stop]], b"".join(values[first:stop]))


kinds = st.one_of(
    st.none(),
    st.builds(TargetSpec, st.sampled_from(["int64", "float32", "object"]), st.lists(st.integers(0, 9), max_size=3).map(tuple)),
)


NAMES = st.text(max_size=5) | st.just("a\udcff")  # file names need not be UTF-8
prints = st.builds(Fingerprint, st.integers(0, 2**60), st.one_of(st.integers(), st.text()), st.text())
texts = st.lists(NAMES, min_size=1).map(tuple)


@given(
    texts,
    st.one_of(st.none(), st.text(max_size=5), texts),
    st.lists(st.builds(Shard, NAMES, NAMES, prints, st.integers(0, 9), NAMES)).map(tuple),
    st.lists(st.tuples(NAMES, NAMES)).map(tuple),
    st.one_of(kinds, st.dictionaries(st.text(), kinds.filter(bool), min_size=1)),
)
def test_heads_come_back(image: Any, target: Any, shards: Any, names: Any, kind: Any) -> None:
    head = Head(SampleFields(image, target, limits=Limits(1 << 26, clips=False)), shards, names, kind, "ab")
    assert Head.from_json(json.loads(json.dumps(head.to_json()))) == head


@pytest.mark.parametrize("largest", [0, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])
def test_columns_are_as_narrow_as_they_can_be(largest: int) -> None:
    column = files.narrow(np.array([0, largest], dtype=np.uint64))
    assert column.tolist() == [0, largest]
    assert column.itemsize == next(n for n in (1, 2, 4, 8) if largest < 256**n)


# ------------------------------------------------------------------------------------------------------ files and damage


def test_the_file_is_the_same_every_time(shards: list[str], saved: Path, tmp_path: Path) -> None:
    assert file_of(pp.Index.build(shards), tmp_path) == saved.read_bytes()
    assert file_of(pp.Index.open(saved), tmp_path) == saved.read_bytes()


def test_an_index_is_sent_by_path_or_whole(shards: list[str], saved: Path) -> None:
    built, opened = pp.Index.build(shards), pp.Index.open(saved)
    assert len(pickle.dumps(opened)) < 400 < len(pickle.dumps(built))
    for index in (built, opened):
        again = pickle.loads(pickle.dumps(index))
        assert again.headers(range(22)) == index.headers(range(22))
        assert (again.fingerprint, again.target_kind) == (index.fingerprint, index.target_kind)
    built.save(saved)
    assert len(pickle.dumps(built)) < 400
    sent = pickle.dumps(opened)
    pp.Index.build(shards[:2]).save(saved)
    with pytest.raises(pp.errors.IndexFileError, match="was replaced since this process was sent its name"):
        pickle.loads(sent)
    assert len(opened.headers(range(22))) == 22  # an open map is not moved by a new file


def test_reprs_say_what_it_is(saved: Path) -> None:
    assert repr(pp.Index.open(saved)) == "Index(22 samples of 4 shards (a-0.tar …), 0 rejected)"


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path, shards: list[str]) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for path, why in (
        ("no", "cannot be read: FileNotFoundError"),
        (".", "cannot be read"),
        ("empty", "is not an index"),
        ("a-0.tar", "is not an index"),
    ):
        with pytest.raises(pp.errors.IndexFileError, match=why):
            pp.Index.open(tmp_path / path)


def test_every_cut_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in [*range(600), len(whole) - 1]:
        saved.write_bytes(whole[:length])
        with pytest.raises(pp.errors.IndexFileError):
            pp.Index.open(saved)
    saved.write_bytes(whole + b"\0")
    with pytest.raises(pp.errors.IndexFileError, match="it is incomplete or joined with other data"):
        pp.Index.open(saved)


def test_every_flipped_bit_of_the_head_is_refused(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    length = int.from_bytes(whole[24:32], "little")
    for place in range(32 + length):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        saved.write_bytes(damaged)
        with pytest.raises(pp.errors.IndexFileError):
            pp.Index.open(saved)


def test_a_newer_version_is_refused_by_name(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    whole[16:20] = (files.VERSION + 1).to_bytes(4, "little")
    saved.write_bytes(whole)
    with pytest.raises(
        pp.errors.IndexFileError, match="is an index of version 3, this patchpack reads version 2: update patchpack"
    ):
        pp.Index.open(saved)
    whole[16:20] = (files.VERSION - 1).to_bytes(4, "little")
    saved.write_bytes(whole)
    with pytest.raises(
        pp.errors.IndexFileError,
        match=r"is an index of version 1, this patchpack reads version 2: build it again: patchpack index",
    ):
        pp.Index.open(saved)


def test_every_flipped_bit_of_a_column_is_refused(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    length = int.from_bytes(whole[24:32], "little")
    head = json.loads(whole[32 : 32 + length])
    begin = -(-(32 + length) // 64) * 64
    for name, dtype, shape, place, _ in head["columns"]:
        num_bytes = np.dtype(dtype).itemsize * int(np.prod(shape))
        for at in range(begin + place, begin + place + num_bytes, 7):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << at % 8
            saved.write_bytes(damaged)
            with pytest.raises(pp.errors.IndexFileError, match=f"its column {name} does not match its checksum"):
                pp.Index.open(saved)


def use(path: Path) -> None:
    """Ask an index for everything."""
    index = pp.Index.open(path, verify=False)
    index.headers(range(len(index)))
    for header in index.headers(range(len(index))):
        with suppress(pp.errors.TargetError):
            index.reader(header.location)
    assert index.sizes.min() > 0
    assert len(index.rejections) + len(index.faults) >= 0
    assert repr(index)
    assert sum(index.formats.values()) <= len(index)
    pp.Index.build([shard.url for shard in index.shards], update=index)


def with_head(whole: bytes, change: Any) -> bytes:
    """The file with another head, its checksum right."""
    length = int.from_bytes(whole[24:32], "little")
    head = json.loads(whole[32 : 32 + length])
    begin = 32 + length + -(32 + length) % 64
    text = json.dumps(change(head)).encode()
    fixed = whole[:20] + crc32(text).to_bytes(4, "little") + len(text).to_bytes(8, "little")
    return fixed + text + bytes(-(32 + len(text)) % 64) + whole[begin:]


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_are_an_answer_or_a_refusal(saved: Path, flips: list[tuple[float, int]]) -> None:
    whole = bytearray(saved.read_bytes())
    sound = bytes(whole)
    begin = 32 + int.from_bytes(whole[24:32], "little")
    for where, value in flips:
        whole[begin + int(where * (len(whole) - begin))] = value
    saved.write_bytes(whole)
    try:
        use(saved)
    except pp.errors.IndexFileError:
        pass
    finally:
        saved.write_bytes(sound)


NONSENSE = st.one_of(
    st.none(), st.integers(-3, 2**70), st.text(max_size=3), st.just([]), st.just({}), st.just([[1]]), st.floats()
)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON value that can be assigned to."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [])
    return [(value, key) for key, _ in items] + [node for _, inner in items for node in nodes(inner)]


@given(st.data(), NONSENSE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_heads_that_lie_are_an_answer_or_a_refusal(saved: Path, data: Any, nonsense: Any) -> None:
    sound = saved.read_bytes()

    def change(head: Any) -> Any:
        holder, key = data.draw(st.sampled_from(nodes(head)))
        holder[key] = nonsense
        return head

    saved.write_bytes(with_head(sound, change))
    try:
        use(saved)
    except (pp.errors.IndexFileError, pp.errors.SourceError, pp.errors.ConfigError):  # a shard of another name, other members
        pass
    finally:
        saved.write_bytes(sound)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda head: head.update(image="jpg"), r"Expected `array`, got `str` - at `\$\.image`"),
        (lambda head: head.update(max_bytes=1 << 63), "Expected `int` <= 9223372036854775807"),
        (lambda head: head.update(max_pixels=True), "Expected `int`, got `bool`"),
        (lambda head: head.update(target_kind=["int32", []]), r"Invalid enum value 'int32' - at `\$\.target_kind\[0\]`"),
        (lambda head: head.update(target_kind={"each": {"cls": None}}), "Expected `array`, got `null`"),
        (lambda head: head["shards"][0].pop(), r"Expected `array` of length 7, got 6 - at `\$\.shards\[0\]`"),
        (lambda head: head["shards"][0].__setitem__(3, 1.5), "got `float`"),
        (lambda head: head.pop("kinds"), "missing required field `kinds`"),
        (lambda head: head.pop("columns"), "missing required field `columns`"),
        (lambda head: head["columns"][0].__setitem__(1, "|O"), r"Invalid enum value '\|O'"),
        (lambda head: head["columns"][0].__setitem__(2, []), "Expected `array` of length >= 1"),
        (lambda head: head["columns"][0].__setitem__(2, [-1]), "Expected `int` >= 0"),
        (lambda head: head["columns"][0].__setitem__(2, [1 << 62] * 2), "OverflowError"),
        (lambda head: head["columns"][1].__setitem__(3, 8), "Expected `int` that's a multiple of 64"),
    ],
)
def test_heads_that_lie_are_refused_by_their_field(change: Any, why: str, saved: Path) -> None:
    def changed(head: Any) -> Any:
        change(head)
        return head

    saved.write_bytes(with_head(saved.read_bytes(), changed))
    with pytest.raises(pp.errors.IndexFileError, match=rf"is damaged \(.*{why}.*\)\. Build it again"):
        pp.Index.open(saved)


def test_a_head_that_never_ends_is_refused(saved: Path) -> None:
    whole, deep = saved.read_bytes(), b"[" * 100_000
    saved.write_bytes(whole[:20] + crc32(deep).to_bytes(4, "little") + len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(pp.errors.IndexFileError, match=r"is damaged \(its head: RecursionError"):
        pp.Index.open(saved)


def test_lines_that_lie_are_refused_by_what_they_lead_to(saved: Path) -> None:
    last = 21
    for name, value, why in (
        ("offset", 99, "it has a member outside its shard"),
        ("length", 60_000, "it has a member outside its shard"),
        ("size", [0, 5], "it has an impossible image size"),
        ("kind", 7, "index out of range"),
        ("stem.lengths", 200, "a string lies outside its column"),
        ("label0.lengths", 200, "a string lies outside its column"),
        ("losses", ord("x"), "JSONDecodeError"),
    ):
        head, columns = files.read(saved)
        columns[name] = columns[name].astype("<u2" if name == "length" else columns[name].dtype)
        columns[name][min(last, len(columns[name]) - 1)] = value
        path = saved.with_name("lies.index")
        files.write(path, head, columns)
        with pytest.raises(pp.errors.IndexFileError, match=rf"lies\.index is damaged \(.*{why}.*\)\. Build it again"):
            use(path)
        if name == "size":
            with pytest.raises(pp.errors.IndexFileError, match=why):
                pp.Index.open(path).sizes  # noqa: B018
            with pytest.raises(pp.errors.IndexFileError, match=why):
                pp.Index.open(path).headers([last])


def test_an_index_of_no_shards_is_refused(tmp_path: Path) -> None:
    pp.Index.build(write_tar(tmp_path / "a.tar", [])).save(tmp_path / "a.index")
    head, columns = files.read(tmp_path / "a.index")
    files.write(tmp_path / "a.index", {**head, "shards": []}, columns)
    with pytest.raises(pp.errors.IndexFileError, match="is damaged"):
        pp.Index.open(tmp_path / "a.index")


def test_a_failing_write_leaves_the_old_file(saved: Path, shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    index = pp.Index.build(shards[:2])

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: full(0))
            with pytest.raises(pp.errors.IndexFileError, match=r"cannot be written: OSError.*No space left.*unchanged"):
                index.save(saved)
        assert saved.read_bytes() == before
        assert [path.name for path in saved.parent.iterdir() if path.suffix == ".tmp"] == []
    index.save(saved)
    assert len(pp.Index.open(saved)) == 9


def test_nothing_but_an_index_is_overwritten(shards: list[str], tmp_path: Path) -> None:
    index = pp.Index.build(shards)
    before = Path(shards[0]).read_bytes()
    with pytest.raises(pp.errors.ConfigError, match="exists and is not an index of patchpack: nothing was overwritten"):
        index.save(shards[0])
    assert Path(shards[0]).read_bytes() == before
    with pytest.raises(pp.errors.ConfigError, match="there is no folder"):
        index.save(tmp_path / "no" / "a.index")
    with pytest.raises(pp.errors.ConfigError, match=r"IsADirectoryError|PermissionError"):
        index.save(tmp_path)


# ------------------------------------------------------------------------------------------------------- stale and moved


def edit(path: str, place: int = 1 << 9, *, later: bool = True) -> None:
    """Other bytes at a place, the size as it was."""
    status = os.stat(path)
    data = bytearray(Path(path).read_bytes())
    data[place] ^= 1
    Path(path).write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + later))


def test_changed_and_missing_shards_are_named(saved: Path, shards: list[str], tmp_path: Path) -> None:
    edit(shards[1])
    with pytest.raises(
        pp.errors.StaleIndexError,
        match=r"1 of 4 shards .* the first is .*a-1\.tar, which has other contents\. Update the index",
    ):
        pp.Index.open(saved)
    with open(shards[0], "ab") as file:
        file.write(b"\0")
    with pytest.raises(pp.errors.StaleIndexError, match=r"2 of 4 shards .*a-0\.tar, which has 10,241 bytes, but had 10,240"):
        pp.Index.open(saved)
    Path(shards[0]).unlink()
    with pytest.raises(pp.errors.StaleIndexError, match=r"2 of 4 shards .*a-0\.tar, which is missing"):
        pp.Index.open(saved)
    assert len(pp.Index.open(saved, verify=False)) == 22


def test_only_shards_with_another_time_are_opened(saved: Path, shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> Any:
        raise pp.errors.SourceError("opened")

    monkeypatch.setattr("patchpack.stream.index.fingerprint.fingerprint", refuse)
    pp.Index.open(saved)
    os.utime(shards[2], ns=(0, 0))
    with pytest.raises(pp.errors.StaleIndexError, match=r"1 of 4 shards .*a-2\.tar, which cannot be read \(opened\)"):
        pp.Index.open(saved)


def test_a_copy_is_not_a_change(saved: Path, shards: list[str]) -> None:
    os.utime(shards[2], ns=(0, 0))
    assert len(pp.Index.open(saved)) == 22


def test_shards_that_moved(saved: Path, shards: list[str], tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for path in shards:
        shutil.move(path, there)
    with pytest.raises(pp.errors.StaleIndexError, match=r"4 of 4 shards .* which is missing.* have moved, pass them"):
        pp.Index.open(saved)
    index = pp.Index.open(saved, shards=str(there / "a-{0..3}.tar"))
    check_readers(index, str(there / "a-*.tar"))
    check_readers(pickle.loads(pickle.dumps(index)), str(there / "a-*.tar"))
    assert index.fingerprint == pp.Index.open(saved, verify=False).fingerprint
    with pytest.raises(pp.errors.StaleIndexError, match=r"1 of its 4 shards were not given, the first is a-3\.tar"):
        pp.Index.open(saved, shards=str(there / "a-{0..2}.tar"))
    write_tar(there / "a-4.tar", samples(99))
    with pytest.raises(pp.errors.StaleIndexError, match=r"has 4 shards, 5 were given: a-4\.tar is not one of its shards"):
        pp.Index.open(saved, shards=str(there / "a-*.tar"))
    index.save(saved)
    assert len(pp.Index.open(saved)) == 22
    assert b"a-0.tar" not in pickle.dumps(index)


def test_fingerprints_see_ends_and_places_between(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(np.random.default_rng(0).bytes(300_000))
    known = fingerprint(str(path))
    assert known.num_bytes == 300_000
    for place in (0, 4095, 36_000, 144_000, 287_712, 299_999):
        edit(str(path), place)
        assert changed(str(path), known) == "has other contents"
        edit(str(path), place)
        assert changed(str(path), known) == ""
    edit(str(path), 150_000)  # beside every block: opening takes it for a copy, an update does not
    assert changed(str(path), known) == ""
    assert fingerprint(str(path)) != known


def test_fingerprints_do_not_depend_on_where_shards_lie(shards: list[str], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    moved = [shutil.copy(path, tmp_path / "there") for path in shards]
    first, second = pp.Index.build(shards), pp.Index.build(moved)
    assert first.fingerprint == second.fingerprint
    others = [
        pp.Index.build(shards[:3]),
        pp.Index.build(shards[::-1]),
        pp.Index.build(shards, target=None),
        pp.Index.build(shards, image="png"),
        pp.Index.build(shards, max_pixels=1000),
    ]
    edit(moved[1], 1536)  # a label
    others.append(pp.Index.build(moved))
    assert len({first.fingerprint, *(index.fingerprint for index in others)}) == 7


# ----------------------------------------------------------------------------------------------------------------- updates


def scanned_shards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which shards are read from now on."""
    read: list[str] = []
    inner = scan.scan_shard

    def counted(url: str, *rest: Any) -> Any:
        read.append(Path(url).name)
        return inner(url, *rest)

    monkeypatch.setattr(scan, "scan_shard", counted)
    return read


@pytest.mark.parametrize("target", ["cls", None, ("cls", "png")])
def test_an_update_reads_what_changed_and_equals_a_fresh_build(
    target: Any, shards: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [("t.JPG", picture(300, 200, "JPEG")), ("t.cls", b"123456"), ("t.png", picture(70_000, 1))]
    mixed = [*samples(1), *long, ("u.png", b"bad"), *samples(2)]
    shards.append(write_tar(tmp_path / "b-0.tar", mixed))
    asked = {"target": target, "image": "jpg;png"}
    pp.Index.build(shards, **asked).save(tmp_path / "old.index")
    old = pp.Index.open(tmp_path / "old.index")
    write_tar(tmp_path / "a-1.tar", samples(50, 51))  # changed
    Path(shards[2]).unlink()  # removed
    extra = write_tar(tmp_path / "b-1.tar", [*samples(3), ("v.webp", picture(9, 9, "WEBP"))])  # new
    now = [shards[4], shards[0], extra, shards[1], shards[3]]  # and in another order
    fresh = file_of(pp.Index.build(now, **asked), tmp_path)
    read = scanned_shards(monkeypatch)
    updated = pp.Index.build(now, update=old, **asked)
    assert read == ["b-1.tar", "a-1.tar"]
    assert file_of(updated, tmp_path) == fresh
    check_against_scan(updated, now, **asked)
    assert file_of(pp.Index.build(now, update=updated, **asked), tmp_path) == fresh  # and in memory
    assert read == ["b-1.tar", "a-1.tar"]


def test_an_update_reads_again_what_was_only_touched(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of the same size that misses the fingerprint's blocks has another time: an update must not trust it."""
    old = pp.Index.build(shards)
    os.utime(shards[3], ns=(0, 0))
    read = scanned_shards(monkeypatch)
    pp.Index.build(shards, update=old)
    assert read == ["a-3.tar"]


def test_an_update_numbers_kinds_as_they_come(tmp_path: Path) -> None:
    jpg, png = ("j.jpg", picture(3, 4, "JPEG")), ("p.png", picture(3, 4))
    first, second = write_tar(tmp_path / "a.tar", [jpg, png]), write_tar(tmp_path / "b.tar", [png, jpg])
    old = pp.Index.build([first, second], target=None)
    fresh = file_of(pp.Index.build([second], target=None), tmp_path)
    assert file_of(pp.Index.build([second], target=None, update=old), tmp_path) == fresh


def test_sizes_enter_the_fingerprint(tmp_path: Path) -> None:
    """Also where an edit misses the blocks that are hashed of a shard: plans are made of sizes."""
    path = write_tar(
        tmp_path / "a.tar", [("a.txt", bytes(60_000)), ("b.bmp", picture(8, 16, "BMP")), ("c.txt", bytes(300_000))]
    )
    before = pp.Index.build(path, image="bmp", target=None)
    at = before.headers([0])[0].location.image[0]
    data = bytearray(Path(path).read_bytes())
    data[at + 18], data[at + 22] = data[at + 22], data[at + 18]
    Path(path).write_bytes(data)
    after = pp.Index.build(path, image="bmp", target=None)
    assert changed(path, before.shards[0].fingerprint) == ""
    assert (before.sizes.tolist(), after.sizes.tolist()) == ([[8, 16]], [[16, 8]])
    assert before.fingerprint != after.fingerprint


def test_an_update_of_other_members_is_refused(shards: list[str]) -> None:
    with pytest.raises(pp.errors.ConfigError, match=r"target differs: .* or build without update="):
        pp.Index.build(shards, update=pp.Index.build(shards), target=None)
