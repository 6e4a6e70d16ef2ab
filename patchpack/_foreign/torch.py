"""Torch's internals: shared memory that is not written at creation, and the workers behind a DataLoader's iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


def shared_zeros(num_bytes: int) -> torch.Tensor:
    """Return zeros in shared memory, uint8 ``[num_bytes]``, without writing a byte.

    If this version of torch cannot make shared storage, all bytes are written twice.

    Raises:
        RuntimeError: there is not enough shared memory.
    """
    make: Any = getattr(torch.UntypedStorage, "_new_shared", None)  # used by torch's own `default_collate`
    if make is None:
        zeros: torch.Tensor = torch.zeros(num_bytes, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        return zeros
    return torch.tensor([], dtype=torch.uint8).set_(make(num_bytes))


def workers_of(iterator: Iterator[Any]) -> Sequence[Any]:
    """Return the worker processes of a DataLoader's iterator, or an empty sequence if this version of torch hides them."""
    workers: Sequence[Any] = getattr(iterator, "_workers", ())
    return workers


@contextmanager
def deaths_raise(iterator: Iterator[Any]) -> Iterator[None]:
    """Let torch raise errors about dead workers of an iterator only in this context, so that no training step is interrupted.

    Torch's signal handler raises these errors. If this version of torch has no list of workers, the context does nothing, and
    the handler may raise at any time.
    """
    enter: Any = getattr(torch._C, "_set_worker_pids", None)
    leave: Any = getattr(torch._C, "_remove_worker_pids", None)
    handle: Any = iterator
    if enter is None or leave is None or not hasattr(iterator, "_worker_pids_set"):
        yield
        return
    if not handle._worker_pids_set:
        enter(id(handle), tuple(worker.pid for worker in workers_of(iterator)))
        handle._worker_pids_set = True
    try:
        yield
    finally:
        if handle._worker_pids_set:
            leave(id(handle))
            handle._worker_pids_set = False


def is_timeout(error: RuntimeError) -> bool:
    """Return True for the error of a DataLoader whose ``timeout`` has passed. Only the text identifies this error."""
    return str(error).startswith("DataLoader timed out")


def is_death(error: RuntimeError) -> bool:
    """Return True for the error that torch raises when a worker died."""
    return str(error).startswith("DataLoader worker (pid")


def shut_down(iterator: Iterator[Any]) -> None:
    """End the threads and queues of an iterator whose workers have ended.

    Without this call, the threads and queues end when Python deletes the iterator.
    """
    end: Any = getattr(iterator, "_shutdown_workers", None)
    if end is not None:
        end()


def collate_with(kind: type, function: Callable[..., Any]) -> None:
    """Have torch's `default_collate` call `function` for values of the type `kind`.

    If this version of torch keeps its table of types elsewhere, nothing changes. `default_collate` then raises an error for
    such values, or stacks them.
    """
    try:
        from torch.utils.data._utils.collate import default_collate_fn_map
    except ImportError:
        return
    default_collate_fn_map[kind] = function
