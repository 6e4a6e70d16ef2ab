"""One pure function called on many tasks: in this process, in processes of this machine, or on a Ray cluster.

Results come in the order of the tasks. The function and its tasks are picklable. A result depends on its task alone, so the
engine, the number of workers and repeated tasks cannot change it.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

from patchpack.errors import ConfigError, PatchpackError, SourceError

Engine = Literal["local", "ray"]
ENGINES = ("local", "ray")

TRIES = 9
"""Number of times that Ray starts a task whose worker was killed or whose machine was lost, before an error is raised."""

Task = TypeVar("Task")
Result = TypeVar("Result")


def require_engine(engine: str, num_workers: int) -> None:
    """Raise `ConfigError` for an unknown engine or a wrong number of workers."""
    if engine not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        none = "run in this process" if engine == "local" else "all CPUs of the cluster"
        raise ConfigError(f"num_workers must be 0 ({none}) or the number of workers, got {num_workers!r}")
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
    begin: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """Yield the results of ``map(function, tasks)``, computed by an engine.

    Only a few tasks run at a time, and only a few results wait for the results of earlier tasks.

    Args:
        function: a pure function that can be imported. Errors that it raises are raised here.
        tasks: an iterable, read lazily.
        engine: ``"local"`` (default) for processes of this machine, or ``"ray"`` for a Ray cluster. If this process is
            connected to a Ray cluster, that cluster is used. If not, this call connects to the cluster that ``RAY_ADDRESS`` or
            ``ray start`` names. If there is none, this call starts a cluster of this machine alone, and ends it afterwards.
        num_workers: number of tasks that run at a time. With 0 (default) and ``"local"`` this process runs them. With 0 and
            ``"ray"`` all CPUs of the cluster run tasks, even of machines that join later.
        context: a multiprocessing context, or the name of a start method, for local processes. Default None: the platform's
            start method.
        doing: a verb for what the processes do, for messages. Default ``"works"``.
        begin: a function that every local process calls once, before its first task. It is picklable. Default None.

    Raises:
        ConfigError: the engine is missing, or machines have different versions of patchpack.
        SourceError: a local process died, or on Ray the same task killed `TRIES` workers.
    """
    require_engine(engine, num_workers)
    if engine == "ray":
        yield from _on_ray(function, tasks, num_workers, doing)
    elif num_workers == 0:
        yield from map(function, tasks)
    else:
        yield from _in_processes(function, tasks, num_workers, context, doing, begin)


def _in_processes(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    num_workers: int,
    context: str | BaseContext | None,
    doing: str,
    begin: Callable[[], None] | None,
) -> Iterator[Result]:
    processes: Any = context if isinstance(context, BaseContext) else multiprocessing.get_context(context)
    if isinstance(tasks, Sized):
        num_workers = max(1, min(num_workers, len(tasks)))
    pool = ProcessPoolExecutor(num_workers, mp_context=processes, initializer=begin)
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
    """An error of patchpack, returned as a result. If it were raised, Ray would wrap it in an error of its own."""

    error: PatchpackError


def _on_ray(
    function: Callable[[Task], Result], tasks: Iterable[Task], num_workers: int, doing: str
) -> Generator[Result, None, None]:
    from patchpack._version import __version__

    ray = _ray()
    begun = _connect(ray)
    # a repeated task replaces what it wrote before, see the functions that are run: nothing is doubled
    remote = ray.remote(_outcome).options(num_cpus=1, max_retries=TRIES - 1, retry_exceptions=False, name=f"patchpack {doing}")
    left = iter(tasks)
    running: dict[Any, int] = {}  # number of a task by Ray's reference to its result
    waiting: dict[int, Any] = {}  # finished tasks whose results wait for the results of earlier tasks
    sent = given = 0
    more = True
    try:
        while more or given < sent:
            # results that wait are bounded too, in case one task takes long
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
    """Import Ray and return the module. The import takes 0.7 s, so it happens only when Ray is used."""
    try:
        import ray

        ray.remote  # noqa: B018 Python would import a folder of this name as a package
    except (ImportError, AttributeError):
        raise ConfigError(
            "engine='ray' needs Ray on every machine: pip install 'patchpack[ray]', or use engine='local'"
        ) from None
    return ray


def _connect(ray: ModuleType) -> bool:
    """Connect to a Ray cluster. Return True if this call opened the connection and the caller must close it."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # for a cluster that is started here: no telemetry
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"cannot connect to a Ray cluster: {type(error).__name__}: {error}. See docs/howto/clusters.md"
        ) from error
    return True


def _outcome(function: Callable[[Task], Result], task: Task, version: str) -> Result | _Failed:
    """Return the result of a task. This function runs in a worker, on any machine."""
    from patchpack._version import __version__

    if __version__ != version:
        where = platform.node()
        return _Failed(
            ConfigError(
                f"{where} has patchpack {__version__}, but the machine that sent the task has {version}: install the same "
                f"version"
            )
        )
    try:
        return function(task)
    except PatchpackError as error:
        return _Failed(error)


def _result(ray: ModuleType, reference: object, doing: str) -> Any:
    try:
        result = ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # an error of another kind, with Ray's traceback
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise SourceError(
            f"Ray gave up a task after {TRIES} tries, {type(error).__name__}: {error}. Was the process that {doing} killed "
            f"each time, or out of memory?"
        ) from error
    if isinstance(result, _Failed):
        raise result.error
    return result
