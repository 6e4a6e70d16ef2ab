"""Names, groups, kinds of members, and what pax records say of them."""

from __future__ import annotations

import tarfile
from collections.abc import Callable

from helpers.faults.table import AGAIN, NO_IMAGE, NO_LABEL, Lost, between, fault
from helpers.painted import BLOCK, END, Maker, header, member, members, padded, pax, record, summed

# -------------------------------------------------------------------------------------------------------- names and groups


def renamed(stem: str, format: int = tarfile.GNU_FORMAT) -> Callable[[Maker], bytes]:
    return between(lambda m: members(m.sample(2, stem), format))


def as_2(stem: str) -> dict[str, int]:
    return {"s1": 1, stem: 2, "s3": 3}


LONG = "k" * 130 + "/" + "y" * 129
for name, stem in (
    ("a key with dots in its folders", "v1.2/a.b/s2"),
    ("a key in unicode", "käse/漢字🦆"),
    ("a key with a leading dot", ".s2"),
    ("an absolute name", "/etc/s2"),
    ("a name that leads out", "../../s2"),
    ("a name from here", "./s2"),
    ("a name with a line break and a quote", 's\n2"\\'),
    ("a name with spaces", " s 2 "),
    ("a name that is no UTF-8", b"s\xff2".decode("utf-8", "surrogateescape")),
    ("a key of 260 characters", LONG),
):
    fault(name, as_2(stem))(renamed(stem))
fault("a key of 260 characters in pax records", as_2(LONG))(renamed(LONG, tarfile.PAX_FORMAT))
fault("extensions in capitals", "1 2 3")(between(lambda m: members([("s2.PNG", m.image(2)), ("s2.CLS", m.cls(2))])))
fault("the label first", "1 2 3")(lambda m: members(m.samples(1, 2, 3)[::-1]) + END)
fault("a key with dots", "1 3", Lost("s2", "read", "it has: v2.cls, v2.png", ""))(renamed("s2.v2"))
fault("a doubled image", "1 3", Lost("s2", "read", "two members are named s2.png"))(
    between(lambda m: members([m.sample(2)[0], ("s2.png", m.image(9)), m.sample(2)[1]]))
)
fault("a doubled label", "1 3", Lost("s2", "read", "two members are named s2.cls"))(
    between(lambda m: members([*m.sample(2), ("s2.cls", m.cls(9))]))
)
fault("a key that comes again", "1 2 3", Lost("s1", "read", AGAIN))(
    lambda m: members([*m.samples(1, 2), *m.sample(9, "s1")]) + m.whole(3)
)
fault("the same sample twice", "1 3", Lost("s2", "read", "two members are named s2.png"))(
    between(lambda m: members(m.samples(2, 2)))
)
fault(
    "members in columns",
    "",
    Lost("s1", "target", NO_LABEL),
    Lost("s2", "target", NO_LABEL),
    Lost("s1", "read", AGAIN, ""),
    Lost("s2", "read", AGAIN, ""),
)(lambda m: members(sorted(m.samples(1, 2), key=lambda entry: entry[0][3:], reverse=True)) + END)
fault("a label that comes late", "1 3", Lost("s2", "target", NO_LABEL), Lost("s2", "read", AGAIN, ""))(
    lambda m: members([*m.samples(1), m.sample(2)[0], *m.samples(3), m.sample(2)[1]]) + END
)
fault(
    "files of a Mac between",
    "1 3",
    Lost("._s2", "target", NO_LABEL, "._s2.png"),
    Lost("s2", "target", NO_LABEL),
    Lost("._s2", "read", AGAIN, ""),
    Lost("s2", "read", AGAIN, ""),
)(between(lambda m: members([("._s2.png", b"\0\5\x16\7"), m.sample(2)[0], ("._s2.cls", b"\0\5\x16\7"), m.sample(2)[1]])))
fault("a name of nothing", "1 3", Lost("", "read", "no image member (jpg;jpeg;png;webp), it has: ", ""))(
    between(lambda m: summed(header("x"), (0, b"\0")))
)
fault("a readme", "1 3", Lost("README", "read", "no image member (jpg;jpeg;png;webp), it has: ", ""))(
    between(lambda m: member("README", b"read me"))
)
fault("a missing label", "1 3", Lost("s2", "target", NO_LABEL))(between(lambda m: members(m.sample(2)[:1])))
fault("a missing image", "1 3", Lost("s2", "read", NO_IMAGE, ""))(between(lambda m: members(m.sample(2)[1:])))
fault("only members nobody asked for", "1 3", Lost("s2", "read", "it has: json, txt", ""))(
    between(lambda m: members([("s2.json", b"{}"), ("s2.txt", b"two")]))
)

# -------------------------------------------------------------------------------------------------------- kinds of members


def linked(kind: bytes, *names: str) -> Callable[[Maker], bytes]:
    """Of the second sample, these members are no files."""
    return between(
        lambda m: b"".join(
            header(name, kind=kind, link="s1." + name[3:]) if name in names else member(name, data)
            for name, data in m.sample(2)
        )
    )


