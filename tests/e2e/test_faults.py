"""Every fault a container may have: every sample is delivered once with its label, or named; nothing is lost in silence."""

from __future__ import annotations

import errno
import gc
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader

import patchpack as pp
import patchpack.stream.tar.shards as reading
from helpers.accounts import Account, bundles, differences, label_of, load, name_of, run
from helpers.audited import WRITING
from helpers.faults import FAULTS, Fault
from helpers.painted import RECIPE, Maker, painted_label
from patchpack.paint.patchify import patchify

TESTS = Path(__file__).resolve().parents[1]
TARGETS = sorted({fault.target for fault in FAULTS.values()}, key=str)
WAYS = ("as it goes", "as a stream", "indexed")
EACH = [(name, way) for name, fault in FAULTS.items() for way in (WAYS[:1] if fault.compressed else WAYS)]
SEEKABLE = [fault for fault in FAULTS.values() if not fault.compressed]


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    """What waits for ever is an error and not a suite that never ends."""

    def late(*_: object) -> None:
        raise TimeoutError("nothing came for five minutes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Account]:
    """Return the account of a fault by itself, read in one of the ways, made once: nothing good comes before it."""
    folder = tmp_path_factory.mktemp("alone")

    @cache
    def of(name: str, way: str) -> Account:
        return run([FAULTS[name].write_to(folder, way == "as a stream")], way, 0, FAULTS[name].target)

    return of


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 150
    assert sum(bool(fault.rejected or fault.fault) for fault in FAULTS.values()) >= 110


@pytest.mark.parametrize(("name", "way"), EACH)
def test_the_account_of_a_fault_is_exact(alone: Callable[[str, str], Account], name: str, way: str) -> None:
    fault, found = FAULTS[name], alone(name, way)
    assert differences(fault, fault.file_name(way == "as a stream"), found) == []
    assert bool(found.error) == (not fault.delivered)


def together() -> Iterator[Any]:
    """Yield targets with ways and numbers of workers; slow are most of the many shards with a class, and most with workers."""
    for target in TARGETS:
        for way in WAYS:
            fast = target != "cls" or way == "as it goes"
            yield pytest.param(target, way, 0, marks=() if fast else pytest.mark.slow, id=f"{target}-{way}-0")
            yield pytest.param(target, way, 2, marks=() if target == "npy" else pytest.mark.slow, id=f"{target}-{way}-2")


@pytest.mark.parametrize(("target", "way", "num_workers"), [*together()])
def test_faults_do_not_touch_each_other(
    alone: Callable[[str, str], Account], tmp_path: Path, target: Any, way: str, num_workers: int
) -> None:
    """All shards of one kind of label in one run: the account of each is what it is alone, with any number of workers."""
    zipped = way == "as a stream"
    faults = bundles(zipped, compressed=way == "as it goes")[target]
    paths = [fault.write_to(tmp_path, zipped) for fault in faults]
    together = run(paths, way, num_workers, target)
    assert not together.error
    for fault, path in zip(faults, paths, strict=True):
        assert together.of(name_of(path))[:3] == alone(fault.name, way)[:3]
    assert len(together.delivered) == sum(len(fault.delivered) for fault in faults)
    assert len(together.rejected) == sum(len(fault.rejected) for fault in faults)
    assert len(together.faults) == sum(bool(fault.fault) for fault in faults)


@pytest.mark.parametrize("fault", [f for f in FAULTS.values() if f.rejected or f.fault], ids=lambda fault: fault.name)
def test_by_default_the_first_loss_is_an_error_that_names_it(fault: Fault, tmp_path: Path) -> None:
    path = fault.write_to(tmp_path)
    with pytest.raises((pp.errors.SampleError, pp.errors.SourceError)) as raised:
        list(pp.load(path, RECIPE, target=fault.target))
    lost = [f"{fault.file_name()}/{lost.stem}" for lost in fault.rejected] or [fault.file_name()]
    assert any(name in str(raised.value) for name in lost)


# ---------------------------------------------------------------------------------------- what is watched from outside


WATCHED = (
    "an image of no bytes", "a pickle for an image", "pickles nobody asked for", "cls of a pickle", "npy of a pickled object",
    "npy of a shape that is code", "an absolute name", "a name that leads out", "a symbolic link for an image",
    "cut in the first image", "a size of 8 GiB",
)  # fmt: skip


def test_nothing_is_written_or_unpickled_of_some_faults(tmp_path: Path) -> None:
    """Read in a fork of this process, where alone it is watched what is opened for writing, and unpickled."""
    folder, here = tmp_path / "shards", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    shards = [(FAULTS[name], way, FAULTS[name].write_to(folder, way == "as a stream")) for name in WATCHED for way in WAYS]
    for fault, way, path in shards:  # what is imported, and read of compiled kernels, is there when the fork is watched
        run([path], way, 0, fault.target)
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)

    def watch() -> None:
        os.chdir(here)
        told: list[str] = []

        def listen(event: str, arguments: tuple[Any, ...]) -> None:
            written = event == "open" and (arguments[2] & WRITING or set(arguments[1] or "") & set("wax+"))
            if written or event in ("pickle.find_class", "os.system", "subprocess.Popen", "os.mkdir", "os.remove", "os.rename"):
                told.append(f"{event} {arguments}")

        sys.addaudithook(listen)
        wrong = [differences(fault, name_of(path), run([path], way, 0, fault.target)) for fault, way, path in shards]
        found = [*told], wrong
        theirs.send(found)  # sending opens and pickles, too

    watcher = fork.Process(target=watch)
    watcher.start()
    theirs.close()
    told, wrong = ours.recv()
    watcher.join()
    assert told == []
    assert wrong == [[]] * len(shards)
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_nothing_is_written_or_unpickled_and_no_memory_taken(tmp_path: Path) -> None:
    """All faults, alone and together with two workers, in a process that tells what is opened; see `audited`."""
    folder, here = tmp_path / "shards", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TESTS / "helpers" / "audited.py"), str(folder)],
        cwd=here, env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout.splitlines()[-1])
    assert account["wrong"] == []
    assert account["same"]
    assert account["grown"] <= 400  # MB
    assert list(here.iterdir()) == []
    told = (tmp_path / "told").read_text().splitlines()
    assert told[:2] == ["alone", "together"]  # in one process nothing is opened for writing, nothing is unpickled
    assert told[-1] == "done"
    for line in told[2:-1]:  # plans and batches go between processes
        assert re.fullmatch(r"pickle\.find_class (patchpack|torch|numpy|multiprocessing)\S* \S+|open /dev/shm/\S+", line), line


