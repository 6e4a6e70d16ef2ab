"""Values from JSON, checked for their kind, because a file may hold anything."""

from __future__ import annotations

from typing import Any


def text(value: Any) -> str:
    """Return the same value. Raises `TypeError` unless it is a string."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def count(value: Any) -> int:
    """Return the same value. Raises `TypeError` unless it is an integer of 0 … 2⁶³ − 1."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise TypeError(f"expected an integer >= 0, got {value!r}")
    return value
