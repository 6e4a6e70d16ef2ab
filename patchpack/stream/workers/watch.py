"""Supervision of painting processes: the image that each one paints, the time without a batch, and the error if one dies.

Torch uses a signal handler to notice that a worker died. The handler may raise an error anywhere in the training loop, and
gives only the worker's number. Here the error is raised while waiting for a batch, and names the image that the worker was
painting. So the error names a file that crashes a decoder.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import TypeVar, cast

import numpy as np
import torch

from patchpack._foreign.torch import deaths_raise, is_death, is_timeout, shut_down, workers_of
from patchpack.errors import WorkerError
from patchpack.rng import Stage, key_hash, uniforms
from patchpack.stream.workers.slot_pool import MORE_ROOM, shared_bytes
from patchpack.types import Header

TICK = 0.5  # seconds between checks that all workers live
_ROW = 2048  # bytes of the board for one worker
_LENGTH = struct.Struct("=H")
_SHOWN = 8  # workers named in an error

_HINTS = {
    "SIGKILL": "the kernel kills a process when memory runs out: check its log (dmesg)",
    "SIGBUS": f"shared memory ran out: {MORE_ROOM}",
    "SIGSEGV": "native code crashed, most likely on that file: leave it out, or paint it alone with patchpack replay",
}
_HINTS["SIGABRT"] = _HINTS["SIGILL"] = _HINTS["SIGFPE"] = _HINTS["SIGSEGV"]


T = TypeVar("T")


class StatusBoard:
    """The status of each worker, in memory that outlives the worker.

    Args:
        num_workers: number of workers. The board has one line of text for each worker.
    """

    def __init__(self, num_workers: int) -> None:
        self._memory = shared_bytes(num_workers * _ROW)
        self._view: memoryview | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"_memory": self._memory, "_view": None}

    def write(self, worker: int, text: str) -> None:
        """Write the line of a worker. The text is "" while the worker waits for work."""
        data = text.encode("utf-8", "backslashreplace")[: _ROW - _LENGTH.size]
        view, start = self._bytes(), worker * _ROW
        view[start + _LENGTH.size : start + _LENGTH.size + len(data)] = data
        _LENGTH.pack_into(view, start, len(data))

    def read(self, worker: int) -> str:
        """Return the line that a worker wrote last."""
        view, start = self._bytes(), worker * _ROW
        (length,) = _LENGTH.unpack_from(view, start)
        return bytes(view[start + _LENGTH.size :][:length]).decode("utf-8", "replace")

    def painting(self, worker: int, step: int) -> Callable[[Header], None]:
        """Return a function that writes each image of a step on the board before the image is painted.

        `patchpack.paint.painter.paint` calls the function.
        """
        image = 0

        def note(header: Header) -> None:
            nonlocal image
            image += 1
            self.write(
                worker, f"was painting image {image} of step {step}: {header.key} (member {header.member} of {header.shard})"
            )

        return note

    def _bytes(self) -> memoryview:
        if self._view is None:
            self._view = memoryview(self._memory.numpy())  # type: ignore[arg-type]  # arrays are buffers
        return self._view


class WorkerSeeds:
    """The seeds of random numbers that the user's code draws in workers.

    Such code is a dataset, a `map_target`, or a tokenizer.

    The seeds depend on the recipe's seed, the epoch, the rank and the worker. These seeds are given to the global generators of
    `random`, numpy and torch in the worker. No generator of the parent is seeded. A saved state does not hold how many random
    numbers were drawn. So a resume in the middle of an epoch does not repeat these numbers.

    Args:
        seed: seed of the recipe.
        rank: rank of this process.

    Attributes:
        epoch: the epoch that worker processes were last seeded for.
    """

    def __init__(self, seed: int, rank: int) -> None:
        self._seed, self._rank, self.epoch = seed, rank, 0

    def base(self) -> int:
        """Return a seed for this epoch. It is for the generator from which torch draws its own base seed."""
        return self._of("loader")

    def start(self, worker: int) -> None:
        """Seed the global generators of a worker. The method is called in the worker."""
        random.seed(self._of(f"worker {worker}, random"))  # not numpy's seed: `random` and numpy have the same algorithm
        seed = self._of(f"worker {worker}, numpy")
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002  the global generator, which users' code may draw from
        torch.manual_seed(self._of(f"worker {worker}, torch"))

    def begin(self, worker: int, epoch: int) -> None:
        """Seed again if a persistent worker begins another epoch."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.start(worker)

    def _of(self, name: str) -> int:
        (uniform,) = uniforms(self._seed, self.epoch, key_hash([f"rank {self._rank}, {name}"]), Stage.WORKERS, 1)[0]
        return int(uniform * (1 << 53))  # all of its bits


