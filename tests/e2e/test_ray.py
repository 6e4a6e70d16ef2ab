"""A Ray cluster of two machines, on this one: what is killed midway loses nothing, doubles nothing and changes no byte."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import patchpack as pp
from patchpack.cli import main
from patchpack.stream.index import build
from patchpack.stream.jobs.engine import run_all
from patchpack.stream.packed import epochs, write

# Ray starts processes and sockets that it leaves to the garbage collector
pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(sys.platform == "win32", reason="Ray's clusters of several nodes do not run on Windows"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TRAIN = pp.samples.shards("train")
RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=2)


@pytest.fixture(scope="module")
def ray() -> Any:
    """Ray, which takes seconds to import."""
    return pytest.importorskip("ray", reason="the dev extra installs Ray; there is none for this platform")


@pytest.fixture(scope="module")
def cluster(ray: Any) -> Iterator[Any]:
    """Two nodes of one CPU each, and this process connected to them."""
    from ray.cluster_utils import Cluster

    with (
        # Ray leaves its folder behind, and names sockets in it, whose paths must be short
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        # workers do not find this file by its name
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        try:
            yield made
        finally:
            ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
            ray.shutdown()
            made.shutdown()


class KilledOnce:
    """A function whose worker is killed at one of its tasks, the first time it gets there."""

    def __init__(self, function: Callable[[Any], Any], marker: Path, chosen: Callable[[Any], bool]) -> None:
        self._function, self._marker, self._chosen = function, marker, chosen

    def __call__(self, task: Any) -> Any:
        if self._chosen(task) and not self._marker.exists():
            self._marker.touch()
            self.kill()
        return self._function(task)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class KilledMidway(KilledOnce):
    """The same, after some batches of a shard are written."""

    def kill(self) -> None:
        paint, left = write.painted, iter(range(3))

        def painted(*arguments: Any) -> pp.PackedBatch:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return paint(*arguments)

        write.painted = painted


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def square(task: int) -> int:
    if task == 77:
        raise pp.errors.ShardError("task 77")
    if task == 78:
        raise KeyError(78)
    return task * task


def meet(task: tuple[int, str]) -> int:
    """The first task ends when the eighth is at work."""
    number, pipe = task
    if number in (0, 7):
        with open(pipe, "w" if number else "r"):
            pass
    return number


def num_cpus(ray: Any) -> int:
    """Return the processors of the cluster, which another test adds to."""
    return int(ray.cluster_resources()["CPU"])


def test_few_results_wait_for_one_that_takes_long(ray: Any, cluster: Any, tmp_path: Path) -> None:
    taken: list[int] = []
    os.mkfifo(tmp_path / "pipe")

    def tasks() -> Iterator[tuple[int, str]]:
        for i in range(20):
            taken.append(i)
            yield i, str(tmp_path / "pipe")

    results = run_all(meet, tasks(), engine="ray")
    assert next(results) == 0
    assert len(taken) == 4 * num_cpus(ray)
    assert list(results) == list(range(1, 20))


def test_results_come_in_order_and_errors_as_they_are(ray: Any, cluster: Any) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for i in range(70):
            taken.append(i)
            yield i

    results = run_all(square, tasks(), engine="ray")
    for i in range(70):
        assert next(results) == i * i
        assert len(taken) <= i + 1 + 4 * num_cpus(ray)
    with pytest.raises(StopIteration):
        next(results)
    with pytest.raises(pp.errors.ShardError, match=r"^task 77$"):
        list(run_all(square, [1, 77], engine="ray", num_workers=1))
    with pytest.raises(KeyError, match=r"^78$"):
        list(run_all(square, [78], engine="ray"))
    assert ray.is_initialized()  # whoever connected disconnects


def test_a_cluster_is_found_by_its_address_and_left_again(ray: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        assert list(run_all(square, range(5), engine="ray")) == [0, 1, 4, 9, 16]
        assert not ray.is_initialized()
    finally:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")


def test_an_index_is_the_same_though_a_worker_is_killed(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pp.Index.build(TRAIN).save(tmp_path / "here.index")
    expected = (tmp_path / "here.index").read_bytes()
    killed = tmp_path / "killed"
    monkeypatch.setattr(
        build, "scan_columns", KilledOnce(build.scan_columns, killed, lambda task: task.url == os.path.abspath(TRAIN[1]))
    )
    told: list[int] = []
    index = pp.Index.build(TRAIN, engine="ray", progress=lambda done, total, samples: told.append(samples))
    index.save(tmp_path / "there.index")
    assert killed.exists()
    assert told == [140, 280, 420]
    assert (tmp_path / "there.index").read_bytes() == expected
    out = str(tmp_path / "cli.index")
    monkeypatch.chdir(Path(TRAIN[0]).parent)  # workers are in another folder
    assert main(["index", *(Path(shard).name for shard in TRAIN), "-o", out, "--engine", "ray"]) == 0
    assert "420 samples in 3 shards, labels: cls" in capsys.readouterr().out
    assert pp.Index.open(out).fingerprint == index.fingerprint


def test_packed_shards_are_the_same_though_a_worker_and_a_machine_are_lost(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, options = pp.Index.build(TRAIN), {"shuffle": 50, "steps_per_shard": 5}
    here = pp.PackedShards.write(index, RECIPE, tmp_path / "here", **options)  # type: ignore[arg-type]
    killed, out = tmp_path / "killed", tmp_path / "there"
    monkeypatch.setattr(
        epochs, "write_shard", KilledMidway(write.write_shard, killed, lambda task: task.path.endswith("packed-000001.tar"))
    )
    lost = cluster.add_node(num_cpus=1)
    assert len(here.shards) == 9
    told: list[int] = []

    def lose(done: int, planned: int, images: int) -> None:
        told.append(done)
        if len(told) == 3:
            cluster.remove_node(lost, allow_graceful=False)

    there = pp.PackedShards.write(index, RECIPE, out, engine="ray", progress=lose, **options)  # type: ignore[arg-type]
    assert killed.exists()
    assert contents(out) == contents(tmp_path / "here")
    assert told == [min(5 * (i + 1), len(there)) for i in range(len(there.shards))]
    there.verify()


def test_shards_behind_urls_are_read_on_the_cluster(cluster: Any, tmp_path: Path) -> None:
    urls = [f"file://{os.path.abspath(shard)}" for shard in TRAIN]
    pp.Index.build(urls).save(tmp_path / "here.index")
    index = pp.Index.build(urls, engine="ray")
    index.save(tmp_path / "there.index")
    assert (tmp_path / "there.index").read_bytes() == (tmp_path / "here.index").read_bytes()
    pp.PackedShards.write(pp.Index.build(TRAIN), RECIPE, tmp_path / "here")
    pp.PackedShards.write(index, RECIPE, tmp_path / "there", engine="ray")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
