"""Packed shards: the record of a step, and the manifest."""

from __future__ import annotations

import io
import json
import re
import tarfile
from contextlib import suppress
from functools import cache
from itertools import permutations
from pathlib import Path

import torch
from PIL import Image

import patchpack as pp
from patchpack.batch_info import BatchInfo
from patchpack.errors import ShardError, SourceError
from patchpack.stream.packed.manifest import NAME
from patchpack.stream.packed.steps import END, Place, read_step
from patchpack.stream.tar.byte_reader import BLOCK

from .archives import Entry, archive_with, header_of, summed
from .files import Scratch
from .target import Target
from .trees import edited


def check_step(data: bytes) -> None:
    """First byte: 0, the rest is the record; 1, once its header checksums are right; 2, it edits its JSON; 3, its bytes.

    `ShardError`, or a batch whose tensors fit together.
    """
    if not data:
        return
    kind, rest = data[0] % 4, data[1:]
    record = (lambda r: r, summed, with_json, with_bytes)[kind](rest)
    memory = torch.frombuffer(bytearray(record or b"\0"), dtype=torch.uint8)
    try:
        batch = read_step(memory, Place(packed().fingerprint, 0, 0))
    except ShardError:
        return
    rows, seq_len = batch.segment_ids.shape
    assert batch.patches.shape == (rows, seq_len, 3 * batch.patch_size**2)
    assert batch.slot_mask.shape == batch.grid_sizes.shape[:2] == batch.source_sizes.shape[:2]
    assert len(batch.keys) == rows
    assert BatchInfo.from_json(json.loads(json.dumps(batch.info.to_json()))) == batch.info
    with suppress(pp.errors.ShapeError):  # contents are compared with their digest, and validated, by `PackedShards.verify`
        pp.validate(batch)


def check_manifest(data: bytes) -> None:
    """First byte: 0, the rest is the manifest; 1, it edits the one that was written.

    `SourceError`, or packed shards that are there.
    """
    if not data:
        return
    written = json.loads(manifest())  # before it is written over
    text = data[1:] if data[0] % 2 == 0 else json.dumps(edited(written, data[1:])).encode()
    folder = packed().path
    Scratch.get().write(f"pack/{NAME}", text)
    try:
        found = pp.PackedShards(folder)
        assert len(found) == sum(len(found.steps_of(epoch)) for epoch in found.reports)
        repr(found)
        for step in range(len(found)):
            found[step]
        if text == manifest():
            found.verify()
    except SourceError:
        pass


@cache
def packed() -> pp.PackedShards:
    """Two epochs of a few steps."""
    scratch = Scratch.get()
    file = io.BytesIO()
    Image.new("RGB", (9, 5), (1, 2, 3)).save(file, "BMP")
    entries = [
        Entry(str(n), extension, data, len(data))
        for n in range(5)
        for extension, data in (("jpg", file.getvalue()), ("cls", b"%d" % n))
    ]
    url = scratch.write("p.tar", archive_with(*((header_of(entry, tarfile.GNU_FORMAT), entry.data) for entry in entries)))
    recipe = pp.recipes.siglip2_naflex(max_patches=4, seq_len=8, max_images=3, rows_per_batch=1, patch_size=4)
    return pp.PackedShards.write(pp.Index.build(url), recipe, Path(scratch.folder) / "pack", num_epochs=2, steps_per_shard=2)


@cache
def manifest() -> bytes:
    """As it was written."""
    return (packed().path / NAME).read_bytes()


@cache
def record() -> bytes:
    """Of the first step, with the end."""
    shard = packed().shards[0]
    return (packed().path / shard.name).read_bytes()[: shard.offsets[1]] + END


def with_json(program: bytes) -> bytes:
    """The record with edited JSON."""
    whole = record()
    info = tarfile.TarInfo.frombuf(whole[:BLOCK], "utf-8", "surrogateescape")
    text = json.dumps(edited(json.loads(whole[BLOCK : BLOCK + info.size]), program)).encode()
    begin = BLOCK + info.size + -info.size % BLOCK
    info.size = len(text)
    return info.tobuf(tarfile.GNU_FORMAT) + text + bytes(-len(text) % BLOCK) + whole[begin:]


def with_bytes(program: bytes) -> bytes:
    """The record with bytes changed, and header checksums made right; an edit is a place (two bytes) and a value."""
    made = bytearray(record())
    for at in range(0, len(program) - 2, 3):
        made[int.from_bytes(program[at : at + 2], "little") % len(made)] = program[at + 2]
    return summed(bytes(made))


def steps() -> list[bytes]:
    """The record, and some edits."""
    edits = [bytes([2, node, 0, edit, 1]) for node in range(30) for edit in range(0, 60, 7)]
    bits = [bytes([3, *(block * BLOCK + at).to_bytes(2, "little"), value])
            for block in range(24) for at in (0, 8, 30, 124, 134, 156) for value in (0, 0x31)]  # fmt: skip
    return [b"\0" + record(), b"\1" + record(), b"\2", b"\3", *edits, *bits, *(b"\0" + file for file in reshaped())]


def reshaped() -> list[bytes]:
    """The record with one array of another shape and as many bytes."""
    made = []
    for found in re.finditer(rb"'shape': \(([^)]*)\)", record()):
        sides = found[1].strip(b",").split(b", ")
        for other in {*permutations(sides), (*sides[:-1], b"1", sides[-1]), tuple(sides[1:]) if sides[0] == b"1" else ()}:
            text = b"'shape': (" + b", ".join(other) + (b",)" if len(other) == 1 else b")")
            spare = len(text) - len(found[0])
            end = record().index(b"\n", found.end())
            rest = record()[found.end() : end]
            rest = rest[:-spare] if spare > 0 else rest + b" " * -spare
            made.append(record()[: found.start()] + text + rest + record()[end:])
    return made


def manifests() -> list[bytes]:
    """The manifest, and some edits."""
    return [b"\0" + manifest(), b"\1", *(bytes([1, node, 0, edit, 1]) for node in range(0, 90, 5) for edit in range(0, 60, 7))]


STEP = Target("packed", check_step, steps, 16384)
MANIFEST = Target("manifest", check_manifest, manifests, 4096)