@contextmanager
def keep_random_states() -> Iterator[None]:
    """Restore the global generators of `random`, numpy and torch at the end of the ``with`` block.

    The user's code may draw any numbers inside the block.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  the user's code may draw from it
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


class WorkerStart:
    """A ``worker_init_fn`` for torch's DataLoader. It makes the worker end soon after its parent, and seeds random numbers.

    After that, it calls the user's ``worker_init_fn``.

    Args:
        users: the user's ``worker_init_fn``, or None.
        seeds: the seeds of the worker's random numbers. None if the user gave the DataLoader a generator. Torch's own seeding
            is then used.
    """

    def __init__(self, users: Callable[[int], None] | None, seeds: WorkerSeeds | None) -> None:
        self._users, self._seeds = users, seeds

    def __call__(self, worker: int) -> None:
        """Prepare a worker. Torch calls this method in the worker before anything else."""
        end_with_parent()
        if self._seeds is not None:
            self._seeds.start(worker)
        if self._users is not None:
            self._users(worker)


def end_with_parent() -> None:
    """Make this process end within a second of its parent's end, because nothing would read its results."""
    parent, process = os.getppid(), multiprocessing.parent_process()

    def watch() -> None:
        pause = threading.Event()
        # both are checked: a worker that was forked later keeps the sentinel's pipe open, and a fork server is not the parent
        while os.getppid() == parent and (process is None or process.is_alive()):
            pause.wait(TICK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="patchpack-watch").start()


def next_of(sending: Iterator[T], board: StatusBoard, timeout: float, waited_for: Callable[[], str] = str) -> T:
    """Wait for the next batch that workers send, and return it.

    Args:
        sending: torch's iterator over workers, made with ``timeout=TICK``.
        board: the status board on which workers write what they paint.
        timeout: seconds without a batch after which workers count as frozen. 0 sets no limit.
        waited_for: a function that returns a description of the expected batch, for an error. Default: an empty description.

    Raises:
        StopIteration: the epoch is over.
        WorkerError: a worker died, or all workers are frozen. All workers are killed before the error is raised.
    """
    waited, workers = 0.0, workers_of(sending)
    while True:
        problem: str | None = None
        try:  # around all of it: torch's handler may raise between any two lines in there
            with deaths_raise(sending):
                problem = _dead(workers, board)
                if problem is None:
                    return next(sending)
        except RuntimeError as error:
            problem = _dead(workers, board)
            if problem is None and is_timeout(error):
                waited += TICK
                if timeout and waited >= timeout:
                    problem = _frozen(workers, board, timeout)
            elif problem is None and is_death(error):
                problem = str(error)
            elif problem is None:
                raise
        if problem is not None:
            _end(sending, workers)
            raise WorkerError(problem + waited_for())


def _dead(workers: Sequence[BaseProcess], board: StatusBoard) -> str | None:
    """Return a description of a worker that died, or None if none died.

    A worker without further samples ends without an error, and does not count as dead.
    """
    for number, worker in enumerate(workers):
        if not worker.is_alive() and worker.exitcode != 0:
            name = how(cast(int, worker.exitcode))  # it has ended
            hint = next((f"; {hint}" for cause, hint in _HINTS.items() if cause in name), "")
            return f"worker {number} (pid {worker.pid}) {name}; it {_at(board, number)}{hint}"
    return None


def _frozen(workers: Sequence[BaseProcess], board: StatusBoard, timeout: float) -> str:
    lines = [f"worker {number} (pid {worker.pid}) {_at(board, number)}" for number, worker in enumerate(workers[:_SHOWN])]
    more = f"; {len(workers) - _SHOWN} more" if len(workers) > _SHOWN else ""
    return f"{len(workers)} workers sent no batch for {timeout:g} seconds (timeout): {'; '.join(lines)}{more}"


def _at(board: StatusBoard, worker: int) -> str:
    return board.read(worker) or "was between two batches"


def how(exitcode: int) -> str:
    """Return a description of how a process ended, from its exit code."""
    if exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        return f"was killed by {signal.Signals(-exitcode).name} (exit code {exitcode})"
    except ValueError:
        return f"was killed by signal {-exitcode} (exit code {exitcode})"


def _end(sending: Iterator[object], workers: Sequence[BaseProcess]) -> None:
    """Kill the remaining workers at once. Their batches would not be read.

    The kill signal also ends a suspended process, which ignores other signals.
    """
    for worker in workers:
        if worker.is_alive():
            worker.kill()
    for worker in workers:
        worker.join()
    shut_down(sending)
