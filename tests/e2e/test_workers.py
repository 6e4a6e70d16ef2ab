"""Workers that die or freeze: an error that names what was in flight, or an epoch like any other; and nothing stays behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import patchpack as pp
import patchpack.stream.painting.painter as painting
from patchpack.samples import shards
from patchpack.stream.workers.watch import StatusBoard, end_with_parent, how
from patchpack.types import Header, Size

RECIPE = pp.recipes.navit(seq_len=512, rows_per_batch=2, seed=3)
FORK = {"multiprocessing_context": "fork"}
WORKERS: dict[str, Any] = {"num_workers": 2, "dataloader": FORK}
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals")
pytestmark = POSIX


def load(**options: Any) -> pp.Loader:
    return pp.load(shards("val"), RECIPE, shuffle=30, **options)


@pytest.fixture(scope="module", autouse=True)
def temporary() -> Iterator[str]:
    """Give processes a folder that is removed: one that is killed leaves there what Python's sockets have made."""
    with tempfile.TemporaryDirectory(prefix="workers-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        yield folder


class Expected(NamedTuple):
    """Hold an epoch painted in this process: the digest of each batch, all keys, and the report."""

    digests: list[str]
    keys: list[str]
    report: pp.Report


@pytest.fixture(scope="module")
def expected() -> Expected:
    loader = load()
    batches = list(loader)
    return Expected(digests(batches), [key for b in batches for row in b.keys for key in row], loader.report())


def digests(batches: Any) -> list[str]:
    return [pp.digest(batch) for batch in batches]


class Dies:
    """A ``map_target`` that has its process do something when it meets the n-th label of all workers, once."""

    def __init__(self, at: int, act: Callable[[], None], times: int = 1) -> None:
        # a token for every label, taken by one process alone; a lock could die with the process that holds it
        self._tokens, self._more = multiprocessing.get_context("fork").Pipe(duplex=False)
        os.set_blocking(self._tokens.fileno(), False)
        self._act = act
        self.again(times, at - 1)

    def again(self, times: int = 1, spared: int = 0) -> None:
        """Let so many labels pass before the next ones."""
        os.write(self._more.fileno(), b"." * spared + b"x" * times)

    def __call__(self, label: Any) -> Any:
        # the parent looks at the first label, to know its kind
        if multiprocessing.parent_process() is not None and self._drawn() == b"x":
            self._act()
        return label

    def _drawn(self) -> bytes:
        try:
            return os.read(self._tokens.fileno(), 1)
        except BlockingIOError:  # all are taken
            return b""


MOMENTS = [pytest.param(at, marks=() if at in (5, 60) else pytest.mark.slow) for at in (1, 5, 17, 33, 48, 60, 71, 85, 93, 99)]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.fixture
def children() -> Callable[[], list[Any]]:
    """Return a function that returns the child processes which this test has started, and not those of other tests."""
    before = set(multiprocessing.active_children())
    return lambda: [child for child in multiprocessing.active_children() if child not in before]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_worker_is_an_error_that_names_its_image(expected: Expected, children: Any, moment: int) -> None:
    with pytest.raises(
        pp.errors.WorkerError, match=r"worker \d \(pid \d+\) was killed by SIGKILL .* was painting image"
    ) as raised:
        list(load(map_target=Dies(moment, kill), **WORKERS))
    named = str(raised.value).split("of step ")[1].split(": ")[1].split(" (member ")
    assert named[0] in expected.keys
    assert named[1].startswith(named[0].split("/")[1]) and "shapes-val-000000.tar" in named[1]  # noqa: PT018
    assert "waited for is step" in str(raised.value)
    assert children() == []


@pytest.mark.parametrize("persistent", [False, True])
def test_the_next_epoch_has_workers_again(expected: Expected, persistent: bool) -> None:
    loader = load(map_target=Dies(30, kill), num_workers=2, dataloader={**FORK, "persistent_workers": persistent})
    with pytest.raises(pp.errors.WorkerError):
        list(loader)
    assert digests(loader) == expected.digests


@pytest.mark.parametrize("moment", MOMENTS)
def test_others_take_over_and_nothing_is_lost_or_doubled(expected: Expected, moment: int) -> None:
    loader = load(map_target=Dies(moment, kill), on_error=pp.ErrorPolicy(worker_restarts=1), **WORKERS)
    with pytest.warns(RuntimeWarning, match=r"was killed by SIGKILL .* other workers take over, 0 more times"):
        found = digests(loader)
    assert found == expected.digests
    assert loader.report() == expected.report


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"persistent_workers": True}, marks=pytest.mark.slow),
        pytest.param({"prefetch_factor": 4}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_killed_from_outside_after_every_batch(expected: Expected, children: Any, options: dict[str, Any]) -> None:
    """Whatever they are at: idle, painting, or sending."""
    loader, found = load(on_error=pp.ErrorPolicy(worker_restarts=100), num_workers=2, dataloader={**FORK, **options}), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for number, batch in enumerate(loader):
            found.append(pp.digest(batch))
            painters = [child for child in children() if child.name != "patchpack-scanner"]
            for victim in painters[number % 2 :][:1]:
                os.kill(victim.pid, signal.SIGKILL)
    assert found == expected.digests
    assert loader.report() == expected.report


def test_what_dies_again_is_an_error_in_the_end(children: Any) -> None:
    loader = load(map_target=Dies(20, kill, times=9), on_error=pp.ErrorPolicy(worker_restarts=2), **WORKERS)
    with (
        pytest.warns(RuntimeWarning, match="other workers take over, [10] more times") as told,
        pytest.raises(pp.errors.WorkerError, match="was killed by SIGKILL"),
    ):
        list(loader)
    assert len(told) == 2
    assert children() == []


def test_restarts_are_counted_anew_in_every_epoch(expected: Expected) -> None:
    dies = Dies(20, kill, times=1)
    loader = load(map_target=dies, on_error=pp.ErrorPolicy(worker_restarts=1), **WORKERS)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="0 more times"):
            assert digests(loader) == expected.digests
        dies.again()


