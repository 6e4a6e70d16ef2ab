"""The file of an index, damaged anywhere."""

from __future__ import annotations

import json
import os
import tarfile
from contextlib import suppress
from functools import cache
from struct import Struct
from typing import Any
from zlib import crc32

import numpy as np

from patchpack.errors import IndexFileError, SourceError, StaleIndexError, TargetError
from patchpack.stream.index import Index
from patchpack.stream.index.columns import ALIGNMENT, MAGIC, VERSION

from .archives import archive_with, header_of, whole
from .files import Scratch
from .target import Target
from .trees import edited

GNU = tarfile.GNU_FORMAT
_FIXED = Struct("<16sIIQ")


def check(data: bytes) -> None:
    """First byte: 0, the rest is the file; 1, once its checksum is made right; 2, the rest edits the head; 3, the columns.

    `IndexFileError` or `StaleIndexError`, or an index every line of which lies in its shards; and no head but a right one where
    nobody made the checksum right.
    """
    if not data:
        return
    kind, rest = data[0] % 4, data[1:]
    file = (rest, resealed(rest), with_head(rest), with_columns(rest))[kind] if kind != 0 else rest
    path = Scratch.get().write("mutated.index", file)
    try:
        index = Index.open(path, verify=False)
    except IndexFileError:
        return
    if kind in (0, 3):
        assert index._head == original()._head  # a checksum stands before it
        with suppress(IndexFileError):
            whole, right = Index.open(path)._columns, original()._columns  # and there is one for every column
            assert all(np.array_equal(whole[name], right[name]) for name in right)
    with suppress(IndexFileError, StaleIndexError):
        use(index)


def use(index: Index) -> None:
    """Everything that reads a column."""
    num_bytes = [shard.fingerprint.num_bytes for shard in index.shards]
    assert len(index) == index.starts[-1] == len(index.key_hash)
    assert index.sizes.shape == (len(index), 2)
    assert sum(index.formats.values()) <= len(index)
    assert all(isinstance(rejection.reason, str) for rejection in index.rejections)
    assert all(isinstance(fault.reason, str) for fault in index.faults)
    headers = index.headers(np.arange(len(index)))
    for header in headers:
        assert min(header.size) > 0
        at: Any = header.location
        for place in (at.image, *at.labels):
            assert isinstance(place, bytes) or 0 <= place[0] <= place[0] + place[1] <= num_bytes[at.shard]
    for number in range(index.num_shards):
        index._lines.part(number)  # what an update takes over
    repr(index)
    if any("://" in shard.url or shard.url.startswith("pipe:") for shard in index.shards):
        return  # nothing is asked of a network here
    index.verify()
    for header in headers:
        try:
            index.reader(header.location)
        except (TargetError, SourceError, OSError):
            continue


@cache
def original() -> Index:
    """Of two shards: short labels and long ones, a rejection, a fault."""
    short = [(header_of(entry, GNU), entry.data) for entry in whole()]
    longer = [e if e.extension != "json" else e._replace(data=e.data.ljust(50), size=50) for e in whole()]
    long = [(header_of(entry, GNU), entry.data) for entry in longer]
    scratch = Scratch.get()
    urls = [scratch.write("i0.tar", archive_with(*short, *short[:1])), scratch.write("i1.tar", archive_with(*long)[:-1024])]
    for url in urls:
        os.utime(url, ns=(10**18, 10**18))
    index = Index.build(urls, image="jpg", target=("cls", "json"))
    index.save(scratch.path("original.index"))
    return Index.open(scratch.path("original.index"))


@cache
def saved() -> bytes:
    """Its file."""
    original()
    with open(Scratch.get().path("original.index"), "rb") as file:
        return file.read()


def begin_of_columns(file: bytes) -> int:
    """Behind the head."""
    end = _FIXED.size + int(_FIXED.unpack_from(file)[3])
    return end + -end % ALIGNMENT


def resealed(file: bytes) -> bytes:
    """With the length of a head that the file has, and the right checksum."""
    if len(file) < _FIXED.size:
        return file
    magic, version, _, length = _FIXED.unpack_from(file)
    head = file[_FIXED.size : _FIXED.size + length]
    return _FIXED.pack(magic, version, crc32(head), len(head)) + file[_FIXED.size :]


def with_head(program: bytes) -> bytes:
    """The saved file with an edited head."""
    file = saved()
    head = json.loads(file[_FIXED.size : _FIXED.size + int(_FIXED.unpack_from(file)[3])])
    text = json.dumps(edited(head, program), separators=(",", ":")).encode("ascii")
    fixed = _FIXED.pack(MAGIC, VERSION, crc32(text), len(text)) + text
    return fixed + bytes(-len(fixed) % ALIGNMENT) + file[begin_of_columns(file) :]


def with_columns(program: bytes) -> bytes:
    """The saved file with bytes of its columns changed; an edit is a place (two bytes) and a value."""
    file = bytearray(saved())
    begin = begin_of_columns(file)
    for at in range(0, len(program) - 2, 3):
        file[begin + int.from_bytes(program[at : at + 2], "little") % (len(file) - begin)] = program[at + 2]
    return bytes(file)


def seeds() -> list[bytes]:
    """The file, and some edits."""
    places = [
        bytes([3, at, 0, value]) + bytes([(at + 64) % 256, 1, value]) for at in range(0, 256, 16) for value in (0, 1, 255)
    ]
    heads = [bytes([2, node, 0, edit, 1]) for node in range(0, 90, 2) for edit in range(0, 60, 11)]
    digits = [at for at in range(_FIXED.size, begin_of_columns(saved())) if saved()[at : at + 1].isdigit()]
    changed = [b"\0" + saved()[:at] + bytes([saved()[at] ^ 1]) + saved()[at + 1 :] for at in digits[::5]]
    return [b"\0" + saved(), b"\1" + saved(), b"\2", b"\3", *places, *heads, *changed]


TARGET = Target("index", check, seeds, 8192)
