"""One pure function over many tasks: here, in processes of this machine, or on a Ray cluster. Results come in the tasks' order.

The function and its tasks are picklable, and what comes out depends on a task alone: no engine, no number of workers and no
task that had to be done again can change it.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing.context import BaseContext
from typing import Any, Literal, NamedTuple, TypeVar

from patchpack.errors import ConfigError, PatchpackError, SourceError

Engine = Literal["local", "ray"]
ENGINES = ("local", "ray")

TRIES = 9
"""How often Ray begins a task whose worker was killed or whose machine was lost, before it is an error."""

Task = TypeVar("Task")
Result = TypeVar("Result")


def require_engine(engine: str, num_workers: int) -> None:
    """Raises `ConfigError` for an engine or a number of workers that cannot be."""
    if engine not in ENGINES:
        raise ConfigError(f"engine is one of {', '.join(ENGINES)}, got {engine!r}")
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        none = "run here" if engine == "local" else "all CPUs of the cluster"
        raise ConfigError(f"num_workers must be 0 ({none}) or how many run at a time, got {num_workers!r}")
    if engine == "ray":
        _ray()


def run_all(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    engine: Engine = "local",
    num_workers: int = 0,
    context: str | BaseContext | None = None,
    doing: str = "works",
) -> Generator[Result, None, None]:
    """``map(function, tasks)``, somewhere else. Few tasks are under way at a time, few results wait for the ones before them.

    Args:
        function: pure, importable; what it raises is raised here.
        tasks: taken as they are needed.
        engine: ``"local"``: processes of this machine. ``"ray"``: the Ray cluster that this process is connected to, else the
            one that ``RAY_ADDRESS`` or ``ray start`` names, else one of this machine, for as long as it takes.
        num_workers: how many run at a time. 0: here, without a process; on Ray as many as the cluster has CPUs, machines that
            join later too.
        context: of the local processes: a multiprocessing context, or the name of a start method; None for the platform's.
        doing: what the processes do, for messages.

    Raises:
        ConfigError: an engine that is not there, or machines with different versions of patchpack.
        SourceError: a process that died; on Ray one task that killed so many workers as `TRIES`.
    """
    require_engine(engine, num_workers)
    if engine == "ray":
        yield from _on_ray(function, tasks, num_workers, doing)
    elif num_workers == 0:
        yield from map(function, tasks)
    else:
        yield from _in_processes(function, tasks, num_workers, context, doing)


def _in_processes(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    num_workers: int,
    context: str | BaseContext | None,
    doing: str,
) -> Iterator[Result]:
    processes: Any = context if isinstance(context, BaseContext) else multiprocessing.get_context(context)
    if isinstance(tasks, Sized):
        num_workers = max(1, min(num_workers, len(tasks)))
    pool = ProcessPoolExecutor(num_workers, mp_context=processes)
    sent: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            sent.append(pool.submit(function, task))
            if len(sent) >= 4 * num_workers:
                yield sent.popleft().result()
        while sent:
            yield sent.popleft().result()
    except BrokenExecutor as error:
        raise SourceError(f"a process that {doing} died ({error}): was it killed, or out of memory?") from None
    finally:  # also when the caller stops early
        pool.shutdown(cancel_futures=True)


class _Failed(NamedTuple):
    """An error of ours as a result: Ray would wrap what is raised in one of its own."""

    error: PatchpackError


def _on_ray(
    function: Callable[[Task], Result], tasks: Iterable[Task], num_workers: int, doing: str
) -> Generator[Result, None, None]:
    from patchpack._version import __version__

    ray = _ray()
    begun = _connect(ray)
    # a task that is done again replaces what it wrote before, see the functions that are run: nothing is doubled
    remote = ray.remote(_outcome).options(num_cpus=1, max_retries=TRIES - 1, retry_exceptions=False, name=f"patchpack {doing}")
    left = iter(tasks)
    running: dict[Any, int] = {}  # task by what Ray calls its result
    waiting: dict[int, Any] = {}  # done, not its turn yet
    sent = given = 0
    more = True
    try:
        while more or given < sent:
            # what waits is bounded too, where one task takes long
            cpus = max(1, num_workers or int(ray.cluster_resources().get("CPU", 1)))
            while more and len(running) < (num_workers or 2 * cpus) and sent - given < 4 * cpus:
                try:
                    task = next(left)
                except StopIteration:
                    more = False
                    break
                running[remote.remote(function, task, __version__)] = sent
                sent += 1
            if given in waiting:
                result = _result(ray, waiting.pop(given), doing)
                given += 1
                yield result
            elif running:
                for done in ray.wait(list(running))[0]:
                    waiting[running.pop(done)] = done
    finally:  # also when the caller stops early
        for unfinished in running:
            ray.cancel(unfinished)
        if begun:
            ray.shutdown()


def _ray() -> Any:
    """The package, which costs 0.7 s to import: only where it is asked for."""
    try:
        import ray

        ray.remote  # noqa: B018 a folder of this name is a package to Python
    except (ImportError, AttributeError):
        raise ConfigError(
            "engine='ray' needs Ray, on every machine: pip install 'patchpack[ray]'. Or take engine='local'"
        ) from None
    return ray


def _connect(ray: Any) -> bool:
    """True if this began the connection, and is to end it."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is begun here: nobody asked for telemetry
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster: {type(error).__name__}: {error}. See docs/howto/clusters.md") from error
    return True


def _outcome(function: Callable[[Any], Any], task: Any, version: str) -> Any:
    """What a worker does, on whichever machine."""
    from patchpack._version import __version__

    if __version__ != version:
        where = platform.node()
        return _Failed(ConfigError(f"{where} has patchpack {__version__}, and {version} asks for its help: install the same"))
    try:
        return function(task)
    except PatchpackError as error:
        return _Failed(error)


def _result(ray: Any, reference: Any, doing: str) -> Any:
    try:
        result = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # of another kind, with Ray's account of where
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise SourceError(
            f"Ray gave up a task after {TRIES} tries, {type(error).__name__}: {error}. Was the process that {doing} killed "
            f"each time, or out of memory?"
        ) from error
    if isinstance(result, _Failed):
        raise result.error
    return result