def test_a_frozen_worker_is_an_error_at_the_timeout(expected: Expected, children: Any) -> None:
    with pytest.raises(pp.errors.WorkerError, match=r"2 workers sent no batch for 1.5 seconds") as raised:
        list(load(map_target=Dies(40, stop), on_error=pp.ErrorPolicy(timeout=1.5), **WORKERS))
    assert any(f"{key} (member" in str(raised.value) for key in expected.keys)
    assert children() == []


@pytest.mark.slow  # waits for six seconds
def test_a_frozen_worker_is_replaced(expected: Expected) -> None:
    with pytest.warns(RuntimeWarning, match="2 workers sent no batch"):
        assert (
            digests(load(map_target=Dies(40, stop), on_error=pp.ErrorPolicy(timeout=6, worker_restarts=1), **WORKERS))
            == expected.digests
        )


def test_an_index_and_a_resumed_epoch_go_on_too() -> None:
    index = pp.Index.build(shards("val"))
    whole = digests(pp.load(index, RECIPE, shuffle=9))
    loader = pp.load(index, RECIPE, shuffle=9, map_target=Dies(50, kill), on_error=pp.ErrorPolicy(worker_restarts=1), **WORKERS)
    found, states = [], []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for batch in loader:
            found.append(pp.digest(batch))
            states.append(loader.state_dict())
    assert found == whole
    assert [w.category for w in told] == [RuntimeWarning]
    again = pp.load(index, RECIPE, shuffle=9, map_target=Dies(20, kill), on_error=pp.ErrorPolicy(worker_restarts=1), **WORKERS)
    again.load_state_dict(states[2])
    with pytest.warns(RuntimeWarning, match="take over"):
        assert digests(again) == whole[3:]


class Unsized(torch.utils.data.Dataset[Any]):
    """Items that must be read to know their size: each worker plans its own."""

    def __init__(self, dies: Dies | None = None) -> None:
        self._dies = dies

    def __len__(self) -> int:
        return 60

    def __getitem__(self, i: int) -> Any:
        if self._dies is not None:
            self._dies(i)
        return np.full((20 + i, 70 - i, 3), i, dtype=np.uint8), i


def test_workers_that_plan_for_themselves_go_on_where_they_were() -> None:
    recipe = pp.recipes.siglip2_naflex(max_patches=64, seq_len=128, rows_per_batch=1)
    before = digests(pp.load(Unsized(), recipe, **WORKERS))
    loader = pp.load(Unsized(Dies(40, kill)), recipe, on_error=pp.ErrorPolicy(worker_restarts=1), **WORKERS)
    with pytest.warns(RuntimeWarning, match="take over"):
        batches = list(loader)
    assert digests(batches) == before
    assert sorted(int(t) for b in batches for t in b.targets[b.slot_mask]) == list(range(60))
    assert loader.report().packed == loader.report().seen == 60


def test_an_error_in_a_worker_is_no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes through as it is, and nobody takes over."""

    def breaks(*_: Any) -> Any:
        raise RuntimeError("DataLoader of my own")

    monkeypatch.setattr(painting, "painted", breaks)
    with pytest.raises(RuntimeError, match="of my own") as raised:
        list(load(on_error=pp.ErrorPolicy(worker_restarts=3), **WORKERS))
    assert not isinstance(raised.value, pp.errors.WorkerError)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("SIGBUS", "enlarge /dev/shm"), ("SIGSEGV", "patchpack replay"), ("SIGKILL", "memory runs out")],
)
def test_a_signal_says_what_it_may_be(name: str, hint: str) -> None:
    number = getattr(signal, name)
    with pytest.raises(pp.errors.WorkerError, match=rf"was killed by {name} \(exit code -{number}\).*{hint}"):
        list(load(map_target=Dies(20, lambda: (signal.signal(signal.SIGSEGV, signal.SIG_DFL), os.kill(os.getpid(), number))),
                  **WORKERS))  # fmt: skip


def test_a_process_that_waits_for_ever_ends_with_its_parent() -> None:
    """Torch's workers look for their parent themselves, every few seconds and between two batches; a header reader does not."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)

    def wait() -> None:
        end_with_parent()
        theirs.send("waits")
        while True:
            signal.pause()

    def begin() -> None:
        fork.Process(target=wait).start()
        signal.pause()

    parent = fork.Process(target=begin)
    parent.start()
    theirs.close()  # the processes have it still
    assert ours.recv() == "waits"
    parent.kill()
    parent.join()
    assert ours.poll(60)
    with pytest.raises(EOFError):
        ours.recv()


