"""What does it cost the training thread to take a batch from a worker: ten shared tensors, or one?

    OMP_NUM_THREADS=1 python bench/crossing.py

One batch is painted once; a worker sends it over and over, as torch converts a `PackedBatch` by itself, and as the parcel of
the loader. What arrives is compared with what was sent. Prints JSON: medians and quartiles of the CPU time of the thread, from
asking for a batch to having let go of the one before.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import patchpack as pp
from patchpack.paint.painter import paint
from patchpack.stream.parcel import Parcel, unwrap, wrap

BATCHES, WARM_UP = 60, 10


class Sent(Dataset[Any]):
    """One painted batch, again and again."""

    def __init__(self, batch: pp.PackedBatch, *, as_parcel: bool) -> None:
        self.batch, self.as_parcel = batch, as_parcel

    def __len__(self) -> int:
        return BATCHES + WARM_UP

    def __getitem__(self, i: int) -> Any:
        if not self.as_parcel:
            return self.batch
        parcel, inside = wrap(self.batch)
        inside.patches[...] = self.batch.patches
        return parcel


def receive(batch: pp.PackedBatch, *, as_parcel: bool) -> dict[str, Any]:
    """Milliseconds per batch, and the file descriptors that a batch holds while it is kept."""
    milliseconds = []
    loader = arriving(batch, as_parcel=as_parcel)
    arrived = None
    for _ in range(BATCHES + WARM_UP):
        time.sleep(0.03)  # the next batch is there: waiting for it is not what is measured
        start = time.thread_time()
        arrived = next(loader)  # and the one before is freed
        milliseconds.append(1e3 * (time.thread_time() - start))
    del arrived
    before = len(os.listdir("/proc/self/fd"))
    kept = list(arriving(batch, as_parcel=as_parcel))
    files = len(os.listdir("/proc/self/fd")) - before
    for arrived in kept:
        assert np.array_equal(arrived.patches.numpy(), batch.patches)
        assert arrived.keys == batch.keys
    low, median, high = statistics.quantiles(milliseconds[WARM_UP:], n=4)
    return {"ms": round(median, 2), "quartiles": [round(low, 2), round(high, 2)], "files per batch": round(files / len(kept))}


def arriving(batch: pp.PackedBatch, *, as_parcel: bool) -> Iterator[pp.PackedBatch]:
    """What a worker sends, opened."""
    for sent in DataLoader(Sent(batch, as_parcel=as_parcel), batch_size=None, num_workers=1):
        yield unwrap(sent) if isinstance(sent, Parcel) else sent


def main() -> None:
    """Paint one batch and send it both ways."""
    recipe = pp.recipes.navit(seq_len=1024, rows=8)
    planner = pp.Planner(pp.samples.shards("train"), recipe)
    batch = paint(next(iter(planner)), recipe, planner.source.reader)
    results = {name: receive(batch, as_parcel=name == "parcel") for name in ("ten tensors", "parcel")}
    answer = {
        "batch": f"{list(batch.patches.shape)} uint8",
        **results,
        "ratio": round(results["ten tensors"]["ms"] / results["parcel"]["ms"], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
