"""The parsing of the field names that users give. The result is a `SampleFields`."""

from __future__ import annotations

from collections.abc import Sequence

from patchpack.errors import ConfigError
from patchpack.stream.sample.field_names import label_names, parse_label
from patchpack.stream.sample.fields import NO_LIMITS, Limits, SampleFields
from patchpack.stream.sample.items import ToSample
from patchpack.stream.sample.names import IMAGE, Default


def require_callable(**functions: object) -> None:
    """Raise `ConfigError` for an argument that is neither None nor a function."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ConfigError(f"{name} must be a function, got a {type(function).__name__}")


def require_unnamed(members: SampleFields, to_sample: ToSample | None) -> None:
    """Raise `ConfigError` for a name of image or label together with `to_sample`, because the name would not be used."""
    if to_sample is None:
        return
    if members.image_given:
        raise ConfigError(f"image={';'.join(members.image)!r} cannot be used, because to_sample= makes the image: leave it out")
    if members.target_given and members.target is not None:
        raise ConfigError(f"target={members.target!r} cannot be used, because to_sample= makes the label: leave it out")


def parse_members(
    image: str | Sequence[str],
    target: str | tuple[str, ...] | None,
    frames: str | None = None,
    limits: Limits = NO_LIMITS,
) -> SampleFields:
    """Return the fields that are read from every sample.

    Args:
        image: extensions, columns or patterns of the image, as a list or separated by ``;``.
        target: name of the label, or several names for a dict of labels. ``"json:label"`` names the field ``label`` of the JSON
            object in ``json``. None reads no labels.
        frames: patterns of the frames of a clip. Default None: no clips.
        limits: limits and reading options that the recipe sets.

    Raises:
        ConfigError: extensions are empty, or frames are named and the recipe takes no clips.
    """
    extensions = _split("image", image, IMAGE)
    patterns = () if frames is None else _split("frames", frames, "*.jpg")
    labels: str | tuple[str, ...] | None
    if isinstance(target, (tuple, list)):
        if not target:
            raise ConfigError("target must name at least one label, or be None for no labels")
        labels = tuple(str(parse_label(name)) for name in target)
    else:
        labels = None if target is None else str(parse_label(target))
    if isinstance(image, Default):  # a name that the user chose for the label is not an image name too
        members = {name.member for name in label_names(labels)}
        extensions = tuple(extension for extension in extensions if extension not in members)
    named = SampleFields(
        extensions, labels, patterns, image_given=not isinstance(image, Default), target_given=not isinstance(target, Default)
    )
    return named.within(limits)


def _split(name: str, given: str | Sequence[str], such: str) -> tuple[str, ...]:
    if isinstance(given, (list, tuple)) and all(isinstance(part, str) for part in given):
        given = ";".join(given)
    if not isinstance(given, str):
        raise ConfigError(
            f"{name} must be a name, several joined with ';', or a list of names, such as {such!r}, got {given!r}"
        )
    extensions = tuple(filter(None, (e.strip().lstrip(".").lower() for e in given.split(";"))))
    if not extensions:
        raise ConfigError(f"{name} must name at least one extension, such as {such!r}, got {given!r}")
    return extensions
