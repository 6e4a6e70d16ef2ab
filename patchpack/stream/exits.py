"""Iterators that are still open when the interpreter ends are closed first, while there are modules to close them with."""

from __future__ import annotations

import atexit
import os
from collections.abc import Generator
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

_Iterator = TypeVar("_Iterator", bound=Generator[Any, None, None])

_open: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # → the process that began it


def closed_at_exit(iterator: _Iterator) -> _Iterator:
    """Return the iterator, which is closed before the interpreter ends if it is still there."""
    _open[iterator] = os.getpid()
    return iterator


@atexit.register
def _close_all() -> None:
    for iterator, process in list(_open.items()):
        if process == os.getpid():  # in a process that was forked, workers and threads are the parent's
            with suppress(ValueError):  # it is being run by another thread
                iterator.close()