# ---------------------------------------------------------------------------------------------------- an index that is old


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cut", [700, 4000, -600, -1024, -1])
def test_a_shard_that_is_cut_after_it_was_indexed(cut: int, num_workers: int, tmp_path: Path) -> None:
    path, other = tmp_path / "a.tar", tmp_path / "b.tar"
    path.write_bytes(Maker(1).whole())
    other.write_bytes(Maker(2).whole())
    index = pp.Index.build([str(path), str(other)])
    index.save(tmp_path / "both.index")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(pp.errors.StaleIndexError, match=r"1 of 2 shards .* the first is .*a\.tar, which has"):
        pp.Index.open(tmp_path / "both.index")
    with pytest.raises(
        pp.errors.SourceError, match=r"a\.tar/s1 \(s1\.png\): .*a\.tar has changed since it was indexed, it has"
    ):
        list(pp.load(index, RECIPE, num_workers=num_workers))
    found = load(index, num_workers)
    assert found.delivered == {f"b.tar/s{n}": Maker(2).label(n) for n in (1, 2, 3)}
    assert [entry[:3] for entry in found.rejected] == [(f"a.tar/s{n}", "read", f"s{n}.png") for n in (1, 2, 3)]
    assert found.faults == {}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shard_that_was_written_anew_gives_no_other_label(num_workers: int, tmp_path: Path) -> None:
    """Small labels are in the index: with the pictures of another file they would be wrong, and nobody could tell."""
    path = tmp_path / "a.tar"
    path.write_bytes(Maker(1).whole())
    index = pp.Index.build(str(path))
    path.write_bytes(Maker(2).whole())
    found = load(index, num_workers)
    assert found.delivered == {}
    assert {entry[1] for entry in found.rejected} == {"read"}
    assert all("has changed since it was indexed, it has" in entry[3] for entry in found.rejected)
    path.write_bytes(Maker(1).whole())  # as it was, at another time
    assert len(load(index, num_workers).delivered) == 3


@pytest.mark.parametrize("fault", SEEKABLE, ids=lambda fault: fault.name)
def test_an_index_of_the_whole_shard_knows_every_broken_one(fault: Fault, tmp_path: Path) -> None:
    path = tmp_path / fault.file_name()
    path.write_bytes(Maker(300).whole())
    index = pp.Index.build(str(path))
    index.save(tmp_path / "old.index")
    fault.write_to(tmp_path)
    with pytest.raises(pp.errors.StaleIndexError, match=re.escape(fault.file_name())):
        pp.Index.open(tmp_path / "old.index")
    found = load(index)
    assert found.delivered == {}
    assert [entry[1] for entry in found.rejected] == ["read"] * 3


@pytest.mark.parametrize("fault", [f for f in FAULTS.values() if f.compressed], ids=lambda fault: fault.name)
def test_what_is_compressed_is_not_indexed(fault: Fault, tmp_path: Path) -> None:
    with pytest.raises(pp.errors.SourceError, match=rf"{fault.file_name()} cannot be indexed: it is compressed"):
        pp.Index.build(fault.write_to(tmp_path), target=fault.target)


# --------------------------------------------------------------------------------------------------- shards that are none


