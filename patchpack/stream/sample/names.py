"""Names of columns and members: names given by the user, and suggestions for a wrong name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import Any


class Default(str):
    """A default name in a signature. If the user does not give a name, other common names may be tried instead of this one.

    A name that the user gives is never replaced by another name.
    """

    __slots__ = ()


IMAGE = Default("jpg;jpeg;png;webp")
LABEL = Default("cls")


def function_name(function: Callable[..., Any] | None) -> str | None:
    """Return the qualified name of a function, or of the class of a callable object, without its module.

    Return None for None.
    """
    while isinstance(function, partial):
        function = function.func
    if function is None:
        return None
    name: str = getattr(function, "__qualname__", type(function).__qualname__)
    return name


def nearest(name: str, there: Iterable[object]) -> str:
    """Return ``"; did you mean 'label'?"`` for the name that resembles `name` most, or ``""`` if no name does."""
    return _nearest(name, tuple(map(str, there)))


@lru_cache(maxsize=256)  # the samples of a shard have the same names, and each of them may be rejected
def _nearest(name: str, there: tuple[str, ...]) -> str:
    names = {other.lower(): other for other in there}
    close = get_close_matches(name.lower(), names, 1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def nearest_member(wanted: Iterable[str], there: Iterable[object]) -> str:
    """Return a suggestion for names of images that are not in `there`, or ``""``. The form is that of `nearest`.

    Some of the names in `wanted` may be patterns.

    Members are named by their extension without its dot, so the pattern ``*.png`` does not match the member ``png``.
    """
    names = [str(name) for name in there]
    for name in wanted:
        bare = name.rpartition("*")[2].lstrip(".")
        hint = f"; did you mean {bare!r}?" if "*" in name and bare in names else nearest(name, names)
        if hint:
            return hint
    return ""
