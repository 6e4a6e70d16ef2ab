"""What a fuzz target is, and the bounds that every execution is held to."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

SECONDS = 5.0
"""Processor time of one execution: a thousand times what the slowest input of a few kB takes, and no less on a busy machine."""

BYTES = 1 << 29
"""Memory that all executions may take beyond what the process has when they begin."""


class Target(NamedTuple):
    """A function of bytes that raises when the library is wrong; what the library may raise, it takes.

    Attributes:
        name: as it is asked for.
        check: the function; it has no state, so any input can be run again alone.
        seeds: inputs to begin with, made when they are asked for.
        max_len: longest input worth trying.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    max_len: int


class HungError(BaseException):
    """An execution that does not end. No `Exception`: nothing on its way may take it for a broken file."""


def _hung(*_: Any) -> None:
    raise HungError(f"more than {SECONDS} s of processor time")


def bounded(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The same function, ended when it takes too long; as it is where there are no such timers."""
    if not hasattr(signal, "setitimer"):
        return check

    def run(data: bytes) -> None:
        before = signal.signal(signal.SIGPROF, _hung)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            check(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    return run


def limit_memory(more: int = BYTES) -> int | None:
    """From now on whatever is allocated beyond so many bytes more is a `MemoryError`. The old limit; None where there is none.

    Linux only: elsewhere nobody says what a process has.
    """
    if not sys.platform.startswith("linux"):
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))
    return soft


@contextmanager
def little_memory() -> Iterator[None]:
    """With `limit_memory`, and without it again."""
    before = limit_memory()
    try:
        yield
    finally:
        if before is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (before, resource.getrlimit(resource.RLIMIT_AS)[1]))
