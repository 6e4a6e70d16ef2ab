"""Tar members to whole samples, every fault an account.

A sample is a run of members that share everything up to the first dot of the file name; the rest is the member's extension.
Grouping is ours and not webdataset's, because what a broken shard loses has to be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

from patchpack.paint.decode import DEFAULT, MAX_BYTES, MAX_PIXELS, Reading
from patchpack.stream.archive import Member
from patchpack.stream.text import Text


@dataclass(frozen=True)
class Members:
    """Which members of a sample are asked for; only these are ever opened.

    Attributes:
        image: extensions of the image, the first present is taken; or patterns (``*.jpg``), of which all are.
        target: extension of the label, several for a dict of labels, None for none.
        max_pixels: limit checked on the image header.
        max_bytes: limit of an image file, and of a text, checked before it is read.
        frames: patterns of members, or of columns, that are the frames of a clip; a sample that has some is one, whatever
            images are beside them.
        clips: the recipe takes clips.
        text: where the text is and what makes tokens of it, None for none.
        reading: how image files are read.
        image_given: the user named the image; otherwise a row's image may also be in column ``image``.
        target_given: the user named the label; otherwise a row's label may also be in column ``label``, and files in class
            folders are labelled by these.
    """

    image: tuple[str, ...]
    target: str | tuple[str, ...] | None
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    frames: tuple[str, ...] = ()
    clips: bool = False
    text: Text | None = None
    reading: Reading = DEFAULT
    image_given: bool = field(default=True, compare=False)
    target_given: bool = field(default=True, compare=False)

    @cached_property
    def several(self) -> bool:
        """True where a sample's images are all that fit a pattern."""
        return any("*" in extension for extension in self.image)

    def images_of(self, extensions: Iterable[str]) -> list[str]:
        """Which of a sample's extensions are its images, in order; several only for patterns, numbers in them by value."""
        there = list(extensions)
        if not self.several:
            return [extension for extension in self.image if extension in there]
        return _matching(there, self.image)

    def frames_of(self, extensions: Iterable[str]) -> list[str]:
        """Which of a sample's extensions are frames of its clip, in order, numbers in them by value; none of an image."""
        return _matching(extensions, self.frames) if self.frames else []

    def is_image(self, extension: str) -> bool:
        """True for the extension of an image, whichever of them is taken."""
        if extension in self.image or (self.several and bool(self.images_of([extension]))):
            return True
        return bool(self.frames_of([extension]))

    def without_text(self) -> Members:
        """What is left to read of a sample once it is planned."""
        return replace(self, text=None)

    @property
    def labels(self) -> tuple[str, ...]:
        """Extensions of all labels, none to several."""
        if self.target is None:
            return ()
        return (self.target,) if isinstance(self.target, str) else self.target


def _matching(extensions: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    return sorted((e for e in extensions if any(fnmatchcase(e, pattern) for pattern in patterns)), key=_by_value)


def _by_value(extension: str) -> list[tuple[int, str]]:
    """``10.jpg`` comes after ``9.jpg``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split("([0-9]+)", extension)]


@dataclass
class Group:
    """The members of one sample by extension; `fault` says why it cannot be used."""

    stem: str
    members: dict[str, Member] = field(default_factory=dict)
    fault: str = ""


class Grouper:
    """Members in, whole samples out: a sample is whole when a member of another one begins."""

    def __init__(self, asked: Members) -> None:
        self._asked = asked
        self._open: Group | None = None
        self._done: set[str] = set()

    def add(self, member: Member) -> Group | None:
        """Take the next member; the sample that is whole now, if this one begins another."""
        if member.fault and not asked_for(member.name, self._asked):
            return None  # a link that nobody asked for begins no sample
        stem, extension = split_name(member.name)
        group, whole = self._open, None
        if group is None or stem != group.stem:
            whole = self.close()
            group = self._open = Group(stem)
            if stem in self._done:
                group.fault = "this key came before in the same shard: its members are doubled or not side by side"
        if extension in group.members:
            group.fault = group.fault or f"two members named {member.name}"
        group.members[extension] = member
        return whole

    def cut(self, name: str) -> None:
        """The shard ends inside this member: its sample is not whole."""
        if self._open is None or self._open.stem != split_name(name)[0]:
            return  # a sample of which nothing arrived; the shard's fault names the member
        if asked_for(name, self._asked):
            self._open.fault = self._open.fault or f"the shard ends inside {name}"

    def close(self) -> Group | None:
        """The sample that is left at the end, if there is one."""
        group, self._open = self._open, None
        if group is not None:
            self._done.add(group.stem)
        return group


def split_name(name: str) -> tuple[str, str]:
    """Member name to (stem, extension): the stem runs to the first dot of the file name, a leading dot not counted.

    >>> split_name("a/b.c/img.seg.PNG")
    ('a/b.c/img', 'seg.png')
    """
    dot = name.find(".", name.rfind("/") + 2)
    return (name, "") if dot < 0 else (name[:dot], name[dot + 1 :].lower())


def asked_for(name: str, asked: Members, size: int = 0) -> bool:
    """True if a member of this name, and of so many bytes, is ever opened."""
    extension = split_name(name)[1]
    limited = asked.is_image(extension) or (asked.text is not None and extension == asked.text.member)
    return (limited and size <= asked.max_bytes) or extension in asked.labels
