"""Internals of streams of Hugging Face's `datasets`: their format, the chain of generators, and a division among ranks.

`datasets` itself is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from inspect import iscoroutinefunction
from typing import Any


def may_have_format(stream: Any) -> bool:
    """Return False for a stream without a format. With a `datasets` that does not tell it is always True."""
    return getattr(stream, "_formatting", stream) is not None


def is_split_by_node(stream: Any) -> bool:
    """Return True for a stream of ``split_dataset_by_node``. With a `datasets` that does not tell it is always False."""
    return getattr(stream, "_distributed", None) is not None


# chains of these count exactly how many items they have read, and share no state with a copy
_EXACT = {
    "ArrowExamplesIterable",
    "RebatchedArrowExamplesIterable",
    "FormattedExamplesIterable",
    "SelectColumnsIterable",
    "MappedExamplesIterable",
    "FilteredExamplesIterable",
}


def stream_behind_error(stream: Any) -> tuple[Any, Any] | None:
    """Return a stream that begins behind the item for which `stream` raised in its last iteration.

    A stream is a chain of generators, and a generator ends with its first error. The rest is opened from
    ``stream.state_dict()``, which counts the item at fault as read.

    Returns:
        A copy of `stream` and the state it begins with. None if items could be lost, repeat, or get other numbers. Such streams
        have a shuffle buffer, several streams together, ``take`` or ``skip``, a generator of the user, or a function that takes
        several items or their numbers.
    """
    generators = list(_generators(getattr(stream, "_ex_iterable", None)))
    if not generators or not hasattr(stream, "state_dict") or not all(map(_is_exact, generators)):
        return None
    state = stream.state_dict()
    try:
        behind = deepcopy(stream)  # else the user's stream would begin there too
        behind.load_state_dict(state)
    except Exception:  # a function or its arguments cannot be copied
        return None
    return behind, state


def _is_exact(generator: Any) -> bool:
    return (
        type(generator).__name__ in _EXACT
        and not getattr(generator, "batched", False)
        and not getattr(generator, "with_indices", False)
        and not iscoroutinefunction(getattr(generator, "function", None))
    )


def _generators(first: Any) -> Iterator[Any]:
    """Yield the generators of a stream: `first`, the ones it reads from, and so on."""
    if first is not None:
        yield first
        for inner in (getattr(first, "ex_iterable", None), *getattr(first, "ex_iterables", ())):
            yield from _generators(inner)
