"""Values out of JSON, held to their kind: a file may say anything."""

from __future__ import annotations

from typing import Any


def text(value: Any) -> str:
    """The same value. Raises `TypeError` for what is no string."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def count(value: Any) -> int:
    """The same value. Raises `TypeError` for what is no integer of 0 … 2⁶³ − 1."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise TypeError(f"{value!r} counts nothing")
    return value
