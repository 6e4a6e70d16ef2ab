"""The scanner: a separate process that reads headers ahead of the planner, so that the training thread need not wait for them.

The scanner yields the same events in the same order as a scan in this process.
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
from patchpack.losses import Rejection
from patchpack.stream.planning.mixed_order import MixMark
from patchpack.stream.planning.order import Mark
from patchpack.stream.workers.watch import TICK, StatusBoard, end_with_parent, how
from patchpack.types import Event, Header

BLOCK = 64  # number of events that are sent together
_ATOMIC = 4000  # bytes that a pipe writes completely or not at all: a stopped scanner leaves no half message
_SMALL = 1 << 16  # bytes of a block that are sent that way; a block with images would take too many pieces


class Scannable(Protocol):
    """An object that a scanner reads: a source, an `OrderedSource` or an `OrderedMix`."""

    name: str

    def scan(self) -> Iterator[Event | Mark | MixMark]:
        """Yield events in order."""
        ...


def scan_ahead(
    source: Scannable, context: str | BaseContext, timeout: float = 0.0
) -> Generator[Event | Mark | MixMark, None, None]:
    """Yield the events of ``source.scan()``, read in another process.

    Args:
        source: the source to read, from its beginning. It must be picklable if the start method pickles it.
        context: a multiprocessing context, or the name of a start method.
        timeout: seconds without an event after which the process counts as frozen. Default 0: no limit.

    Raises:
        SourceError: the scanner raised an error, died, or is frozen. The error names the last sample that was read, if there is
            one.
    """
    processes: Any = multiprocessing.get_context(context) if isinstance(context, str) else context
    receiver, sender = processes.Pipe(duplex=False)
    board = StatusBoard(1)
    scanner = processes.Process(target=_scan, args=(source, sender, board), daemon=True, name="patchpack-scanner")
    scanner.start()
    sender.close()  # only the scanner keeps its end: when it dies, the pipe ends
    try:
        while True:
            block = _next_block(receiver, scanner, board, timeout)
            if isinstance(block, str):
                raise SourceError(block)
            if not block:
                return
            yield from block
    finally:  # also when the consumer stops early
        if not sys.is_finalizing():  # else multiprocessing has ended it already
            scanner.kill()  # it leaves nothing half done, and it may be a stopped process
            scanner.join()
            receiver.close()


def _scan(source: Scannable, sender: Connection, board: StatusBoard) -> None:
    end_with_parent()
    events = _noted(source.scan(), board)
    try:
        while block := list(islice(events, BLOCK)):
            _send(sender, block)
        _send(sender, [])
    except KeyboardInterrupt:  # Ctrl-C reaches every process of a terminal: the parent reports it
        pass
    except Exception as error:
        _send(sender, f"scanning {source.name} failed: {type(error).__name__}: {error}")


def _send(sender: Connection, block: Any) -> None:
    data = ForkingPickler.dumps(block)
    piece = _ATOMIC if len(data) <= _SMALL else len(data)
    for start in range(0, len(data), piece):
        last = start + piece >= len(data)
        sender.send_bytes(bytes([last]) + data[start : start + piece])


def _noted(events: Iterator[Event | Mark | MixMark], board: StatusBoard) -> Iterator[Event | Mark | MixMark]:
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
