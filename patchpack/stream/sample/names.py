"""Names of columns and members: which were given by the user, and what a wrong one may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class Default(str):
    """A name that stands in a signature: nobody gave it, so other usual names may be looked for in its place.

    A name that a user gave is used, or refused.
    """

    __slots__ = ()


IMAGE = Default("jpg;jpeg;png;webp")
LABEL = Default("cls")


def nearest(name: str, there: Iterable[object]) -> str:
    """Return ``"; did you mean 'label'?"`` for the one of some names that resembles `name` most, and ``""`` if none does."""
    names = {str(other).lower(): str(other) for other in there}
    close = get_close_matches(name.lower(), names, 1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""
