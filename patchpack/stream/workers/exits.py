"""The closing of open iterators at exit, before the interpreter unloads modules that are needed to close them."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Generator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

_T = TypeVar("_T")

_PATIENCE = 5.0  # seconds for a thread to finish its current batch
_open: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # → the id of the process that began it
_ending = False


def closed_at_exit(iterator: Generator[_T, None, None]) -> Generator[_T, None, None]:
    """Yield the items of an iterator. If the iterator is still open when the interpreter is about to end, close it.

    If another thread is running the iterator at that time, the iterator ends after its current item. Otherwise the interpreter
    would stop this thread inside torch.
    """
    items = _until_exit(iterator)
    _open[items] = os.getpid()
    return items


def _until_exit(iterator: Generator[_T, None, None]) -> Generator[_T, None, None]:
    try:
        for item in iterator:
            if _ending:
                return
            yield item
            del item  # before waiting for the next item: the memory of this one may be reused
    finally:
        iterator.close()


@atexit.register
def _close_all() -> None:
    global _ending
    _ending = True
    until = time.monotonic() + _PATIENCE
    try:
        for iterator, process in list(_open.items()):
            while process == os.getpid():  # a forked process does not own the workers and threads
                try:
                    iterator.close()
                    break
                except ValueError:  # another thread is running it
                    if time.monotonic() > until:
                        break
                    time.sleep(0.001)
    finally:
        _ending = False
