"""The fields that are read from every sample, and the limits on reading them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from patchpack.errors import ConfigError
from patchpack.image.decode import WHITE, Colour
from patchpack.image.formats import DEFAULT, MAX_BYTES, MAX_PIXELS, Reading, reading_of, require_readable
from patchpack.plan.recipe import Recipe
from patchpack.stream.sample.field_names import label_names
from patchpack.stream.sample.names import function_name
from patchpack.stream.sample.text import Text


@dataclass(frozen=True)
class Limits:
    """The part of a recipe that scanning and reading a source depend on.

    Attributes:
        max_pixels: largest number of pixels of an image, checked on its header. Default 64 million.
        max_bytes: largest size in bytes of an image file or of a text, checked before reading. Default 512 MiB.
        clips: True if clips are read. Default True, because a source may be opened without a recipe.
        reading: options for reading image files, and for PIL images that are sent to a worker.
        background: colour put under a transparent PIL image that is sent to a worker. Default white.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    clips: bool = True
    reading: Reading = DEFAULT
    background: Colour = WHITE

    @classmethod
    def of(cls, recipe: Recipe) -> Limits:
        """Return the limits of a recipe. Raises `ConfigError` if the installed Pillow cannot read images as the recipe asks."""
        reading = reading_of(recipe)
        require_readable(reading)
        return cls(recipe.max_pixels, recipe.max_bytes, recipe.video is not None, reading, recipe.background)


NO_LIMITS = Limits()


@dataclass(frozen=True)
class SampleFields:
    """The names of the members that are read from every sample. No other member is opened.

    Attributes:
        image: extensions of the image, or patterns. Among extensions, the first one that a sample has is used. A pattern
            (``*.jpg``) stands for all members that match it.
        target: name of the label: an extension, or a field such as ``json:label``. With several names the target is a dict of
            labels. None reads no labels.
        frames: patterns of members, or of columns, that are the frames of a clip. A sample with such members is a clip, even if
            it has other images.
        text: location of the text, and the tokenizer. None reads no texts.
        limits: limits and reading options that the recipe sets.
        image_given: True if the user named the image. Otherwise a row's image may also be in column ``image``.
        target_given: True if the user named the label. Otherwise a row's label may also be in column ``label``, and files in
            class folders get their label from the folder.
    """

    image: tuple[str, ...]
    target: str | tuple[str, ...] | None
    frames: tuple[str, ...] = ()
    text: Text | None = None
    limits: Limits = NO_LIMITS
    image_given: bool = field(default=True, compare=False)
    target_given: bool = field(default=True, compare=False)

    @cached_property
    def several(self) -> bool:
        """True if `image` holds patterns, so that a sample may have several images."""
        return any("*" in extension for extension in self.image)

    def images_of(self, extensions: Iterable[str]) -> list[str]:
        """Return the extensions of a sample's images, in order.

        The extensions that match a pattern are sorted by the numbers in them.
        """
        there = list(extensions)
        if not self.several:
            return [extension for extension in self.image if extension in there]
        return _matching(there, self.image)

    def frames_of(self, extensions: Iterable[str]) -> list[str]:
        """Return the extensions of the frames of a sample's clip, sorted by the numbers in them.

        For a sample without frames, return an empty list.
        """
        return _matching(extensions, self.frames) if self.frames else []

    def is_image(self, extension: str) -> bool:
        """Return True for an extension that may be an image or a frame."""
        if extension in self.image or (self.several and bool(self.images_of([extension]))):
            return True
        return bool(self.frames_of([extension]))

    def within(self, limits: Limits) -> SampleFields:
        """Return these fields with other limits. Raises `ConfigError` if frames are named and the recipe takes no clips."""
        if self.frames and not limits.clips:
            raise ConfigError(
                f"frames={';'.join(self.frames)!r} makes clips, but the recipe has video=None: use a recipe with "
                f"video=Video(...)"
            )
        return replace(self, limits=limits)

    def without_text(self) -> SampleFields:
        """Return the fields without the text. After a sample is planned, its text is not read again."""
        return replace(self, text=None)

    def names(self) -> dict[str, Any]:
        """Return a JSON-safe dict from each option to the names of fields that the option gave."""
        return {
            "image": list(self.image),
            "target": list(self.target) if isinstance(self.target, tuple) else self.target,
            "frames": list(self.frames),
            "tokenize": None if self.text is None else function_name(self.text.tokenize),
        }

    def item_names(self, to_sample: Callable[..., Any] | None) -> dict[str, Any]:
        """Return `names` for the items of a dataset or an iterable, together with the name of the user's function.

        Columns of items have other default names than members of shards.

        Args:
            to_sample: the user's function that makes samples of the items. None for items of a known kind.
        """
        names = self.names()
        if not self.image_given:
            names["image"] = [*self.image, "image"]
        if self.target is not None and not self.target_given:
            names["target"] = [*self.labels, "label"]
        return {**names, "to_sample": function_name(to_sample)}

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Extensions of the members that hold labels, each once. The tuple is empty if no labels are read."""
        return tuple(dict.fromkeys(name.member for name in label_names(self.target)))


def _matching(extensions: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    return sorted((e for e in extensions if any(fnmatchcase(e, pattern) for pattern in patterns)), key=_by_value)


def _by_value(extension: str) -> list[tuple[int, str]]:
    """Return a key for sorting that puts ``10.jpg`` after ``9.jpg``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split("([0-9]+)", extension)]
