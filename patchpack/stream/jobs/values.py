"""Values from JSON, checked against declared types, because a file may hold anything."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from msgspec import Meta, convert

Value = TypeVar("Value")

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""An integer of 0 … 2⁶³ − 1."""


def decode(text: bytes, kind: type[Value]) -> Value:
    """Return the value of a JSON text as an instance of `kind`. Raise an error if the text is invalid or of another kind.

    The error is a `ValidationError`, a `ValueError` or a `RecursionError`.
    """
    return convert(json.loads(text), kind)  # msgspec's own parser refuses file names that are not UTF-8
