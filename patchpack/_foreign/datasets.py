"""Internals of the streams of Hugging Face's `datasets`: the format, the generators, and the division among ranks.

This module does not import `datasets`.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from inspect import iscoroutinefunction
from typing import Any


def may_have_format(stream: Any) -> bool:
    """Return True if a stream has a format, or if `datasets` does not show the format. Return False if it has none."""
    return getattr(stream, "_formatting", stream) is not None


def is_split_by_node(stream: Any) -> bool:
    """Return True if ``split_dataset_by_node`` made the stream. Return False otherwise, or if `datasets` does not show it."""
    return getattr(stream, "_distributed", None) is not None


# a chain of these generators counts exactly how many items it has read, and shares no state with its copy
_EXACT = {
    "ArrowExamplesIterable",
    "RebatchedArrowExamplesIterable",
    "FormattedExamplesIterable",
    "SelectColumnsIterable",
    "MappedExamplesIterable",
    "FilteredExamplesIterable",
}


def stream_behind_error(stream: Any) -> tuple[Any, Any] | None:
    """Return a copy of a stream that begins after the item at which the last iteration of `stream` raised an error.

    A stream is a chain of generators, and a generator ends with its first error. Therefore a copy of the stream continues from
    ``stream.state_dict()``, which counts the item with the error as read.

    Returns:
        A copy of `stream`, and the state with which the copy begins. None if the copy could lose items, repeat items, or number
        items differently. This is the case for a stream with a shuffle buffer, with several combined streams, with ``take`` or
        ``skip``, with a user's generator, or with a function that takes batches of items or item numbers.
    """
    generators = list(_generators(getattr(stream, "_ex_iterable", None)))
    if not generators or not hasattr(stream, "state_dict") or not all(map(_is_exact, generators)):
        return None
    state = stream.state_dict()
    try:
        behind = deepcopy(stream)  # without a copy, the user's own stream would begin there too
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
    """Yield the generators of a stream: `first`, the generators from which `first` reads, and so on."""
    if first is not None:
        yield first
        for inner in (getattr(first, "ex_iterable", None), *getattr(first, "ex_iterables", ())):
            yield from _generators(inner)
