"""libtiff writes what it thinks of a broken file to standard error, hundreds of lines of it; here it keeps silent.

Its message handler is the whole process's, so it is taken away when the first thread begins to read a TIFF and given back when
the last one is done. What was wrong comes as an error of Pillow's, with a reason.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from typing import Any

from PIL import Image

_lock = threading.Lock()
_reading, _theirs = 0, None  # threads that read a TIFF, and the handler as it was


class SilentLibtiff:
    """No line of libtiff's on standard error while inside, as far as this Pillow's libtiff can be reached."""

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
    """In a process that was forked: a thread that did not come along may hold the lock."""
    global _lock, _reading
    _lock, _reading = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


@cache
def _set_handler() -> Any:
    """libtiff's ``TIFFSetErrorHandler``, from the library that Pillow itself decodes with: new handler → old handler."""
    try:
        import ctypes

        core: Any = vars(Image)["core"]
        function = ctypes.CDLL(core.__file__).TIFFSetErrorHandler  # looked for in what that file is linked to, nowhere else
        function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
    except (ImportError, OSError, AttributeError):  # built without libtiff, or with it inside
        return lambda handler: handler
    return function