@pytest.mark.parametrize("make", [pp.Index.build, lambda paths: pp.load(paths, RECIPE)], ids=["indexed", "as it goes"])
@pytest.mark.parametrize(
    ("kind", "why"), [("folder", "which is not a file"), ("pipe", "which is not a file"), ("nothing", "which does not exist")]
)
def test_a_shard_that_is_no_file_is_an_error_at_once(kind: str, why: str, make: Any, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    good.write_bytes(Maker(1).whole())
    {"folder": bad.mkdir, "pipe": lambda: os.mkfifo(bad), "nothing": lambda: None}[kind]()
    with pytest.raises(pp.errors.SourceError, match=rf"1 of 2 shards are missing, the first is .*bad\.tar, {why}"):
        make([str(good), str(bad)])


def closed(path: str, file: Any, *args: Any, **options: Any) -> Any:
    """Open a file as any user does who may not read this path."""
    if file == path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return open(file, *args, **options)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", ["gone", "a folder", "not ours to read"])
def test_a_shard_that_cannot_be_opened_is_a_fault(
    kind: str, num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "a.tar", tmp_path / "b.tar"]
    for number, path in enumerate(paths):
        path.write_bytes(Maker(number).whole())
    loader = pp.load([str(path) for path in paths], RECIPE, num_workers=num_workers, on_error="skip")
    if kind == "not ours to read":
        paths[0].chmod(0)
        if os.access(paths[0], os.R_OK):  # nothing is closed to root
            monkeypatch.setattr(reading, "open", partial(closed, str(paths[0])), raising=False)
    else:
        paths[0].unlink()
        if kind == "a folder":
            paths[0].mkdir()
    assert sum(batch.info.packed for batch in loader) == 3
    (fault,) = loader.report().shard_errors
    assert fault.shard == "a.tar"
    assert re.search(r"cannot be read: (FileNotFound|IsADirectory|Permission)Error", fault.reason)


# -------------------------------------------------------------------------------------------------------- a user's pipeline

ENDLESS = {"a size of 4 EiB", "a label of 4 EiB"}  # webdataset reads them for ever


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], list[dict[str, Any]]]:
    """Return what a pipeline of webdataset yields of all shards with a kind of label, read once.

    The pipeline goes on whatever comes: what it loses never reaches `Pack`.
    """
    folder = tmp_path_factory.mktemp("items")
    options: dict[str, Any] = {"shardshuffle": False, "empty_check": False, "handler": wds.ignore_and_continue}

    @cache
    def of(target: Any) -> list[dict[str, Any]]:
        faults = [fault for fault in FAULTS.values() if fault.target == target and fault.name not in ENDLESS]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it leaves its open shards to the garbage collector
            found = [item for fault in faults for item in wds.WebDataset(fault.write_to(folder), **options)]
            gc.collect()
        return found

    return of


def key_of(item: dict[str, Any]) -> str:
    return f"{name_of(item['__url__'])}/{item['__key__']}"


def usable(item: dict[str, Any], target: Any) -> int | None:
    """The label an item's picture shows, if all of it can be read."""
    data = next((item[e] for e in ("jpg", "jpeg", "png", "webp") if e in item), b"")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            pixels = np.asarray(image)
        for name in (target,) if isinstance(target, str) else target:
            if name == "npy":
                assert len(item["npy"]) == 136
                assert b"'descr': '<i8', 'fortran_order': False, 'shape': ()" in item["npy"]
            else:
                assert re.fullmatch(rb"\s*\d{1,19}\s*", item[name])
    except (AssertionError, KeyError, OSError, ValueError, SyntaxError, Image.DecompressionBombWarning):
        return None
    return painted_label(patchify(pixels, 8).reshape(-1, 192))


def through_pack(items: list[dict[str, Any]], target: Any, num_workers: int) -> tuple[Any, ...]:
    """(seen, labels by key, rejected keys with stage): every picture with its own label."""
    stage = pp.Pack(RECIPE, target=target, on_error=pp.ErrorPolicy("skip", max_in_a_row=None)).over(items)
    batches = list(DataLoader(stage, batch_size=None, num_workers=num_workers))
    images = [image for batch in batches for image in pp.unpack(batch)]
    assert all(painted_label(image.patches) == label_of(image.target) for image in images)
    report = pp.Report.collect(batches)
    assert report.seen == report.packed + len(report.rejected) == len(images) + len(report.rejected)
    assert (report.waiting, report.dropped, report.shard_errors) == (0, {}, [])
    delivered = Counter((image.key, label_of(image.target)) for image in images)
    return report.seen, delivered, Counter((r.key, r.stage) for r in report.rejected)


# most faults have a `.cls`: those take three seconds, the others are of every kind, too
PACKED = [pytest.param(target, marks=pytest.mark.slow) if target == "cls" else target for target in TARGETS]


@pytest.mark.parametrize("target", PACKED, ids=str)
def test_what_reaches_pack_is_packed_or_named(items: Callable[[Any], list[dict[str, Any]]], target: Any) -> None:
    everything = items(target)
    shown = [(item, usable(item, target)) for item in everything]
    seen, delivered, rejected = through_pack(everything, target, 0)
    assert seen == len(everything)
    assert delivered == Counter((key_of(item), label) for item, label in shown if label is not None)
    assert Counter(key for key, _ in rejected.elements()) == Counter(key_of(item) for item, label in shown if label is None)
    assert through_pack(everything, target, 2) == (seen, delivered, rejected)
