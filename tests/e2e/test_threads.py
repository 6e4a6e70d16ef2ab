"""Batches painted by threads: the same account, errors in their turn, nothing left running."""

from __future__ import annotations

import copy
import gc
import threading
from pathlib import Path

import numpy as np
import pytest

import patchpack as pp
from patchpack.image.decode import decode
from patchpack.stream.tar.reader import ShardReader

RECIPE = pp.recipes.navit(resize=pp.resize.NaViT((32, 96)), seq_len=64, max_images=8, rows_per_batch=2)


def painters() -> int:
    return sum(thread.name.startswith("patchpack-painter") for thread in threading.enumerate())


def samples(count: int, *, broken: tuple[int, ...] = ()) -> list[pp.Sample]:
    """Pictures, of which some have a right header and no pixels."""
    found = []
    for i in range(count):
        image = decode(JPEG) if i not in broken else JPEG[: len(JPEG) // 2]
        found.append(pp.Sample(str(i), image, i))
    return found


@pytest.fixture(scope="module", autouse=True)
def jpeg(tmp_path_factory: pytest.TempPathFactory) -> None:
    from PIL import Image

    global JPEG
    path: Path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(path)
    JPEG = path.read_bytes()


def test_an_error_comes_before_the_batch_that_would_have_held_its_sample() -> None:
    def delivered(**options: int) -> list[list[list[str]]]:
        loader, keys = pp.load(samples(40, broken=(33,)), RECIPE, **options), []
        with pytest.raises(pp.errors.SampleError, match="33"):
            keys.extend(batch.keys for batch in loader)
        return keys

    assert delivered(num_threads=2) == delivered() != []


def test_skipped_samples_are_counted_the_same() -> None:
    reports = []
    for options in ({}, {"num_threads": 3}):
        loader = pp.load(samples(40, broken=(3, 4, 39)), RECIPE, on_error="skip", **options)
        assert len(list(loader)) == 3
        reports.append(str(loader.report()))
    assert reports[0] == reports[1]
    assert "3 rejected" in reports[0]


def test_a_source_without_an_image_is_an_error() -> None:
    with pytest.raises(pp.errors.SourceError, match="no image to pack"):
        list(pp.load([pp.Sample("a", b"nothing", 0)], RECIPE, on_error="skip", num_threads=2))


def test_threads_end_with_the_epoch_and_with_an_iterator_that_is_left() -> None:
    loader = pp.load(pp.samples.shards("train"), RECIPE, num_threads=2)
    list(loader)
    assert painters() == 0
    batches = iter(loader)
    next(batches)
    assert painters() == 2
    del batches
    gc.collect()
    assert painters() == 0


def test_a_fault_of_a_kind_that_nobody_expects_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: ShardReader, location: object) -> None:
        raise ZeroDivisionError("of mine")

    monkeypatch.setattr(ShardReader, "__call__", fails)
    with pytest.raises(ZeroDivisionError, match="of mine"):
        list(pp.load(pp.samples.shards("train"), RECIPE, num_threads=2))
    gc.collect()  # the traceback held the iterator
    assert painters() == 0


def test_every_thread_opens_files_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    readers: dict[int, set[int]] = {}
    reads, everyone = ShardReader._read, threading.Barrier(2)

    def watched(self: ShardReader, *where: object) -> bytes:
        if threading.get_ident() not in readers and threading.current_thread().name.startswith("patchpack-painter"):
            readers[threading.get_ident()] = set()
            everyone.wait(30)  # both threads are at work
        readers.setdefault(threading.get_ident(), set()).add(id(self))
        return reads(self, *where)

    monkeypatch.setattr(ShardReader, "_read", watched)
    list(pp.load(pp.samples.shards("train"), RECIPE, num_threads=2))
    assert [len(each) for each in readers.values()] == [1, 1, 1]  # the third looks at a label while planning
    assert len(set.union(*readers.values())) == 3


def test_threads_or_processes() -> None:
    with pytest.raises(pp.errors.ConfigError, match="num_workers=2 paint in processes, num_threads=1 in this one"):
        pp.load(pp.samples.shards("train"), RECIPE, num_workers=2, num_threads=1)
    with pytest.raises(pp.errors.ConfigError, match="num_threads must be an integer"):
        pp.load(pp.samples.shards("train"), RECIPE, num_threads=-1)


def test_steps_are_counted_as_without() -> None:
    loader = pp.load(pp.samples.shards("train"), RECIPE, steps_per_epoch=5, num_threads=2)
    assert len(loader) == len(list(loader)) == 5
    with pytest.raises(TypeError, match="not known before the end"):
        len(pp.load(pp.samples.shards("train"), RECIPE, num_threads=2))


def test_a_mapped_reader_is_copied_with_its_files() -> None:
    """Threads that shared a reader opened a shard twice at once, and lost a descriptor."""
    planner = pp.Planner(pp.samples.shards("val"), RECIPE, map_target=str)
    mine = copy.copy(planner.source.reader)
    location = next(iter(planner)).headers[0].location
    assert mine(location)[1] == planner.source.reader(location)[1]
    assert mine._reader is not planner.source.reader._reader  # type: ignore[attr-defined]
    assert not set(mine._reader._files.values()) & set(planner.source.reader._reader._files.values())  # type: ignore[attr-defined]
