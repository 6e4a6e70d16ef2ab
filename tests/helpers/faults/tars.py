"""Tar files that are cut, put together, compressed and broken, or say the impossible in a header."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import numpy as np

from helpers.faults.table import NO_LABEL, Lost, fault, spliced, table
from helpers.painted import BLOCK, END, Maker, header, members, padded, pax, place, record, summed


def until(name: str, part: str, more: int = 0) -> Callable[[Maker], bytes]:
    """A whole shard up to this member's header, data or end, and some bytes more."""

    def cut(make: Maker) -> bytes:
        data = make.whole()
        at = dict(zip(("header", "data", "end"), place(data, name), strict=True))[part] + more
        return data[: at + (-at % BLOCK if part == "end" else 0)]

    return cut


# -------------------------------------------------------------------------------------------------------------------- cuts

CUT_LABEL = Lost("s2", "read", "the shard ends inside s2.cls")
GONE = "no end marker at byte"
for name, write, delivered, rejected, said in (
    ("cut in the first header", until("s1.png", "header", 100), "", [], "no valid header at byte 0"),
    ("cut in the first image", until("s1.png", "data", 600), "", [], "ends inside s1.png (its header says"),
    ("cut in the first label", until("s1.cls", "data"), "", [Lost("s1", "read", "ends inside s1.cls")], "ends inside s1.cls"),
    ("cut in an image", until("s2.png", "data", 600), "1", [], "ends inside s2.png (its header says"),
    ("cut in a label", until("s2.cls", "data"), "1", [CUT_LABEL], "ends inside s2.cls (its header says"),
    ("cut behind an image", until("s2.png", "end"), "1", [Lost("s2", "target", NO_LABEL)], GONE),
    ("cut in the header of an image", until("s2.png", "header", 300), "1", [], "no valid header at byte"),
    ("cut in the header of a label", until("s2.cls", "header", 300), "1", [Lost("s2", "target", NO_LABEL)], "no valid header"),
    ("cut between samples", until("s2.cls", "end"), "1 2", [], GONE),
    ("no end marker", until("s3.cls", "end"), "1 2 3", [], GONE),
    ("half an end marker", lambda m: m.whole()[:-BLOCK], "1 2 3", [], ""),
):
    fault(name, delivered, *rejected, fault=said)(write)

table(
    ("cut in pax records", lambda m: members(m.samples(1)) + pax(record("path", "x" * 900))[: 2 * BLOCK], "1"),
    ("cut in a long name", lambda m: members(m.samples(1)) + header("././@LongLink", 900, b"L") + b"x" * BLOCK, "1"),
    ("pax records for nothing", lambda m: members(m.samples(1)) + pax(record("path", "x")), "1"),
    ("a long name for nothing", lambda m: members(m.samples(1)) + header("././@LongLink", 9, b"L") + padded(b"x" * 9), "1"),
    fault=GONE,
)

# ----------------------------------------------------------------------------------------------------------------- headers


def instead_of(name: str, change: Callable[[bytes], bytes]) -> Callable[[Maker], bytes]:
    """A whole shard in which one header is another."""

    def write(make: Maker) -> bytes:
        data = make.whole()
        begin, _, _ = place(data, name)
        return spliced(data, begin, begin + BLOCK, change(data[begin : begin + BLOCK]))

    return write


def with_size(size: bytes) -> Callable[[bytes], bytes]:
    return lambda block: summed(block, (124, size))