def test_how_a_process_ended() -> None:
    assert how(3) == "ended with exit code 3"
    assert how(-9) == "was killed by SIGKILL (exit code -9)"
    assert how(-99) == "was killed by signal 99 (exit code -99)"


def test_the_board_holds_any_key() -> None:
    board = StatusBoard(2)
    assert board.read(0) == ""
    board.write(1, "größer 🖼")
    board.write(0, "x" * 5000)
    assert board.read(0) == "x" * 2046
    assert board.read(1) == "größer 🖼"
    note = board.painting(1, 7)
    header = Header("a.tar/\udcff", "a.tar", "b.jpg", Size(1, 1), None)
    note(header)
    note(header)
    assert board.read(1) == "was painting image 2 of step 7: a.tar/\\udcff (member b.jpg of a.tar)"
    board.write(1, "")
    assert board.read(1) == ""


@pytest.mark.parametrize("options", [{"timeout": -1}, {"timeout": float("nan")}, {"worker_restarts": -1}])
def test_a_policy_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(pp.errors.ConfigError, match=next(iter(options))):
        pp.ErrorPolicy(**options)


@pytest.mark.parametrize("name", ["in_order", "timeout", "num_workers", "sampler", "prefetch"])
def test_options_of_a_data_loader_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(pp.errors.ConfigError, match=name):
        load(dataloader={name: 1})


@pytest.mark.parametrize("name", ["timeout", "worker_restarts"])
def test_a_stage_and_a_painter_refuse_what_is_for_processes(name: str) -> None:
    policy = pp.ErrorPolicy("skip", **{name: 3})
    for make in (lambda: pp.Pack(RECIPE, on_error=policy), lambda: pp.Painter(pp.Planner([], RECIPE), on_error=policy)):
        with pytest.raises(pp.errors.ConfigError, match=f"{name}=3 is for load, which starts processes"):
            make()


def endless(options: dict[str, Any]) -> pp.Loader:
    recipe = pp.recipes.navit(seq_len=256, rows_per_batch=1)
    return pp.load(shards("train"), recipe, steps_per_epoch=10**6, shuffle=9, num_workers=2, **options)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_nothing_is_left_when_a_forked_parent_ends(name: str) -> None:
    """The pipe ends when the last process that has it does, whoever that is."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)

    def iterate() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number, _ in enumerate(endless({"dataloader": {"multiprocessing_context": "fork"}})):
            if number == 5:
                theirs.send("under way")

    parent = fork.Process(target=iterate)
    parent.start()
    theirs.close()
    assert ours.recv() == "under way"
    os.kill(parent.pid or 0, getattr(signal, name))
    parent.join()
    assert parent.exitcode == -getattr(signal, name)
    assert ours.poll(60)
    with pytest.raises(EOFError):
        ours.recv()
    assert shared_memory_of(parent.pid) == []


def shared_memory_of(process: int | None) -> list[str]:
    """Return the names of a process's shared memory."""
    return [name for name in os.listdir("/dev/shm") if f"_{process}_" in name] if os.path.isdir("/dev/shm") else []


SCRIPT = """
import os, signal, sys
import patchpack as pp

signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background may ignore it
loader = pp.load(pp.samples.shards("train"), pp.recipes.navit(seq_len=256, rows_per_batch=1), steps_per_epoch=10**6, shuffle=9,
                 num_workers=2, **eval(sys.argv[1]))
for number, batch in enumerate(loader):
    if number == 5:
        print("under way", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SIGINT", {}),
        ("SIGINT", {"dataloader": {"multiprocessing_context": "forkserver"}}),
        ("SIGTERM", {"dataloader": {"persistent_workers": True}}),
        ("SIGKILL", {"dataloader": {"persistent_workers": True}}),
        ("SIGKILL", {"dataloader": {"multiprocessing_context": "forkserver"}}),
    ],
    ids=str,
)
def test_nothing_is_left_when_the_parent_ends(name: str, options: dict[str, Any], temporary: str) -> None:
    """The pipe ends when the last process that has it does, whoever that is."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, repr(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": temporary},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "under way\n"
        parent.send_signal(getattr(signal, name))
        try:
            _, errors = parent.communicate(timeout=60)
        finally:
            parent.kill()  # or it would be waited for
    assert parent.returncode == -getattr(signal, name)
    assert "NoneType" not in errors
    assert ("KeyboardInterrupt" in errors) == (name == "SIGINT")
    assert shared_memory_of(parent.pid) == []
