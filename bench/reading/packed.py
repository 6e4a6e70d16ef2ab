"""What do packed shards, which are painted once, cost to make, to read back and to store?

    OMP_NUM_THREADS=1 python -m bench.reading.packed [SHARD ...] [--rounds 5]

There are three recipes: half of the patches dropped, a few hundred uint8 patches, and thousands of float32 patches. Packed
shards of one epoch are written to a temporary folder and read back batch by batch from the page cache. In every round the
recipes take turns. The output is JSON: medians and quartiles of images per second of CPU time of the single thread, and how
many times as fast reading is as painting in the same round. Without shards, the photographs that PATCHPACK_TEST_DATA names are
used, or else the package's samples.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from typing import Any

from PIL import Image

import patchpack as pp
from bench.pictures import default_shards

RECIPES = {
    "navit()": pp.recipes.navit(),
    "siglip2_naflex()": pp.recipes.siglip2_naflex(),
    "pix2struct()": pp.recipes.pix2struct(),
}


def measure(index: pp.Index, recipe: pp.Recipe) -> dict[str, float]:
    """Measure one round of one recipe."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.thread_time()
        packed = pp.PackedShards.write(index, recipe, folder)
        painted = time.thread_time() - start
        start = time.thread_time()
        images = sum(int(batch.num_images.sum()) for batch in packed)
        read = time.thread_time() - start
    return {
        "painted, images/s": images / painted,
        "read back, images/s": images / read,
        "read back, times as fast": painted / read,
        "on disk, kB per image": packed.nbytes / images / 1000,
    }


def summary(values: list[float]) -> dict[str, Any]:
    """Return the median and the quartiles."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": round(median, 1), "quartiles": [round(low, 1), round(high, 1)]}


def main(argv: list[str] | None = None) -> None:
    """Build the index, write packed shards, and read them back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*", metavar="SHARD")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    index = pp.Index.build(options.shards or default_shards())
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RECIPES}
    for number in range(options.rounds + 1):
        for name, recipe in RECIPES.items():
            taken = measure(index, recipe)
            if number:  # the first round compiles
                found[name].append(taken)
    answer: dict[str, Any] = {
        "python": platform.python_version(), "pillow": Image.__version__, "cpus": os.cpu_count(), "rounds": options.rounds,
        "images": len(index), "bytes per image": round(sum(s.fingerprint.num_bytes for s in index.shards) / len(index)),
    }  # fmt: skip
    for name, rounds in found.items():
        answer[name] = {figure: summary([taken[figure] for taken in rounds]) for figure in rounds[0]}
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