for name, kind, what in (
    ("a hard link", tarfile.LNKTYPE, "is a hard link to s1."),
    ("a symbolic link", tarfile.SYMTYPE, "is a symbolic link to s1."),
    ("a device", tarfile.CHRTYPE, "is a device"),
    ("a pipe", tarfile.FIFOTYPE, "is a pipe"),
    ("an unknown kind", b"Z", "is of a kind that is not read (b'Z')"),
    ("a part of another volume", b"M", "is of a kind that is not read (b'M')"),
):
    fault(f"{name} for an image", "1 3", Lost("s2", "read", f"s2.png {what}"))(linked(kind, "s2.png"))
    fault(f"{name} for a label", "1 3", Lost("s2", "read", f"s2.cls {what}", "s2.cls"))(linked(kind, "s2.cls"))
fault("a sample of links", "1 3", Lost("s2", "read", "s2.png is a hard link to s1.png"))(
    linked(tarfile.LNKTYPE, "s2.png", "s2.cls")
)
fault("a link beside an image", "1 2 3")(
    between(lambda m: header("s2.jpg", kind=tarfile.SYMTYPE, link="s1.png") + members(m.samples(2)))
)
fault("links and folders nobody asked for", "1 2 3")(
    between(
        lambda m: (
            header("s/", kind=tarfile.DIRTYPE)
            + header("latest", kind=tarfile.SYMTYPE, link="s1.png")
            + header("dev/null", kind=tarfile.CHRTYPE)
            + members(m.samples(2))
        )
    )
)
fault("a folder for an image", "1 3", Lost("s2", "read", NO_IMAGE, ""))(linked(tarfile.DIRTYPE, "s2.png"))
fault("a contiguous file", "1 2 3")(
    between(lambda m: header("s2.png", len(m.image(2)), tarfile.CONTTYPE) + padded(m.image(2)) + members(m.sample(2)[1:]))
)
HOLE = (386, b"%011o\0%011o\0" % (4096, BLOCK)), (483, b"%011o\0" % (4096 + BLOCK))
fault("a sparse image", "1 3", Lost("s2", "read", "s2.png is stored with holes (a sparse file)"))(
    between(lambda m: summed(header("s2.png", BLOCK, tarfile.GNUTYPE_SPARSE), *HOLE) + bytes(BLOCK) + members(m.sample(2)[1:]))
)
fault("a sparse image in pax records", "1 3", Lost("s2", "read", "s2.png is stored with holes (a sparse file)"))(
    between(
        lambda m: (
            pax(
                record("GNU.sparse.major", "1")
                + record("GNU.sparse.minor", "0")
                + record("GNU.sparse.name", "s2.png")
                + record("GNU.sparse.realsize", "8000")
            )
            + header("GNUSparseFile.0/s2.png", 2 * BLOCK)
            + padded(b"1\n0\n512\n")
            + bytes(BLOCK)
            + members(m.sample(2)[1:])
        )
    )
)

# --------------------------------------------------------------------------------------------------------------------- pax


def with_records(records: bytes, kind: bytes = tarfile.XHDTYPE) -> Callable[[Maker], bytes]:
    return between(lambda m: pax(records, kind) + members(m.samples(2)))


fault("pax records that matter nothing", "1 2 3")(
    with_records(record("comment", "7 path=x\n") + record("mtime", "1.5") + record("LIBARCHIVE.x", "y"))
)
fault("a path in pax records", "1 2 3")(
    between(lambda m: pax(record("path", "s2.png")) + member("nobody", m.image(2)) + members(m.sample(2)[1:]))
)
fault("a size in pax records", "1 2 3")(
    between(
        lambda m: pax(record("size", str(len(m.image(2))))) + header("s2.png") + padded(m.image(2)) + members(m.sample(2)[1:])
    )
)
fault("a path in pax records, as raw bytes", as_2("s\udcff"))(
    between(
        lambda m: (
            pax(record("hdrcharset", "BINARY") + b"15 path=s\xff.png\n")
            + member("nobody", m.image(2))
            + members([("s\udcff.cls", m.cls(2))])
        )
    )
)
fault("a comment for all", "1 2 3")(with_records(record("comment", "of git archive"), tarfile.XGLTYPE))
fault("a path for all", "1", Lost("one", "read", "two members are named one.png"))(
    lambda m: members(m.samples(1)) + pax(record("path", "one.png"), tarfile.XGLTYPE) + m.whole(2, 3)
)
for name, records, said in (
    ("a size below zero in pax records", record("size", "-1024"), "its records say b'-1024' bytes"),
    ("a size that is no number in pax records", record("size", "much"), "its records say b'much' bytes"),
    ("records that are cut", b"99 path=s2.png\n", "its records are damaged"),
    ("a record of no length", b"0 path=x\n", "its records are damaged"),
    ("records that are no records", b"\xff" * 100, "its records are damaged"),
):
    fault(name, "1", fault=said)(with_records(records))
fault("pax records of 8 GiB", "1", fault="a header may have 65536 at most")(
    between(lambda m: summed(pax(b""), (124, b"77777777777\0")) + members(m.samples(2)))
)
fault("long names without an end", "1", fault="a header may have 65536 at most")(
    between(lambda m: (header("././@LongLink", 1, b"L") + padded(b"x")) * 300 + members(m.samples(2)))
)
