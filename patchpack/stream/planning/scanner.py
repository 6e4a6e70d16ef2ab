"""Headers ahead of the planner: a process of its own reads them, so that the training thread does not.

The order is the source's and the answer the same as scanning in place; only the time is spent elsewhere.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from collections.abc import Generator, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol

from patchpack.errors import SourceError
from patchpack.report import Rejection
from patchpack.stream.planning.order import Mark
from patchpack.stream.workers.watch import TICK, StatusBoard, end_with_parent, how
from patchpack.types import Event, Header

BLOCK = 64  # events that travel together
_ATOMIC = 4000  # bytes that a pipe takes as a whole or not at all: a scanner that is stopped leaves no half message
_SMALL = 1 << 16  # bytes of a block that are sent that way; what carries pictures takes too many pieces


class Scannable(Protocol):
    """What a scanner runs: a source, or a source in an order."""

    name: str

    def scan(self) -> Iterator[Event | Mark]:
        """Events in order."""
        ...


def scan_ahead(source: Scannable, context: str | BaseContext, timeout: float = 0.0) -> Generator[Event | Mark, None, None]:
    """``source.scan()`` read in another process.

    Args:
        source: picklable under the start method in use; scanned from its beginning.
        context: a multiprocessing context, or the name of a start method.
        timeout: seconds without an event after which the process is taken for frozen; 0 waits for ever.

    Raises:
        SourceError: the scanner raised, died, or is frozen; after which sample, where it was one.
    """
    processes: Any = multiprocessing.get_context(context) if isinstance(context, str) else context
    receiver, sender = processes.Pipe(duplex=False)
    board = StatusBoard(1)
    scanner = processes.Process(target=_scan, args=(source, sender, board), daemon=True, name="patchpack-scanner")
    scanner.start()
    sender.close()  # the scanner's is the only one: its end is the pipe's
    try:
        while True:
            block = _next_block(receiver, scanner, board, timeout)
            if isinstance(block, str):
                raise SourceError(block)
            if not block:
                return
            yield from block
    finally:  # also when the consumer stops early
        if not sys.is_finalizing():  # then multiprocessing has ended it already
            scanner.kill()  # it holds nothing that could be left half done, and may be stopped
            scanner.join()
            receiver.close()


def _scan(source: Scannable, sender: Connection, board: StatusBoard) -> None:
    end_with_parent()
    events = _noted(source.scan(), board)
    try:
        while block := list(islice(events, BLOCK)):
            _send(sender, block)
        _send(sender, [])
    except KeyboardInterrupt:  # Ctrl-C reaches every process of a terminal: the parent says it
        pass
    except Exception as error:
        _send(sender, f"scanning {source.name} failed: {type(error).__name__}: {error}")


def _send(sender: Connection, block: Any) -> None:
    data = ForkingPickler.dumps(block)
    piece = _ATOMIC if len(data) <= _SMALL else len(data)
    for start in range(0, len(data), piece):
        last = start + piece >= len(data)
        sender.send_bytes(bytes([last]) + data[start : start + piece])


def _noted(events: Iterator[Event | Mark], board: StatusBoard) -> Iterator[Event | Mark]:
    for event in events:
        if isinstance(event, (Header, Rejection)):
            board.write(0, f" after {event.key} ({event.shard})" if event.shard else f" after {event.key}")
        yield event


def _next_block(receiver: Connection, scanner: Any, board: StatusBoard, timeout: float) -> Any:
    pieces, waited = [], 0.0
    while True:
        try:
            if receiver.poll(TICK):
                piece = memoryview(receiver.recv_bytes())
                pieces.append(piece[1:])
                if piece[0]:
                    return pickle.loads(b"".join(pieces))
                continue
        except (EOFError, OSError):
            scanner.join()
            raise SourceError(f"the process that reads headers {how(scanner.exitcode)}{board.read(0)}") from None
        waited += TICK
        if timeout and waited >= timeout:
            raise SourceError(
                f"the process that reads headers has said nothing for {timeout:g} seconds (timeout){board.read(0)}"
            )
