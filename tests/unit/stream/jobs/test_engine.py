"""The local engine exactly, and what is said where Ray is missing; a cluster is in ``tests/e2e/test_ray.py``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import patchpack as pp
from patchpack.stream.jobs import engine
from patchpack.stream.jobs.engine import require_engine, run_all


def square(task: int) -> int:
    return task * task


def refuse_three(task: int) -> int:
    if task == 3:
        raise pp.errors.ShardError(f"task {task}")
    return task


def die_at_three(task: int) -> int:
    if task == 3:
        os._exit(9)
    return task


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_results_come_in_the_order_of_tasks(num_workers: int) -> None:
    found = list(run_all(square, iter(range(50)), num_workers=num_workers, context="fork"))
    assert found == [i * i for i in range(50)]
    assert list(run_all(square, [], num_workers=num_workers, context="fork")) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_arrives_as_it_is_and_in_its_place(num_workers: int) -> None:
    results = run_all(refuse_three, range(9), num_workers=num_workers, context="fork")
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(pp.errors.ShardError, match=r"^task 3$"):
        next(results)


def test_few_tasks_are_taken_ahead() -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for i in range(1000):
            taken.append(i)
            yield i

    results = run_all(square, tasks(), num_workers=2, context="fork")
    for i in range(20):
        assert next(results) == i * i
        assert len(taken) == i + 8
    results.close()
    assert len(taken) == 27


def test_a_process_that_dies_is_named_by_what_it_did() -> None:
    with pytest.raises(pp.errors.SourceError, match=r"a process that counts died .*: was it killed, or out of memory"):
        list(run_all(die_at_three, range(9), num_workers=1, context="fork", doing="counts"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("spark", 0), "engine must be one of local, ray, got 'spark'"),
        (("local", -1), "num_workers must be 0 .run in this process. or the number of workers, got -1"),
        (("local", True), "got True"),
        (("ray", 1.5), "all CPUs of the cluster. or the number of workers, got 1.5"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=message):
        require_engine(*arguments)


def test_a_missing_ray_is_said_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for run in (
        lambda: list(run_all(square, [1], engine="ray")),
        lambda: pp.Index.build(pp.samples.shards("val"), engine="ray"),
    ):
        with pytest.raises(pp.errors.ConfigError, match=r"pip install 'patchpack\[ray\]'"):
            run()


def test_other_versions_are_refused_where_the_work_is_done() -> None:
    failed = engine._outcome(square, 3, "0.0.0")
    with pytest.raises(pp.errors.ConfigError, match=r"has patchpack .*, but the machine that sent the task has 0.0.0"):
        raise failed.error
    assert engine._outcome(square, 3, pp.__version__) == 9
