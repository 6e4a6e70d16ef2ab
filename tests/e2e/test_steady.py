"""What many epochs must leave as it was: memory, and the random states of everybody else."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchpack as pp
from helpers.hard_images import EXTENSIONS, own, write_shard

EPOCHS = 10
RECIPE = pp.recipes.navit(rows_per_batch=2)
# kB that this process and its children have to themselves, after each epoch
CHILD = """
    import ctypes, gc, os, sys
    from contextlib import suppress
    import patchpack as pp

    source, kind, workers, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

    def held():
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # what is free is no leak
        pids = [os.getpid()]
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children") as children:
                pids += map(int, children.read().split())
        total = 0
        for pid in pids:
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
        return total, len(pids)

    shards = [*pp.samples.shards("val"), source]
    options = {"num_workers": workers, "dataloader": {"persistent_workers": True}} if workers else {}
    if kind == "indexed":
        shards = pp.Index.build(shards, image=sys.argv[5])
    else:
        options["image"] = sys.argv[5]
    loader = pp.load(shards, pp.recipes.navit(rows_per_batch=2), shuffle=32, on_error="skip", **options)
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        packed = 0
        for batch in loader:
            packed += batch.info.packed
            del batch
        print(*held(), packed, len(loader.report().rejected), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads memory where Linux tells of it")
@pytest.mark.parametrize(("kind", "workers"), [("streamed", 0), ("streamed", 2), ("indexed", 0)])
def test_memory_does_not_grow_with_epochs(kind: str, workers: int, tmp_path: Path) -> None:
    """Hard files are among them: an error that is kept would keep its picture."""
    arguments = [write_shard(tmp_path / "hard.tar", own()), kind, str(workers), str(EPOCHS), EXTENSIONS]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kilobytes, processes, packed, rejected = np.array([line.split() for line in done.stdout.splitlines()], dtype=np.int64).T
    assert len(kilobytes) == EPOCHS
    assert set(packed) == {packed[0]}
    assert set(rejected) == {rejected[0]}
    assert packed[0] > 100
    assert rejected[0] > 5
    assert (processes >= 1 + workers).all()
    slope = np.polyfit(np.arange(2, EPOCHS), kilobytes[2:], 1)[0]
    assert slope < 1000, kilobytes.tolist()  # per epoch, after the second


def alive() -> Counter[str]:
    """Count the objects that hold pixels, and the errors that may hold them, by their class."""
    gc.collect()
    kinds = (torch.Tensor, Image.Image, BaseException)
    # by type(): isinstance() asks an object for its class, and some answer with a warning
    return Counter(type(found).__name__ for found in gc.get_objects() if issubclass(type(found), kinds))


@pytest.mark.parametrize("kind", [pytest.param("streamed", marks=pytest.mark.slow), "indexed"])
def test_no_picture_outlives_its_epoch(kind: str, tmp_path: Path) -> None:
    """Compare the tensors, pictures and errors that are alive after one epoch and after the next."""
    shards = write_shard(tmp_path / "hard.tar", own())
    if kind == "indexed":
        loader = pp.load(pp.Index.build(shards, image=EXTENSIONS), RECIPE, shuffle=32, on_error="skip")
    else:
        loader = pp.load(shards, RECIPE, shuffle=32, on_error="skip", image=EXTENSIONS)
    found = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        for _ in loader:
            pass
        found.append(alive())
    assert len(loader.report().rejected) > 5
    assert loader.report().packed > 5
    assert found[1] == found[2]


# -------------------------------------------------------------------------------------------------------- random states


def states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def loaded(**options: Any) -> None:
    loader = pp.load(pp.samples.shards("val"), RECIPE, shuffle=16, on_error="skip", **options)
    for epoch in range(2):
        loader.set_epoch(epoch)
        state = loader.state_dict()
        list(loader)
    loader.load_state_dict(state)
    loader.report()


def indexed() -> None:
    index = pp.Index.build(pp.samples.shards("val"))
    loader = pp.load(index, RECIPE, shuffle=16)
    for epoch in range(2):
        loader.set_epoch(epoch)
        list(loader)


def staged() -> None:
    samples = [pp.Sample(str(i), file.data, 0) for i, file in enumerate(own())]
    stage = pp.Pack(RECIPE, on_error="skip")
    for epoch in range(2):
        stage.set_epoch(epoch)
        list(stage(samples))


def replayed() -> None:
    shards = pp.samples.shards("val")
    batch = next(iter(pp.load(shards, RECIPE)))
    pp.replay(shards, RECIPE, batch.keys[0][0])


USES: dict[str, Callable[[], Any]] = {
    "load": loaded,
    "workers": lambda: loaded(num_workers=1),
    "workers that stay": lambda: loaded(num_workers=1, dataloader={"persistent_workers": True}),
    "threads": lambda: loaded(num_threads=2),
    "index": indexed,
    "pack": staged,
    "replay": replayed,
}


@pytest.mark.parametrize("use", USES)
def test_nobody_s_random_state_is_touched(use: str) -> None:
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    before = states()
    USES[use]()
    assert states() == before
