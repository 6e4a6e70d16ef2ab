"""A pytest plugin that fails a run which leaves a process, a block of shared memory, or a temporary file behind.

Every run gets a temporary folder of its own (`TMPDIR`). At the end of the run the folder is removed. By then it may hold only
pytest's own folder, torch's cache and multiprocessing's folders. Every run also gets a mark in its environment variables, by
which the plugin finds processes that outlive the run. The plugin needs /proc and /dev/shm, so it does nothing outside of Linux.
"""

from __future__ import annotations

import multiprocessing.util
import os
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

MARK = "PATCHPACK_TEST_RUN"
SHARED_MEMORY = Path("/dev/shm")
PROCESSES = Path("/proc")
# a process that a signal ends, as torch ends the workers of an abandoned loader, leaves the folder of its sockets (pymp-)
OWN = ("pytest-of-", "torchinductor_", "pymp-")
GRACE = 5.0  # seconds in which helper processes of Python's own (resource tracker, fork server) may notice that nobody is left


def pytest_configure(config: pytest.Config) -> None:
    """Watch in the process that started the run; pytest-xdist's workers inherit its environment."""
    if not hasattr(config, "workerinput") and PROCESSES.joinpath("self/environ").exists():
        config.pluginmanager.register(Watch(), "leftovers")


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    """Have multiprocessing remove its folder in every test process; pytest-xdist may end its workers before they would."""
    multiprocessing.util._run_finalizers()  # type: ignore[attr-defined]


class Watch:
    """What was there before the run, and what is there after it."""

    def __init__(self) -> None:
        self._before = blocks()
        self._temporary = Path(tempfile.mkdtemp(prefix="patchpack-tests-"))
        self._outside = os.environ.get("TMPDIR")
        self._mark = uuid.uuid4().hex
        os.environ |= {"TMPDIR": str(self._temporary), MARK: self._mark}
        tempfile.tempdir = None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look, after pytest-xdist has ended its workers; what is left fails the run and is named."""
        end = time.monotonic() + GRACE
        while (found := self.left()) and time.monotonic() < end:
            time.sleep(0.05)
        self._found = found
        if found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name what was left behind."""
        for line in getattr(self, "_found", []):
            terminalreporter.write_line(f"LEFT BEHIND {line}", red=True)

    def pytest_unconfigure(self) -> None:
        """Remove the run's temporary folder."""
        if self._outside is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = self._outside
        shutil.rmtree(self._temporary, ignore_errors=True)

    def left(self) -> list[str]:
        """Return what this run has left behind so far, a line each."""
        found = [f"process {process}" for process in self.processes()]
        found += [f"shared memory {SHARED_MEMORY / name}" for name in sorted(blocks() - self._before)]
        return found + [f"temporary {path}" for path in self._temporary.iterdir() if not path.name.startswith(OWN)]

    def processes(self) -> list[str]:
        """Return the processes that carry this run's mark, but this one and its own helpers: number and command."""
        found = []
        for folder in PROCESSES.iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:
                if f"{MARK}={self._mark}".encode() in folder.joinpath("environ").read_bytes().split(b"\0"):
                    command = folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                    if parent == os.getpid() and "from multiprocessing." in command:  # its resource tracker or fork server
                        continue
                    found.append(f"{folder.name} {command[:200]}")
            except OSError:  # ended meanwhile, or another user's
                continue
        return found


def blocks() -> set[str]:
    """Return the names of blocks of shared memory, made by Python or torch, that no process has mapped."""
    if not SHARED_MEMORY.is_dir():
        return set()
    inodes = {}
    for path in SHARED_MEMORY.iterdir():
        if path.name.startswith(("torch_", "psm_", "pym-", "sem.mp-")):
            with suppress(OSError):  # gone meanwhile
                inodes[path.name] = str(path.stat().st_ino)
    for maps in PROCESSES.glob("[0-9]*/maps") if inodes else ():
        with suppress(OSError):  # ended meanwhile, or another user's
            mapped = {line.split()[4] for line in maps.read_text(errors="replace").splitlines() if f"{SHARED_MEMORY}/" in line}
            inodes = {name: inode for name, inode in inodes.items() if inode not in mapped}
    return {name for name in inodes if SHARED_MEMORY.joinpath(name).exists()}
