"""The choice among four transports: painting in this process, in threads, in workers, or planning and painting in workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int
from patchpack.stream.painting.in_workers import InWorkers
from patchpack.stream.painting.planned_in_workers import PlanningInWorkers
from patchpack.stream.painting.threads import PLANNED_AHEAD, InThreads
from patchpack.stream.painting.transport import Transport
from patchpack.stream.planning.planner import Planner
from patchpack.stream.policy import ErrorPolicy
from patchpack.stream.workers.watch import WorkerSeeds

_PREFETCH = 2  # torch's default: batches that each worker makes before they are requested


def plans_ahead(num_workers: int, num_threads: int, options: Mapping[str, Any]) -> int:
    """Return the number of plans that may be made before their batches are requested.

    Raises `ConfigError` for numbers that cannot work.

    Args:
        num_workers: number of processes that paint.
        num_threads: number of threads that paint.
        options: options of `torch.utils.data.DataLoader` by name.
    """
    require_int("num_workers", num_workers, 0, 1 << 10)
    require_int("num_threads", num_threads, 0, 1 << 10)
    return num_workers * _prefetch(options) + PLANNED_AHEAD * num_threads


def transport_of(
    planner: Planner,
    num_workers: int,
    num_threads: int,
    policy: ErrorPolicy,
    options: Mapping[str, Any],
    seeds: WorkerSeeds | None,
) -> Transport:
    """Return the transport of a loader.

    Args:
        planner: the planner that makes the plans.
        num_workers: number of processes that paint, 0 for no processes.
        num_threads: number of threads that paint, 0 for no threads.
        policy: the error policy. Only its ``timeout`` and ``worker_restarts`` are used.
        options: options of `torch.utils.data.DataLoader` by name.
        seeds: seeds for the random numbers that the user's code draws in workers. None if the user seeds these numbers.

    Raises:
        ConfigError: processes and threads are given together, or the planner keeps too few states.
    """
    needed = plans_ahead(num_workers, num_threads, options) + 1
    if num_threads and num_workers:
        raise ConfigError(
            f"num_workers={num_workers} paint in processes, num_threads={num_threads} in this one: set one of them to 0"
        )
    if planner.states_kept < needed:
        raise ConfigError(f"{needed} plans may be on their way to a batch: make the planner with states_kept={needed}")
    if num_threads:
        return InThreads(planner, num_threads)
    if not num_workers:
        return Transport(planner)
    kind = PlanningInWorkers if planner.plans_in_workers else InWorkers
    return kind(planner, num_workers, policy, _prefetch(options), seeds)


def _prefetch(options: Mapping[str, Any]) -> int:
    prefetch: int = options.get("prefetch_factor") or _PREFETCH
    return prefetch
