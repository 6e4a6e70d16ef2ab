"""The members of a tar file, one after another, from any file object. The faults of a broken file are reported.

The standard library reads headers slowly. So it reads only the first header of each kind. Headers of one kind differ only in
name, size, date and checksum. Their common part is remembered, and all further headers of the kind are read here. Pax headers
that only hold a file's date or name are also read here. webdataset's own writer puts such a pax header before every member.
GNU's long names are also read here. A test compares the result with the members that the standard library reads.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from patchpack.stream.tar.byte_reader import BLOCK, CHUNK, ByteReader
from patchpack.stream.tar.headers import Shape, behind, named, parse, unusual

UNREADABLE = (OSError, EOFError, tarfile.TarError)
HELD_BYTES = 1 << 30  # largest member whose bytes are kept: 16 bytes for each of 64 million pixels

_END = bytes(BLOCK)


_NOT_FILES = {
    tarfile.LNKTYPE: "a hard link to {}, which is not followed (tar --hard-dereference stores the file)",
    tarfile.SYMTYPE: "a symbolic link to {}, which is not followed (tar --dereference stores the file)",
    tarfile.CHRTYPE: "a device, which is not read",
    tarfile.BLKTYPE: "a device, which is not read",
    tarfile.FIFOTYPE: "a pipe, which is not read",
}


class Member(NamedTuple):
    """One member of a tar file that is not a folder: a regular file, or a member of another kind with a fault."""

    name: str
    where: tuple[int, int]  # offset, length
    data: bytes | None = None  # only if the file cannot seek
    fault: str = ""  # the reason if its bytes cannot be read


class CutError(tarfile.ReadError):
    """Raised if a tar file ends inside a member."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"ends inside {name} ({why})")
        self.name = name


def read_members(reader: ByteReader, held: Callable[[str, int], bool] | None = None) -> Iterator[Member]:
    """Yield the members of a tar file in order, up to its end marker.

    Folders are skipped. Links, devices and other kinds of member have a fault.

    Args:
        reader: the byte reader of the file.
        held: a function that takes (name, number of bytes) of a member, and returns True if its bytes are to be kept in
            `Member.data`. Default None: no bytes are kept.

    Raises:
        CutError: the file ends inside a member. The error names the member.
        tarfile.ReadError: a header is invalid, the end marker is missing, or bytes follow the end marker. The error names the
            offset.
        OSError, EOFError: the file cannot be read further.
    """
    read = reader.read
    shapes: dict[bytes, Shape] = {}
    shared: dict[str, str] = {}  # records of pax headers that hold for all later members
    front, before = b"", None
    at = 0
    while (block := read(at, BLOCK)) != _END:
        fault, begin, known = "", at + BLOCK, block
        if shared:
            parsed = None
        elif block == front:  # pax headers repeat exactly if their records have the same length
            parsed = before
        else:
            parsed = parse(block, shapes)
        if parsed is not None and parsed[0] not in b"0\0":
            front, before = block, parsed
            more = behind(read, begin, parsed[2])
            known, begin = block + more, begin + len(more)
            parsed = named(parsed, more, shapes)
        if parsed is not None:
            _, name, size = parsed
            regular, stop = True, begin + size
            following = stop + -size % BLOCK
        else:
            info, following = unusual(read, at, known, shared)
            name, begin, size, regular = info.name, info.offset_data, info.size, info.isreg()
            stop = begin + size if regular else following
            if info.issparse():
                fault, stop = f"{name} is stored with holes (a sparse file), which is not read", following
            elif not regular and not info.isdir():
                what = _NOT_FILES.get(info.type, f"of a kind that is not read ({info.type!r})")
                fault = f"{name} is {what.format(info.linkname)}"
        data = None
        if held is not None and regular and not fault and held(name, size):
            if size > HELD_BYTES:
                fault = f"{name} has {size} bytes, more than the {HELD_BYTES} that are read from a stream"
            else:
                data = _data(read, name, begin, size)
        if data is None and stop > reader.end:
            _pass(reader, name, size, stop)
        if regular or fault:
            yield Member(name, (begin, size), data, fault)
        at = following
    _check_rest(read, at + BLOCK)


def _data(read: Callable[[int, int], bytes], name: str, begin: int, size: int) -> bytes:
    try:
        data = read(begin, size)
    except UNREADABLE as error:
        raise CutError(name, str(error)) from None
    if len(data) != size:
        raise CutError(name, f"its header says {size} bytes, the file has {len(data)}")
    return data


def _pass(reader: ByteReader, name: str, size: int, stop: int) -> None:
    try:
        there = size - (stop - reader.reach(stop))
    except UNREADABLE as error:
        raise CutError(name, str(error)) from None
    if there != size:
        raise CutError(name, f"its header says {size} bytes, the file has {max(0, there)}")


def _check_rest(read: Callable[[int, int], bytes], at: int) -> None:
    """Raise `tarfile.ReadError` unless only zeros follow the end marker."""
    begin = at
    while chunk := read(at, CHUNK):
        if chunk != bytes(len(chunk)):
            raise tarfile.ReadError(
                f"has more data after its end marker at byte {begin - BLOCK} (joined tar files?), which was not read"
            )
        at += len(chunk)
