"""A context that silences the libtiff inside Pillow. libtiff may print a line to standard error for every row of a broken file.

libtiff has one handler of messages for the whole process. The handler is removed when the first thread begins to read a TIFF
file, and restored when no thread reads a TIFF file. Pillow still raises an error with a reason for a broken file.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from typing import Any

from PIL import Image

_lock = threading.Lock()
_reading, _theirs = 0, None  # threads that read a TIFF, and the original handler


class SilentLibtiff:
    """A context in which libtiff prints nothing to standard error. It has no effect if Pillow's libtiff cannot be reached."""

    def __enter__(self) -> None:
        global _reading, _theirs
        with _lock:
            if _reading == 0:
                _theirs = _set_handler()(None)
            _reading += 1

    def __exit__(self, *_: object) -> None:
        global _reading, _theirs
        with _lock:
            _reading -= 1
            if _reading == 0:
                _set_handler()(_theirs)


def _begin() -> None:
    """Reset the lock in a forked process. A thread that exists only in the parent process may have held the lock."""
    global _lock, _reading
    _lock, _reading = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


@cache
def _set_handler() -> Any:
    """Return ``TIFFSetErrorHandler`` of the libtiff that Pillow uses: a function from the new handler to the old handler."""
    try:
        import ctypes

        core: Any = vars(Image).get("core")
        function = ctypes.CDLL(core.__file__).TIFFSetErrorHandler  # searched only in the libraries that this file links to
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
    except (ImportError, OSError, AttributeError):  # Pillow was built without libtiff, or linked statically
        return lambda handler: handler
    return function
