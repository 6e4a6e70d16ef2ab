"""Ranges of files behind URLs: which are asked for, and what is said where they cannot be had."""

from __future__ import annotations

import bz2
import copy
import gzip
import lzma
import os
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import patchpack as pp
from helpers.remote_files import CountedFiles, served
from patchpack.stream.index.fingerprint import changed, fingerprint, unchanged
from patchpack.stream.tar.remote import FIRST_BYTES, MOST_BYTES, RangeReader, RemoteFile, expand

DATA = np.random.default_rng(0).bytes(1 << 18)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[str]:
    """A URL of `DATA`."""
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    (tmp_path / "a.tar").write_bytes(DATA)
    CountedFiles.forget()
    yield f"counted://{tmp_path}/a.tar"
    CountedFiles.forget()


# ------------------------------------------------------------------------------------------------------------ the reader


def reader_of(data: bytes) -> tuple[RangeReader, list[tuple[int, int]]]:
    """A reader, and the ranges it asks for."""
    asked: list[tuple[int, int]] = []

    def fetch(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        assert offset >= 0
        assert 0 < length <= len(data) - offset  # a server would refuse what is not there
        return data[offset : offset + length]

    return RangeReader(fetch, len(data)), asked


@given(st.integers(0, len(DATA)), st.lists(st.tuples(st.integers(0, len(DATA) + 99), st.integers(0, 1 << 17)), max_size=30))
@example(len(DATA), [(0, 10), (2 * FIRST_BYTES - 5, 6)])  # a byte more than the first window has
def test_any_reads_give_what_is_there(size: int, reads: list[tuple[int, int]]) -> None:
    data = DATA[:size]
    reader, _ = reader_of(data)
    for at, count in reads:
        assert reader.read(at, count) == data[at : at + count]
        assert reader.reach(at) == min(at, size)


def test_what_is_skipped_is_not_asked_for() -> None:
    data = bytes(50 * 100_000)
    reader, asked = reader_of(data)
    for i in range(50):
        for offset, count in ((0, 512), (512, 4096), (5120, 512)):  # a header, a start, the next header
            reader.read(100_000 * i + offset, count)
        reader.read(100_000 * max(0, i - 1) + 600, 12)  # and back to the sample before
    assert len(asked) == 50
    assert {length for _, length in asked[1:]} == {FIRST_BYTES}


@pytest.mark.parametrize("size", [1536, 3072, 7168, 13_312, 22_016, 30_720])
def test_small_samples_are_asked_for_once_and_many_at_a_time(size: int) -> None:
    data = bytes(400 * size)
    reader, asked = reader_of(data)
    for i in range(400):
        reader.read(size * i, 512)
        reader.read(size * max(0, i - 1) + 512, min(4096, size - 512))  # the start of the one before, once it is whole
    assert sum(length for _, length in asked) <= 1.05 * len(data)
    assert len(asked) < 60


def test_reads_in_a_row_take_ever_more_at_once() -> None:
    data = bytes(40 << 20)
    reader, asked = reader_of(data)
    for at in range(0, len(data), 1024):
        reader.read(at, 512)
    assert max(length for _, length in asked) == MOST_BYTES
    assert len(asked) < 50
    reader, asked = reader_of(data)
    reader.read(0, 3 * MOST_BYTES)
    assert asked == [(0, 3 * MOST_BYTES)]


# ------------------------------------------------------------------------------------------------------------ the file


def test_a_read_is_one_request_of_as_many_bytes(remote: str) -> None:
    file = RemoteFile(remote)
    assert file.read(100, 7) == DATA[100:107]
    assert file.read(len(DATA) - 3, 3) == DATA[-3:]
    assert file.read(5, 0) == b""
    assert CountedFiles.requests == [("a.tar", 100, 7), ("a.tar", len(DATA) - 3, 3)]
    with pytest.raises(pp.errors.SourceError, match=r"a\.tar has changed: it has only 2 of 9 bytes"):
        file.read(len(DATA) - 2, 9)


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ({}, ""),
        ({"ETag": '"ab"', "LastModified": "today"}, 'etag="ab"'),
        ({"Last-Modified": "today", "created": 7}, "lastmodified=today"),
        ({"md5Hash": "xy==", "generation": 5, "updated": 4}, "md5hash=xy=="),
        ({"content_md5": None, "last_modified": 9}, "lastmodified=9"),
        ({"mtime": 1.5, "ino": 8}, "mtime=1.5"),
    ],
)
def test_versions_are_the_surest_that_is_told(
    told: dict[str, object], version: str, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CountedFiles, "info", lambda self, path: {"name": path, "size": 3, "type": "file", **told})
    assert RemoteFile(remote).status() == (3, version)