EIB = b"\x80" + struct.pack(">3xQ", 1 << 62)
table(
    ("a wrong sum on an image", instead_of("s2.png", lambda b: spliced(b, 0, 1, b"t")), "1"),
    ("junk for a header", instead_of("s2.png", lambda b: b"\xa5" * BLOCK), "1"),
    ("a size that is no number", instead_of("s2.png", with_size(b"0000000x000\0")), "1"),
    fault="no valid header at byte",
)
fault("a wrong sum on a label", "1", Lost("s2", "target", NO_LABEL), fault="no valid header at byte")(
    instead_of("s2.cls", lambda b: spliced(b, 0, 1, b"t"))
)
table(
    ("a size of 4 EiB", instead_of("s2.png", with_size(EIB)), "1"),
    ("a size of 8 GiB", instead_of("s2.png", with_size(b"77777777777\0")), "1"),
    fault="ends inside s2.png (its header says",
)
# by us, or by the tarfile of newer Pythons
fault("a size below zero", "1", fault="the rest was not read")(instead_of("s2.png", with_size(b"\xff" * 10 + b"\xfc\x00")))
fault("a label of 4 EiB", "1", CUT_LABEL, fault="ends inside s2.cls (its header says 4611686018427387904 bytes")(
    instead_of("s2.cls", with_size(EIB))
)
fault("a size too small by blocks", "1", Lost("s2", "target", NO_LABEL), fault="no valid header at byte")(
    instead_of("s2.png", with_size(b"00000001000\0"))
)
fault("a size that takes the label in", "1 3", Lost("s2", "target", NO_LABEL))(
    lambda m: instead_of("s2.png", with_size(b"%011o\0" % (len(padded(m.image(2))) + 2 * BLOCK)))(m)
)
fault("a block of zeros between", "1", fault="has more data after its end marker")(
    lambda m: members(m.samples(1)) + bytes(BLOCK) + m.whole(2, 3)
)
fault("two tars put together", "1", fault="has more data after its end marker at byte")(lambda m: m.whole(1) + m.whole(2, 3))
fault("two tars put together, the first without an end", "1 2 3")(lambda m: members(m.samples(1)) + m.whole(2, 3))
fault("junk behind the end", "1 2 3", fault="has more data after its end marker at byte")(lambda m: m.whole() + b"junk")
fault("zeros behind the end", "1 2 3")(lambda m: m.whole() + bytes(10_000))

# ---------------------------------------------------------------------------------------------------------- not a tar file

table(
    ("an empty file", lambda m: b"", ""),
    fault="it is empty",
)
fault("only an end marker", "")(lambda m: END)
table(
    ("text", lambda m: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", ""),
    ("a page of HTML", lambda m: b"<!DOCTYPE html><title>503 Service Unavailable</title>" * 40, ""),
    ("a zip file", lambda m: b"PK\x03\x04" + bytes(range(256)) * 9, ""),
    ("noise", lambda m: np.random.default_rng(1).bytes(4000), ""),
    fault="no valid header at byte 0",
)

for name, write in (
    ("gzip", lambda m: gzip.compress(m.whole(), mtime=0)),
    ("bz2", lambda m: bz2.compress(m.whole())),
    ("xz", lambda m: lzma.compress(m.whole())),
):
    fault(f"{name} under another name", "1 2 3", suffix=f".{name}.tar")(write)

# -------------------------------------------------------------------------------------------------------------- compressed


def cut_gzip(make: Maker) -> bytes:
    """Stored, not compressed: it is known where it is cut."""
    data = make.whole()
    return gzip.compress(data, 0, mtime=0)[: place(data, "s3.png")[1] + 700]


def flipped(make: Maker) -> bytes:
    data = bytearray(gzip.compress(make.whole(), 0, mtime=0))
    data[-6] ^= 1
    return bytes(data)


for name, write, delivered, said in (
    ("gzip cut", cut_gzip, "1 2", "ends inside s3.png"),
    (
        "gzip cut in its own header",
        lambda m: gzip.compress(m.whole(), mtime=0)[:7],
        "",
        "ended before the end-of-stream marker",
    ),
    ("gzip with a wrong sum", flipped, "1 2 3", "CRC check failed"),
    ("gzip with junk behind", lambda m: gzip.compress(m.whole(), mtime=0) + b"junk", "1 2 3", "Not a gzipped file"),
    ("gzip with zeros behind", lambda m: gzip.compress(m.whole(), mtime=0) + bytes(512), "1 2 3", ""),
    ("gzip in two parts", lambda m: gzip.compress(m.whole()[:3000]) + gzip.compress(m.whole()[3000:]), "1 2 3", ""),
    ("gzip broken at its begin", lambda m: gzip.compress(m.whole(), mtime=0)[:10] + b"\xff" * 500, "", "error"),
    ("a tar that is not compressed", lambda m: m.whole(), "1 2 3", ""),
    ("an empty gzip", lambda m: gzip.compress(b""), "", "it is empty"),
):
    fault(name, delivered, fault=said, suffix=".tar.gz")(write)
fault("bzip2 cut", "", fault="ended before the end-of-stream marker", suffix=".tar.bz2")(
    lambda m: bz2.compress(m.whole())[:2000]
)
fault("xz cut", "", fault="ended before the end-of-stream marker", suffix=".tar.xz")(lambda m: lzma.compress(m.whole())[:900])
