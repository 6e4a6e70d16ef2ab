"""Shards behind URLs: indexed by ranges, planned as local ones, painted to the same bit; what that costs in requests."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from helpers.remote_files import CountedFiles, served
from patchpack.cli import main

RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=2)
ASKED: dict[str, Any] = {"target": ("cls", "json")}
NAMES = [f"train-{i:04}.tar" for i in range(3)]
EACH = 12


def photograph(rng: np.random.Generator) -> bytes:
    """Pixels that compress as badly as a photograph's."""
    height, width = (int(side) for side in rng.integers(420, 560, 2))
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(file, "JPEG", quality=80)
    return file.getvalue()


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    """Shards of 12 samples of about 150 kB: a JPEG, a class that an index keeps, a text that it does not."""
    rng, made = np.random.default_rng(0), {}
    for name in NAMES:
        shard = io.BytesIO()
        with tarfile.open(fileobj=shard, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for i in range(EACH):
                for extension, data in (
                    ("jpg", photograph(rng)),
                    ("cls", b"%d" % i),
                    ("json", json.dumps({"text": f"the photograph number {i} of {name}"}).encode()),
                ):
                    info = tarfile.TarInfo(f"{name[:-4]}/{i:06}.{extension}")
                    info.size, info.mtime = len(data), 1.5  # a fraction of a second takes a pax header
                    tar.addfile(info, io.BytesIO(data))
        made[name] = shard.getvalue()
    return made


@pytest.fixture
def folder(originals: dict[str, bytes], tmp_path: Path) -> Path:
    """The shards as local files."""
    (tmp_path / "here").mkdir()
    for name, data in originals.items():
        (tmp_path / "here" / name).write_bytes(data)
    return tmp_path / "here"


@pytest.fixture
def counted(folder: Path) -> Iterator[str]:
    """A pattern of URLs of the same shards, whose requests are counted."""
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    CountedFiles.forget()
    yield f"counted://{folder}/train-{{0000..0002}}.tar"
    CountedFiles.forget()


@pytest.fixture
def memory(originals: dict[str, bytes]) -> Iterator[str]:
    """The same in fsspec's memory."""
    files = fsspec.filesystem("memory")
    for name, data in originals.items():
        files.pipe_file(f"/corpus/{name}", data)
    yield "memory://corpus/train-{0000..0002}.tar"
    files.rm("/corpus", recursive=True)


def local(folder: Path, **asked: Any) -> pp.Index:
    return pp.Index.build(str(folder / "*.tar"), **(asked or ASKED))


def assert_same_index(one: pp.Index, other: pp.Index) -> None:
    """All but where shards lie and their versions."""
    lines = range(len(one))
    assert one.headers(lines) == other.headers(lines)
    assert np.array_equal(one.sizes, other.sizes)
    assert np.array_equal(one.key_hash, other.key_hash)
    assert np.array_equal(one.starts, other.starts)
    assert (one.formats, one.rejections, one.faults) == (other.formats, other.rejections, other.faults)
    assert (one.fingerprint, one.target_kind, one.name) == (other.fingerprint, other.target_kind, other.name)


def assert_same_batches(one: pp.Index, other: pp.Index, **options: Any) -> None:
    here, there = pp.load(one, RECIPE, shuffle=20), pp.load(other, RECIPE, shuffle=20, **options)
    count = 0
    for a, b in zip(here, there, strict=True):
        count += a.info.packed
        for name, x, y in zip(a._fields, a, b, strict=True):
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, name
    assert count == len(one)
    assert here.report() == there.report()


# ------------------------------------------------------------------------------------------------------------ the same


@pytest.mark.parametrize("where", ["memory://corpus/train-{0000..0002}.tar", "memory://corpus/*.tar", "list"])
def test_an_index_of_memory_is_that_of_the_files(where: str, memory: str, folder: Path, tmp_path: Path) -> None:
    shards = [f"memory://corpus/{name}" for name in NAMES] if where == "list" else where
    pp.Index.build(shards, **ASKED).save(tmp_path / "a.index")
    index = pp.Index.open(tmp_path / "a.index")
    assert_same_index(local(folder), index)
    assert index.headers([0])[0].key == "train-0000.tar/train-0000/000000"
    assert_same_batches(local(folder), index)
    assert_same_batches(local(folder), index, num_threads=3)


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": 2},
        pytest.param({"num_workers": 2, "dataloader": {"multiprocessing_context": "spawn"}}, marks=pytest.mark.slow),
    ],
)
def test_processes_make_file_systems_of_their_own(options: dict[str, Any], counted: str, folder: Path) -> None:
    if "dataloader" in options:  # a process that is not forked knows the file systems that fsspec brings
        counted = f"file://{folder}/*.tar"
    index = pp.Index.build(counted, **ASKED)
    assert_same_index(local(folder), index)
    assert_same_batches(local(folder), index, **options)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_scan(method: str, counted: str, folder: Path, tmp_path: Path) -> None:
    shards = counted if method == "fork" else f"file://{folder}/*.tar"
    pp.Index.build(shards, **ASKED).save(tmp_path / "a.index")
    pp.Index.build(shards, num_workers=2, context=method, **ASKED).save(tmp_path / "b.index")
    assert (tmp_path / "a.index").read_bytes() == (tmp_path / "b.index").read_bytes()


