"""Writing of files in one step: a file exists completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def replace_file(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    """Write a file beside `path`, then move the file to `path`. A reader finds the complete old file or the complete new one.

    A process that is killed while writing leaves only a file ``.NAME.XXXXXXXX.tmp``. Errors of `fill` are raised.
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
    if hasattr(os, "O_DIRECTORY"):  # so that the name itself survives a crash as well
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
