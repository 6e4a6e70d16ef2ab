"""Headers ahead of the planner: a process of its own reads them, so that the training thread does not.

The order is the source's and the answer the same as scanning in place; only the time is spent elsewhere.
"""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Generator, Iterator
from itertools import islice
from multiprocessing.context import BaseContext
from typing import Any, Protocol

from patchpack.errors import SourceError
from patchpack.stream.order import Mark
from patchpack.types import Event

BLOCK = 64  # events that travel together
BLOCKS_AHEAD = 32  # bound of the queue: about 2,000 headers, a few hundred kB
_PATIENCE = 1.0  # seconds between looks at whether the scanner still lives


class Scannable(Protocol):
    """What a scanner runs: a source, or a source in an order."""

    name: str

    def scan(self) -> Iterator[Event | Mark]:
        """Events in order."""
        ...


def scan_ahead(source: Scannable, context: str | BaseContext) -> Generator[Event | Mark, None, None]:
    """``source.scan()`` read in another process.

    Args:
        source: picklable under the start method in use; scanned from its beginning.
        context: a multiprocessing context, or the name of a start method.

    Raises:
        SourceError: the scanner raised, or died.
    """
    processes: Any = multiprocessing.get_context(context) if isinstance(context, str) else context
    blocks = processes.Queue(maxsize=BLOCKS_AHEAD)
    scanner = processes.Process(target=_scan, args=(source, blocks), daemon=True, name="patchpack-scanner")
    scanner.start()
    try:
        while True:
            block = _next_block(blocks, scanner)
            if isinstance(block, str):
                raise SourceError(block)
            if not block:
                return
            yield from block
    finally:  # also when the consumer stops early
        scanner.terminate()
        scanner.join()
        blocks.close()


def _scan(source: Scannable, blocks: Any) -> None:
    events = source.scan()
    try:
        while block := list(islice(events, BLOCK)):
            blocks.put(block)
        blocks.put([])
    except Exception as error:
        blocks.put(f"scanning {source.name} failed: {type(error).__name__}: {error}")


def _next_block(blocks: Any, scanner: Any) -> Any:
    while True:
        try:
            return blocks.get(timeout=_PATIENCE)
        except queue.Empty:
            if not scanner.is_alive() and blocks.empty():
                raise SourceError(f"the process that reads headers died (exit code {scanner.exitcode})") from None
