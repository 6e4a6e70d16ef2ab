"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def replace_file(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    """Write a file beside its place, then move it there: whoever opens `path` finds all of the old one or all of the new one.

    A process that is killed meanwhile leaves ``.NAME.XXXXXXXX.tmp`` and nothing else. Whatever `fill` raises is raised.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")  # beside it: a rename does not cross file systems
    try:
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if hasattr(os, "O_DIRECTORY"):  # the name itself survives a crash as well
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