def test_over_http(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec needs it for http, and datasets brings it")
    with served(folder) as url:
        shards = f"{url}/train-{{0000..0002}}.tar"
        pp.Index.build(shards, **ASKED).save(tmp_path / "a.index")
        index = pp.Index.open(tmp_path / "a.index")
        assert_same_index(local(folder), index)
        for options in ({}, {"num_workers": 2}, {"num_threads": 2}):
            assert_same_batches(local(folder), index, **options)
        (folder / NAMES[1]).write_bytes(b"other")
        with pytest.raises(
            pp.errors.StaleIndexError, match=rf"1 of 3 shards .* first is {url}/train-0001\.tar, which has 5 bytes"
        ):
            index.verify()
    with served(folder, ranges=False) as url, pytest.raises(pp.errors.SourceError, match="it does not support range requests"):
        pp.Index.build(f"{url}/{NAMES[0]}")


def test_losses_are_the_same(counted: str, folder: Path, originals: dict[str, bytes]) -> None:
    data = bytearray(originals[NAMES[0]])
    broken, cut = local(folder).headers([3, EACH + 5])
    data[broken.location.image[0] : broken.location.image[0] + 4] = b"none"
    (folder / NAMES[0]).write_bytes(data)
    (folder / NAMES[1]).write_bytes(originals[NAMES[1]][: cut.location.labels[1][0] + 3])  # inside its text
    (folder / NAMES[2]).write_bytes(b"no tar file")
    here, there = local(folder), pp.Index.build(counted, **ASKED)
    assert_same_index(here, there)
    assert [r.stage for r in there.rejections] == ["header", "read"]
    assert [fault.shard for fault in there.faults] == NAMES[1:]


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "TIFF", "GIF"])
def test_formats_that_are_read_to_their_end(fmt: str, tmp_path: Path) -> None:
    """An orientation may stand behind the pixels."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(4):
            file = io.BytesIO()
            pixels = np.random.default_rng(i).integers(0, 255, (70, 200 + i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file, fmt, exif=Image.Exif() if fmt == "GIF" else _turned())
            info = tarfile.TarInfo(f"{i}.jpg")
            info.size = file.tell()
            tar.addfile(info, io.BytesIO(file.getvalue()))
    here, there = (pp.Index.build(f"{where}{tmp_path}/a.tar", target=None) for where in ("", "file://"))
    assert_same_index(here, there)
    assert (here.sizes[0].tolist() == [200, 70]) == (fmt != "GIF")


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_packs_are_painted_from_urls(counted: str, folder: Path, tmp_path: Path) -> None:
    here, there = local(folder, target="cls"), pp.Index.build(counted)
    for index, name in ((here, "a"), (there, "b")):
        pp.PackedShards.write(index, RECIPE, tmp_path / name, num_workers=1, context="fork")
    assert sorted(os.listdir(tmp_path / "a")) == sorted(os.listdir(tmp_path / "b"))
    for name in os.listdir(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# ------------------------------------------------------------------------------------------------- what it costs in requests


def test_scanning_reads_headers_only(counted: str, originals: dict[str, bytes]) -> None:
    pp.Index.build(counted, target="cls")
    read, there = sum(length for *_, length in CountedFiles.requests), sum(map(len, originals.values()))
    assert there / len(NAMES) / EACH > 120_000
    assert read < 0.15 * there
    per_shard = Counter(name for name, *_ in CountedFiles.requests)
    assert all(count <= EACH + 12 for count in per_shard.values())  # a window a sample; blocks that are hashed
    assert Counter(CountedFiles.asked) == dict.fromkeys(NAMES, 2)  # before and after


def test_painting_is_one_request_a_member(counted: str, originals: dict[str, bytes]) -> None:
    index = pp.Index.build(counted, **ASKED)
    CountedFiles.forget()
    for header in index.headers(range(len(index))):
        index.reader(header.location)
    asked = Counter(CountedFiles.requests)
    assert set(asked.values()) == {1}
    expected = set()
    for name, data in originals.items():
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            expected |= {(name, m.offset_data, m.size) for m in tar if not m.name.endswith(".cls")}  # a class is in the index
    assert set(asked) == expected
    assert CountedFiles.asked == []


def test_an_index_that_is_opened_asks_once_a_shard(counted: str, tmp_path: Path) -> None:
    pp.Index.build(counted).save(tmp_path / "a.index")
    CountedFiles.forget()
    pp.Index.open(tmp_path / "a.index")
    assert sorted(CountedFiles.asked) == NAMES
    assert CountedFiles.requests == []


# ----------------------------------------------------------------------------------------------------- moved and changed


def test_an_index_of_local_files_will_do_for_their_remote_copies(counted: str, folder: Path, tmp_path: Path) -> None:
    local(folder).save(tmp_path / "a.index")
    there = pp.Index.open(tmp_path / "a.index", shards=counted)
    assert there.shards[0].url == f"counted://{folder}/train-0000.tar"
    assert_same_batches(local(folder), there, num_workers=2)
    there.save(tmp_path / "b.index")
    back = pp.Index.open(tmp_path / "b.index", shards=str(folder / "*.tar"))
    assert_same_batches(local(folder), back)


def test_changed_shards_are_refused_and_alone_read_again(
    counted: str, folder: Path, originals: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "a.index"
    pp.Index.build(counted).save(path)
    (folder / NAMES[1]).write_bytes(originals[NAMES[2]])
    with pytest.raises(pp.errors.StaleIndexError, match=r"1 of 3 shards .*counted://.*/train-0001\.tar, which has"):
        pp.Index.open(path)
    CountedFiles.forget()
    old = pp.Index.open(path, verify=False)
    updated = pp.Index.build(counted, update=old)
    assert {name for name, *_ in CountedFiles.requests} == {NAMES[1]}
    assert_same_index(updated, local(folder, target="cls"))
    (folder / NAMES[0]).unlink()
    with pytest.raises(pp.errors.StaleIndexError, match=r"train-0000\.tar, which is missing"):
        updated.verify()
    with pytest.raises(pp.errors.SourceError, match=r"train-0000\.tar cannot be read: FileNotFoundError"):
        pp.Index.build(counted, update=updated)


def test_a_line_that_is_cut_is_an_error_and_no_fault_of_a_shard(counted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault would stay in the index, and the shard would look unchanged for ever."""
    whole = CountedFiles.cat_file

    def cut(self: CountedFiles, path: str, start: int, end: int) -> bytes:
        if start > 600_000:
            raise TimeoutError("the line is cut")
        return whole(self, path, start, end)

    index = pp.Index.build(counted)
    monkeypatch.setattr(CountedFiles, "cat_file", cut)
    with pytest.raises(pp.errors.SourceError, match=r"train-0000\.tar cannot be read: TimeoutError: the line is cut"):
        pp.Index.build(counted)
    loader = pp.load(index, RECIPE, on_error="skip")
    list(loader)
    rejected = loader.report().rejected
    assert {r.stage for r in rejected} == {"read"}
    assert 0 < len(rejected) == sum(h.location.image[0] > 600_000 for h in index.headers(range(len(index))))


