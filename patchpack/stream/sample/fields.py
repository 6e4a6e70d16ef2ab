"""The fields that are read of every sample, and how much of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

from patchpack.image.formats import DEFAULT, MAX_BYTES, MAX_PIXELS, Reading
from patchpack.stream.sample.text import Text


@dataclass(frozen=True)
class SampleFields:
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

    def without_text(self) -> SampleFields:
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
