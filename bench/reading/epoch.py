"""How long does planning a whole epoch take, in how much memory, how full are its rows, and what does shuffling cost?

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m bench.reading.epoch [--samples 1000000 10000000] [--rounds 3]

The output is JSON. Sizes come from `bench.lists`, with 1000 samples per shard. Grids are native at patch size 16. For `navit`
they follow NaViT's random resolutions and drop rates. The seconds cover order, draws, packing and steps on one thread. Each
number of samples is planned in its own process. `planning MB` is the peak memory of this process minus its memory before
planning. So sizes and keys are not counted (16 bytes per sample, mapped from disk in normal use).

Fill is in %, over all rows of a shuffled epoch of 1 M samples. Beside it stand the fill of `spread` on the same lengths and the
fill of `tight` on the first 100,000 lengths. Mixing is measured for several sizes of the blocks in which samples are permuted,
with batches of 8 rows. It has two figures: distinct shards per image of a batch (the last block size is a full shuffle), and
the mean distance in images by which packing moves an image.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np

from bench import lists
from patchpack import recipes
from patchpack.plan.packing import pack_lengths, pack_tight
from patchpack.plan.policies.resize import Native
from patchpack.plan.recipe import Recipe
from patchpack.plan.whole_epoch.epoch import EpochRows, plan_rows
from patchpack.plan.whole_epoch.samples import Sizes

SHARD, ROWS, BLOCKS = 1000, 8, (0, 100, 1000, 10_000, 100_000, 1_000_000)


def table(name: str, n: int) -> Sizes:
    """Return sizes and keys of n images."""
    rng = np.random.default_rng(0)
    wh = lists.sizes(name)
    sizes = np.empty((n, 2), dtype=np.int32)
    for start in range(0, n, 1 << 20):
        part = sizes[start : start + (1 << 20)]
        part[:] = wh[rng.integers(0, len(wh), len(part))][:, ::-1]
        if name != "coco":
            part[:] = np.maximum(1, part * np.exp(rng.normal(0, 0.05, part.shape)))
    keys = rng.integers(0, 1 << 64, n, dtype=np.uint64)
    return Sizes(sizes, keys, np.append(np.arange(0, n, SHARD), n))


def recipe(name: str, seq_len: int) -> Recipe:
    """Return NaViT's recipe, or a recipe with native grids."""
    if name == "navit":
        return recipes.navit(seq_len=seq_len, max_images=max(64, seq_len // 16), rows_per_batch=ROWS)
    return Recipe(resize=Native(seq_len), seq_len=seq_len, max_images=64, rows_per_batch=ROWS)


def fill(rows: EpochRows, seq_len: int) -> float:
    """Return the tokens of all rows in % of the rows' length."""
    return round(100 * float(rows.num_tokens.sum(dtype=np.int64)) / seq_len / (len(rows.offsets) - 1), 3)


def measure(name: str, n: int, rounds: int) -> dict[str, Any]:
    """Return the seconds and memory for one number of samples, in this process."""
    samples = table(name, n)
    plan_rows(recipe(name, 4096), table(name, 20_000))  # compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, rows = [], None
    for epoch in range(rounds):
        del rows
        start = time.thread_time()
        rows = plan_rows(recipe(name, 4096), samples, epoch=epoch, shuffle=10_000)
        seconds.append(time.thread_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"s": round(min(seconds), 2), "planning MB": round((peak - before) / 1024), "fill": fill(rows, 4096)}


def mixing(rows: EpochRows) -> dict[str, float]:
    """Return the two figures of mixing that the module's docstring explains."""
    edges = rows.offsets[::ROWS].tolist()
    lines = rows.order[rows.items]
    distinct = [len(np.unique(lines[a:b] // SHARD)) / (b - a) for a, b in pairwise(edges[:2001])]
    moved = np.abs(rows.items - np.arange(len(rows.items))).mean()
    return {"distinct shards per image": round(float(np.mean(distinct)), 3), "moved by packing": round(float(moved), 1)}


def main() -> None:
    """Measure everything, or only the part that a child process is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child[0], int(options.child[1]), options.rounds)))
        return
    results: dict[str, Any] = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "time": {},
        "fill": {},
        "blocks": {},
    }
    for name in ("navit", "imagenet", "coco"):
        for n in options.samples:
            command = [sys.executable, "-m", __spec__.name, "--rounds", str(options.rounds), "--child", name, str(n)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results["time"][f"{name} {n}"] = json.loads(done.stdout)
    for name in ("imagenet", "coco"):
        samples = table(name, 1_000_000)
        for seq_len in (4096, 16384):
            rows = plan_rows(recipe(name, seq_len), samples, epoch=1, shuffle=10_000)
            spread = pack_lengths(rows.num_tokens, seq_len=seq_len, max_images=64)
            found = {"planned": fill(rows, seq_len), "spread": _fill(rows.num_tokens, spread.num_rows, seq_len)}
            if seq_len == 4096:
                part = rows.num_tokens[:100_000]
                found["tight"] = _fill(part, pack_tight(part, seq_len=seq_len, max_images=64).packing.num_rows, seq_len)
            results["fill"][f"{name} {seq_len}"] = found
        for block in BLOCKS:
            rows = plan_rows(recipe(name, 4096), samples, epoch=1, shuffle=block)
            results["blocks"][f"{name} {block}"] = {"fill": fill(rows, 4096), **mixing(rows)}
    print(json.dumps(results, indent=1))


def _fill(lengths: Any, num_rows: int, seq_len: int) -> float:
    return round(100 * float(lengths.sum(dtype=np.int64)) / seq_len / num_rows, 3)


if __name__ == "__main__":
    main()