def test_a_shard_that_is_being_written_is_refused(
    counted: str, folder: Path, originals: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = CountedFiles.cat_file

    def write(self: CountedFiles, path: str, start: int, end: int) -> bytes:
        (folder / NAMES[0]).write_bytes(originals[NAMES[0]])
        return whole(self, path, start, end)

    monkeypatch.setattr(CountedFiles, "cat_file", write)
    with pytest.raises(pp.errors.SourceError, match=r"train-0000\.tar was written to while it was scanned"):
        pp.Index.build(counted)


# ------------------------------------------------------------------------------------------------------------ the rest


def test_without_fsspec_the_extra_is_named(counted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pp.Index.build(counted).save(tmp_path / "a.index")
    for name in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    for ask in (
        lambda: pp.Index.build(counted),
        lambda: pp.Index.open(tmp_path / "a.index"),
        lambda: list(pp.load(pp.Index.open(tmp_path / "a.index", verify=False), RECIPE)),
    ):
        with pytest.raises(pp.errors.ConfigError, match=r"needs fsspec: pip install 'patchpack\[remote\]'"):
            ask()


def test_the_command_line(counted: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "a.index")
    assert main(["index", counted, "-o", out]) == 0
    assert "36 samples in 3 shards, labels: cls" in capsys.readouterr().out.splitlines()
    assert_same_index(local(folder, target="cls"), pp.Index.open(out))
    assert main(["index", counted, "--update", out, "-o", out]) == 0
    assert "3 of 3 shards as in the earlier index, not read again" in capsys.readouterr().out.splitlines()
    assert main(["pack", counted, str(tmp_path / "p"), "--seq-len", "1024", "--rows-per-batch", "1"]) == 0
    assert pp.PackedShards(tmp_path / "p").num_images == 36
    assert main(["index", "memory://no.tar", "-o", str(tmp_path / "b.index")]) == 1
    assert "no.tar cannot be read: FileNotFoundError" in capsys.readouterr().err
