"""Workers paint into memory that comes round again: what is held is never painted over, and nothing is left behind."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
import patchpack.stream.painting.painter as painting
from patchpack.samples import shards
from patchpack.stream.workers.slot_pool import SPARE
from patchpack.testing import check_batch
from patchpack.types import BatchPlan

RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=1)
STEPS = 40
AHEAD = 4  # two workers, two batches each
SLOTS = AHEAD + SPARE
WORKERS = {"num_workers": 2}
ONLY_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at this process's memory in /proc")


def load(**options: Any) -> pp.Loader:
    return pp.load(shards("train"), RECIPE, shuffle=20, steps_per_epoch=STEPS, **options)


@pytest.fixture(scope="module")
def expected() -> list[pp.PackedBatch]:
    return list(load())


def assert_same(ours: Any, theirs: Any) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys == b.keys
        for name in ("patches", "position_ids", "segment_ids", "grid_sizes", "source_sizes", "slot_mask", "targets", "norm"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


def in_pool(batch: pp.PackedBatch) -> bool:
    """Memory of its own is torch's shared memory; that of a slot is not torch's."""
    return not batch.patches.is_shared()


@pytest.mark.parametrize("start", ["fork", *(pytest.param(start, marks=pytest.mark.slow) for start in ("spawn", "forkserver"))])
def test_held_batches_are_not_painted_over(expected: list[pp.PackedBatch], start: str) -> None:
    held = list(load(**WORKERS, dataloader={"multiprocessing_context": start}))
    assert_same(held, expected)
    assert sum(map(in_pool, held)) == SLOTS  # and the others have memory of their own


PARTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "row": lambda patches: patches[0],
    "every other token": lambda patches: patches[:, ::2],
    "numpy": lambda patches: patches.numpy()[0],
    "numpy of a slice": lambda patches: patches[:, 5:].numpy(),
    "memory view": lambda patches: memoryview(patches[0].numpy())[3:],
}


def test_a_part_of_a_batch_is_held_too(expected: list[pp.PackedBatch]) -> None:
    """Of each batch another part is held: any of them keeps its memory from coming round."""
    parts = list(PARTS) * (STEPS // len(PARTS))
    held = [PARTS[part](batch.patches) for part, batch in zip(parts, load(**WORKERS), strict=True)]
    for part, ours, theirs in zip(parts, held, expected, strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(PARTS[part](theirs.patches))), part


def test_memory_of_batches_let_go_comes_round(expected: list[pp.PackedBatch]) -> None:
    places = set()
    for ours, theirs in zip(load(**WORKERS), expected, strict=True):
        assert in_pool(ours)
        assert torch.equal(ours.patches, theirs.patches)
        places.add(ours.patches.data_ptr())
    assert len(places) <= SLOTS
    assert len(places) < len(expected)


def test_some_held_and_some_let_go(expected: list[pp.PackedBatch]) -> None:
    """Every third is held: in the end they fill the pool, and the others go on in memory of their own."""
    held = []
    for number, batch in enumerate(load(**WORKERS)):
        assert torch.equal(batch.patches, expected[number].patches)
        if number % 3 == 0:
            held.append(batch)
    assert_same(held, expected[::3])


def test_two_iterators_at_a_time(expected: list[pp.PackedBatch]) -> None:
    loader = load(**WORKERS)
    pairs = list(zip(loader, loader, strict=True))
    for number in (0, 1):
        assert_same([pair[number] for pair in pairs], expected)


def test_workers_that_stay_have_all_slots_again_after_a_break(expected: list[pp.PackedBatch]) -> None:
    loader = load(**WORKERS, dataloader={"persistent_workers": True})
    for stop in (1, 3, 6, 2):
        assert_same(islice(loader, stop), expected[:stop])
    held = list(loader)
    assert sum(map(in_pool, held)) == SLOTS
    del held
    for ours, theirs in zip(loader, expected, strict=True):
        assert in_pool(ours)
        assert torch.equal(ours.patches, theirs.patches)


def test_workers_that_stay_have_the_slots_of_batches_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a fault of a sample, which travels in the batch: one of the machine, after some paint."""
    whole = painting.painted

    def breaks(plan: BatchPlan, *others: Any) -> Any:
        painted = whole(plan, *others)
        if plan.step == 0 and plan.epoch < SLOTS:
            raise MemoryError("no memory")
        return painted

    monkeypatch.setattr(painting, "painted", breaks)
    loader = load(**WORKERS, dataloader={"persistent_workers": True, "multiprocessing_context": "fork"})
    for epoch in range(SLOTS):
        loader.set_epoch(epoch)
        with pytest.raises(MemoryError, match="no memory"):
            next(iter(loader))
    loader.set_epoch(SLOTS)
    assert all(map(in_pool, loader))


