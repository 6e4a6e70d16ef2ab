"""Files in memory, where the system has such a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from functools import cache

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
PREFIX = "patchpack-fuzz-"
PLACE = "PATCHPACK_FUZZ_SCRATCH"
"""The variable in which a process names the folder for the files of its children, which it removes however they end."""


class Scratch:
    """A folder of this process, gone when it ends."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=os.environ.get(PLACE, MEMORY))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @staticmethod
    @cache
    def get() -> Scratch:
        """The one folder."""
        return Scratch()

    def path(self, name: str) -> str:
        """Of a file."""
        return os.path.join(self.folder, name)

    def write(self, name: str, data: bytes) -> str:
        """A file with these contents, a new one: who still has the old one open keeps it."""
        path = self.path(name)
        if os.path.exists(path):
            os.unlink(path)
        with open(path, "wb", buffering=0) as file:
            file.write(data)
        return path
