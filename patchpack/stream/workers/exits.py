"""Iterators that are still open when the interpreter ends are closed first, while there are modules to close them with."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Generator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

_T = TypeVar("_T")

_PATIENCE = 5.0  # seconds for a thread to come to the end of the batch it is at
_open: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # → the process that began it
_ending = False


def closed_at_exit(iterator: Generator[_T, None, None]) -> Generator[_T, None, None]:
    """Return the items of an iterator, which is closed before the interpreter ends if it is still open.

    A thread that runs it then is at its end with the item it is at: the interpreter would end it somewhere inside of torch.
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
            del item  # before the next one is waited for: its memory may be painted again
    finally:
        iterator.close()


@atexit.register
def _close_all() -> None:
    global _ending
    _ending = True
    until = time.monotonic() + _PATIENCE
    try:
        for iterator, process in list(_open.items()):
            while process == os.getpid():  # in a process that was forked, workers and threads are the parent's
                try:
                    iterator.close()
                    break
                except ValueError:  # another thread is running it
                    if time.monotonic() > until:
                        break
                    time.sleep(0.001)
    finally:
        _ending = False