def test_unreadable_pictures_leave_zeros_in_memory_that_came_round(tmp_path: Path) -> None:
    samples = [pp.Sample(f"s{i}", np.full((64, 64, 3), 255, dtype=np.uint8), i) for i in range(60)]
    for i in range(1, 60, 4):
        samples[i] = pp.Sample(f"s{i}", png_without_end(i), i)
    recipe = pp.recipes.siglip2_naflex(max_patches=16, seq_len=40, rows_per_batch=1)
    alone = list(pp.load(samples, recipe, on_error="skip"))
    loader = pp.load(samples, recipe, on_error="skip", **WORKERS)
    padded = 0
    for ours, theirs in zip(loader, alone, strict=True):
        check_batch(ours)
        assert_same([ours], [theirs])
        padded += int((~pp.token_mask(ours)).sum())
    assert padded > 100
    assert len(loader.report().rejected) == 15


def png_without_end(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()[:-900]


# ----------------------------------------------------------------------------------------------------- nothing is left


def mapped() -> int:
    """Pieces of torch's shared memory that this process has mapped."""
    gc.collect()
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum("torch_" in line for line in lines)


def use_all(loader: pp.Loader) -> None:
    for _ in loader:
        pass


def leave_early(loader: pp.Loader) -> None:
    for _ in islice(loader, 3):
        pass


def fail(loader: pp.Loader) -> None:
    try:
        for batch in loader:
            batch.patch_size // 0
    except ZeroDivisionError:
        pass


@ONLY_LINUX
@pytest.mark.parametrize(
    ("use", "persistent"),
    [
        (use_all, False),
        (use_all, True),
        (leave_early, False),
        (fail, True),
        pytest.param(leave_early, True, marks=pytest.mark.slow),
        pytest.param(fail, False, marks=pytest.mark.slow),
    ],
)
def test_memory_goes_with_its_loader(use: Callable[[pp.Loader], None], persistent: bool) -> None:
    before, named = mapped(), sorted(os.listdir("/dev/shm"))
    loader = load(**WORKERS, dataloader={"persistent_workers": persistent})
    use(loader)
    assert mapped() == before + 2 * persistent  # workers that stay keep their pool and their board
    del loader
    assert mapped() == before
    assert [name for name in os.listdir("/dev/shm") if name.startswith("torch_") and name not in named] == []


@ONLY_LINUX
def test_held_batches_hold_the_memory_of_an_epoch_that_is_over(expected: list[pp.PackedBatch]) -> None:
    before = mapped()
    iterator: Iterator[pp.PackedBatch] = iter(load(**WORKERS))
    held = list(islice(iterator, 3))
    del iterator
    assert mapped() == before + 1
    assert_same(held, expected[:3])
    del held
    assert mapped() == before


def names_of(process: int) -> list[str]:
    """Return the names of a process's pieces of shared memory."""
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"torch_{process}")]


@ONLY_LINUX
def test_a_killed_fork_leaves_no_name_behind() -> None:
    """Without a name the kernel frees the memory with the last process; workers end when they miss their parent."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)

    def begin() -> None:
        batches = iter(load(**WORKERS))
        next(batches)
        theirs.send(names_of(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)

    killed = fork.Process(target=begin)
    killed.start()
    assert ours.recv() == []
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert names_of(killed.pid or 0) == []


KILLED = """
import os, signal, sys
import patchpack as pp
loader = pp.load(pp.samples.shards("train"), pp.recipes.navit(seq_len=256, rows_per_batch=1), num_workers=2)
batches = iter(loader)
next(batches)
print(*[name for name in os.listdir("/dev/shm") if name.startswith("torch_" + str(os.getpid()))], "names", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@ONLY_LINUX
def test_a_killed_parent_leaves_no_name_behind() -> None:
    """Without a name the kernel frees the memory with the last process; workers end when they miss their parent."""
    killed = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.strip() == "names"