def test_what_is_no_file_is_refused(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for told, why in (({"size": None}, "does not report its size"), ({"size": 0, "type": "directory"}, "is a folder")):
        monkeypatch.setattr(CountedFiles, "info", lambda self, path, told=told: told)
        with pytest.raises(pp.errors.SourceError, match=why):
            RemoteFile(remote).status()


def test_errors_of_a_file_system_name_the_file(remote: str) -> None:
    with pytest.raises(pp.errors.SourceError, match=r"no\.tar cannot be read: FileNotFoundError"):
        RemoteFile(remote.replace("a.tar", "no.tar")).read(0, 1)
    CountedFiles.broken = True
    with pytest.raises(pp.errors.SourceError, match=r"a\.tar cannot be read: TimeoutError: the line is cut"):
        RemoteFile(remote).read(0, 1)


def test_what_is_missing_is_named(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pp.errors.ConfigError, match="nosuch://a: fsspec cannot open it: Protocol not known: nosuch"):
        RemoteFile("nosuch://a")
    fsspec.register_implementation("far", "no_such_package.Far", clobber=True, errtxt="Install no_such_package for far files")
    with pytest.raises(pp.errors.ConfigError, match="fsspec cannot open it: Install no_such_package for far files"):
        RemoteFile("far://a")
    for name in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(pp.errors.ConfigError, match=r"needs fsspec: pip install 'patchpack\[remote\]'"):
        RemoteFile(remote)


def read_some(file: RemoteFile) -> bytes:
    return file.read(1000, 50)


def test_threads_share_a_file_and_forked_processes_make_their_own(remote: str) -> None:
    file = RemoteFile(remote)
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda at: file.read(at, 64), range(0, len(DATA), 64)))
    assert b"".join(pieces) == DATA
    with get_context("fork").Pool(1) as processes:
        assert processes.apply(read_some, (file,)) == DATA[1000:1050]


def forked(file: RemoteFile) -> bytes:
    """Read in a child that has the file from its parent's memory, not from a pickle."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(theirs, file.read(1000, 50))
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with open(ours, "rb") as pipe:
        return pipe.read()


def test_a_file_that_was_open_before_the_fork(remote: str) -> None:
    file = RemoteFile(remote)
    file.read(0, 1)
    assert forked(file) == DATA[1000:1050]
    assert copy.copy(file).read(0, 2) == pickle.loads(pickle.dumps(file)).read(0, 2) == DATA[:2]


def test_patterns(remote: str, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(b"")
    folder = remote.removesuffix("a.tar")
    assert expand(remote) == [remote]
    assert expand(f"{folder}*.tar") == [remote, f"{folder}b.tar"]
    with pytest.raises(pp.errors.SourceError, match=r"no file matches .*\*\.zip"):
        expand(f"{folder}*.zip")


# ----------------------------------------------------------------------------------------------------- is it the same?


def test_a_remote_file_and_its_copy_here_have_one_digest(remote: str, tmp_path: Path) -> None:
    here, there = fingerprint(str(tmp_path / "a.tar")), fingerprint(remote)
    assert (here.num_bytes, here.digest) == (there.num_bytes, there.digest)
    assert (type(here.version), there.version) == (int, f'etag="{here.version:x}"')
    assert changed(remote, here) == changed(str(tmp_path / "a.tar"), there) == ""
    assert not unchanged(remote, here)


def test_changes_of_a_remote_file(remote: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    known = fingerprint(remote)
    CountedFiles.forget()
    assert unchanged(remote, known)
    assert changed(remote, known) == ""
    assert CountedFiles.requests == []  # its version says it
    os.utime(path, ns=(0, 0))
    assert not unchanged(remote, known)
    assert changed(remote, known) == ""  # the same bytes, brought anew
    path.write_bytes(b"x" + DATA[1:])
    assert changed(remote, known) == "has other contents"
    path.write_bytes(DATA[1:])
    assert changed(remote, known) == "has 262,143 bytes, but had 262,144"
    path.unlink()
    assert changed(remote, known) == "is missing"
    assert not unchanged(remote, known)


def test_a_server_that_tells_no_version_is_asked_for_blocks(remote: str, tmp_path: Path) -> None:
    CountedFiles.says_etag = False
    known = fingerprint(remote)
    assert known.version == ""
    assert changed(remote, known) == ""
    assert not unchanged(remote, known)
    (tmp_path / "a.tar").write_bytes(b"x" + DATA[1:])
    assert changed(remote, known) == "has other contents"
    CountedFiles.broken = True
    assert "the line is cut" in changed(remote, known)


def test_a_server_without_ranges_is_named(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec needs it for http, and datasets brings it")
    (tmp_path / "a.tar").write_bytes(DATA)
    with served(tmp_path) as url:
        file = RemoteFile(f"{url}/a.tar")
        assert file.read(1000, 77) == DATA[1000:1077]
        assert file.status().num_bytes == len(DATA)
        assert file.status().version.startswith("lastmodified=")
        assert fingerprint(f"{url}/a.tar").digest == fingerprint(str(tmp_path / "a.tar")).digest
        assert changed(f"{url}/b.tar", fingerprint(f"{url}/a.tar")) == "is missing"
    with (
        served(tmp_path, ranges=False) as url,
        pytest.raises(pp.errors.SourceError, match="sent 262144 bytes for a request of 9: it does not support range requests"),
    ):
        RemoteFile(f"{url}/a.tar").read(3, 9)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_shard_behind_a_url_cannot_be_indexed_whatever_its_name(remote: str, tmp_path: Path, pack: Any) -> None:
    (tmp_path / "a.tar").write_bytes(pack(bytes(10_240)))
    with pytest.raises(
        pp.errors.SourceError, match=r"a\.tar cannot be indexed: it is compressed, although its name does not say so"
    ):
        pp.Index.build(remote)
