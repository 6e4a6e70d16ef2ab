"""Tar members to whole samples, every fault an account.

A sample is a run of members that share everything up to the first dot of the file name; the rest is the member's extension.
Headers are read by the standard library; grouping is ours, because what a broken shard loses has to be named.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

UNREADABLE = (OSError, EOFError, tarfile.TarError)


@dataclass(frozen=True)
class Members:
    """Which members of a sample are asked for; only these are ever opened.

    Attributes:
        image: extensions of the image, the first present is taken.
        target: extension of the label, several for a dict of labels, None for none.
        max_pixels: limit checked on the image header.
    """

    image: tuple[str, ...]
    target: str | tuple[str, ...] | None
    max_pixels: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Extensions of all labels, none to several."""
        if self.target is None:
            return ()
        return (self.target,) if isinstance(self.target, str) else self.target


class Member(NamedTuple):
    """One regular file of a tar."""

    name: str
    where: tuple[int, int]  # offset, length
    data: bytes | None  # held only where the shard cannot seek


@dataclass
class Group:
    """The members of one sample by extension; `fault` says why it cannot be used."""

    stem: str
    members: dict[str, Member] = field(default_factory=dict)
    fault: str = ""


class TarHeader(tarfile.TarInfo):
    """A tar header, or a `tarfile.ReadError` that says why there is none.

    The standard library takes every block that is no header for the end of the archive, in silence.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Any:
        begin = tar.offset
        try:
            info = super().fromtarfile(tar)
        except (tarfile.EOFHeaderError, tarfile.ReadError, OSError, EOFError):  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            lost = f"no end marker at byte {begin}, what followed is lost" if begin else "it is empty"
            raise tarfile.ReadError(lost) from None
        except Exception as error:
            raise tarfile.ReadError(f"no valid header at byte {begin} ({error}), what follows was not read") from None
        if info.size < 0:
            raise tarfile.ReadError(f"{info.name} announces {info.size} bytes, what follows was not read")
        return info


def unread_rest(tar: tarfile.TarFile) -> str | None:
    """What stands behind the end marker, where nothing but zeros should."""
    while chunk := tar.fileobj.read(1 << 20):
        if chunk.strip(b"\0"):
            return f"goes on after its end marker at byte {tar.offset} (tar files put together?), what follows was not read"
    return None


class Grouper:
    """Members in, whole samples out: a sample is whole when a member of another one begins."""

    def __init__(self, asked: Members) -> None:
        self._asked = asked
        self._open: Group | None = None
        self._done: set[str] = set()

    def add(self, member: Member) -> Iterator[Group]:
        stem, extension = split_name(member.name)
        if self._open is None or stem != self._open.stem:
            yield from self.close()
            self._open = Group(stem)
            if stem in self._done:
                self._open.fault = "this key came before in the same shard: its members are doubled or not side by side"
        group = self._open
        if extension in group.members:
            group.fault = group.fault or f"two members named {member.name}"
        group.members[extension] = member

    def cut(self, name: str) -> None:
        """The shard ends inside this member: its sample is not whole."""
        if self._open is None or self._open.stem != split_name(name)[0]:
            return  # a sample of which nothing arrived; the shard's fault names the member
        if asked_for(name, self._asked):
            self._open.fault = self._open.fault or f"the shard ends inside {name}"

    def close(self) -> Iterator[Group]:
        if self._open is not None:
            self._done.add(self._open.stem)
            group, self._open = self._open, None
            yield group


def split_name(name: str) -> tuple[str, str]:
    """Member name to (stem, extension): the stem runs to the first dot of the file name, a leading dot not counted.

    >>> split_name("a/b.c/img.seg.PNG")
    ('a/b.c/img', 'seg.png')
    """
    folder, slash, base = name.rpartition("/")
    dot = base.find(".", 1)
    if dot < 0:
        return name, ""
    return folder + slash + base[:dot], base[dot + 1 :].lower()


def asked_for(name: str, asked: Members) -> bool:
    """True if a member of this name is ever opened."""
    extension = split_name(name)[1]
    return extension in asked.image or extension in asked.labels
