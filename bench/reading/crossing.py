"""What does it cost to hand a batch from a worker to the training thread: as ten shared tensors, as one, or in a slot of a
pool?

    OMP_NUM_THREADS=1 python -m bench.reading.crossing [--dtype float32]

One batch is painted once. A worker writes and sends it again and again, in three ways: as torch itself sends a `PackedBatch`,
as a shared batch with its own memory, and as a shared batch in a slot of the loader's pool of reused memory. The training
thread takes the batch, copies the patches once, as for a device, and releases the batch before. The received batch is compared
with the sent one. The output is JSON: medians and quartiles of the CPU time per batch, of the training thread and of the worker
process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import patchpack as pp
from patchpack.paint.painter import paint
from patchpack.stream.workers.shared_batch import SharedBatch, unwrap, wrap
from patchpack.stream.workers.slot_pool import SPARE, SlotPool, slot_bytes_of

BATCHES, WARM_UP, KEPT = 60, 10, 4
AHEAD = 2  # torch's default for one worker
WAYS = ("ten tensors", "own memory", "slot")


class Sent(Dataset[Any]):
    """A dataset that returns one painted batch again and again. An index is the number of a slot, or None."""

    def __init__(self, batch: pp.PackedBatch, way: str, pool: SlotPool | None) -> None:
        self.batch, self.way, self.pool = batch, way, pool
        self.begun = 0.0

    def __getitem__(self, number: int | None) -> Any:
        now = time.process_time()  # the time since the last batch covers all work of this process for it, with sending
        self.batch.info.state, self.begun = {"ms": 1e3 * (now - self.begun)}, now
        if self.way == "ten tensors":
            return self.batch._replace(patches=self.batch.patches.copy())
        slot = self.pool.slot(number) if self.pool is not None and number is not None else None
        shared, inside = wrap(self.batch, slot)
        inside.patches[...] = self.batch.patches
        return shared


def receive(batch: pp.PackedBatch, way: str, recipe: pp.Recipe) -> dict[str, Any]:
    """Return the milliseconds per batch on both sides, and the number of file descriptors that a kept batch holds."""
    taking, making = [], []
    device = torch.from_numpy(np.zeros_like(batch.patches))
    loader = arriving(batch, way, recipe)
    arrived = None
    for _ in range(BATCHES + WARM_UP):
        time.sleep(0.03)  # until the next batch is there, because waiting must not be measured
        start = time.thread_time()
        arrived = next(loader)  # this frees the batch before
        device.copy_(arrived.patches)
        taking.append(1e3 * (time.thread_time() - start))
        making.append(arrived.info.state["ms"])
    del arrived
    loader.close()
    before = len(os.listdir("/proc/self/fd"))
    loader = arriving(batch, way, recipe)
    kept = list(islice(loader, KEPT))
    loader.close()
    files = len(os.listdir("/proc/self/fd")) - before
    for arrived in kept:
        assert np.array_equal(arrived.patches.numpy(), batch.patches)
        assert arrived.keys == batch.keys
    return {
        "training thread, ms": quartiles(taking),
        "worker, ms": quartiles(making),
        # a pool has one file descriptor for all of its batches
        "files per batch": max(0, files - (way == "slot")) // KEPT,
    }


def quartiles(milliseconds: list[float]) -> dict[str, Any]:
    """Return the median and the quartiles after the warm-up."""
    low, median, high = statistics.quantiles(milliseconds[WARM_UP:], n=4)
    return {"median": round(median, 2), "quartiles": [round(low, 2), round(high, 2)]}


def arriving(batch: pp.PackedBatch, way: str, recipe: pp.Recipe) -> Iterator[pp.PackedBatch]:
    """Yield the batches that a worker sends, as `PackedBatch`."""
    pool = SlotPool(AHEAD + SPARE + KEPT, slot_bytes_of(recipe)) if way == "slot" else None

    def slots() -> Iterator[int | None]:
        for _ in range(BATCHES + WARM_UP):
            yield pool.take() if pool is not None else None

    for sent in DataLoader(Sent(batch, way, pool), sampler=slots(), batch_size=None, num_workers=1, prefetch_factor=AHEAD):
        arrived = unwrap(sent) if isinstance(sent, SharedBatch) else sent
        del sent
        yield arrived
        del arrived


def main() -> None:
    """Paint one batch and send it in every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("uint8", "float16", "float32"), default="uint8", help="of the patches")
    recipe = pp.recipes.navit(seq_len=1024, rows_per_batch=8, dtype=parser.parse_args().dtype)
    planner = pp.Planner(pp.samples.shards("train"), recipe)
    batch = paint(next(iter(planner)), recipe, planner.source.reader)
    answer = {
        "batch": f"{list(batch.patches.shape)} {recipe.dtype}",
        **{way: receive(batch, way, recipe) for way in WAYS},
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
