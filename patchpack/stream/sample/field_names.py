"""Names of labels and texts: a member or column, or a field of the JSON object in it, such as ``"json:caption"``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from patchpack._shown import shown
from patchpack.errors import ConfigError, TargetError
from patchpack.stream.sample.names import nearest


class FieldName(NamedTuple):
    """The location of a label or a text in a sample.

    Attributes:
        member: extension of the member or file, or name of the column of a row, in lower case.
        field: name of a field of the JSON object in the member. None if the whole member is meant.
    """

    member: str
    field: str | None = None

    def __str__(self) -> str:
        return self.member if self.field is None else f"{self.member}:{self.field}"

    def of(self, what: str, value: object) -> object:
        """Return the value of the field in an object.

        Args:
            what: the word for the member in errors, such as "label".
            value: the result of `parse_object` for the member.

        Raises:
            TargetError: `value` is not an object with this field.
        """
        if not isinstance(value, Mapping) or self.field not in value:
            has = ", ".join(map(repr, value)) if isinstance(value, Mapping) else brief(value)
            hint = nearest(str(self.field), value) if isinstance(value, Mapping) else ""
            raise TargetError(f"{what} {self.member!r} has no field {self.field!r}, it has: {has}{hint}")
        return value[self.field]


def parse_name(name: str) -> FieldName | None:
    """Return the location that a name such as ``"json:caption"`` means. Return None for an empty member or field."""
    member, colon, field = name.partition(":")
    member = member.strip().lstrip(".").lower()
    return None if not member or (colon and not field) else FieldName(member, field or None)


def parse_label(name: object) -> FieldName:
    """Return the location of one label. Raises `ConfigError` for a value that is no name."""
    if not isinstance(name, str):
        raise ConfigError(f"target must be a name, a list of names for a dict of labels, or None for no labels, got {name!r}")
    found = parse_name(name)
    if found is None:
        raise ConfigError(f"target must name a member or column, such as 'cls', or a field, such as 'json:label', got {name!r}")
    return found


@lru_cache(maxsize=64)  # called for every sample
def label_names(target: str | tuple[str, ...] | None) -> tuple[FieldName, ...]:
    """Return the locations of all labels. Without labels the tuple is empty."""
    return tuple(map(parse_label, () if target is None else (target,) if isinstance(target, str) else target))


def parse_object(what: str, member: str, value: object) -> object:
    """Return the object in a member. JSON as text or bytes is parsed, and any other value is returned unchanged.

    Args:
        what: the word for the member in errors, "label" or "text".
        member: name of the member.
        value: contents of the member.

    Raises:
        TargetError: the bytes are not UTF-8, or the text is not JSON.
    """
    value = decoded(what, member, value)
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise TargetError(f"{what} {member!r} is not JSON: {error}") from None
    return value


def decoded(what: str, member: str, value: object) -> object:
    """Return bytes as text, and any other value unchanged.

    Args:
        what: the word for the member in errors, "label" or "text".
        member: name of the member.
        value: contents of the member.

    Raises:
        TargetError: the bytes are not UTF-8.
    """
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return value
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TargetError(f"{what} {member!r} is not UTF-8: {error.reason} at byte {error.start}") from None


def brief(value: object) -> str:
    """Return the type of a value and at most 60 characters of its text."""
    text = shown(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
