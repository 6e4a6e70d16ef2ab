"""How near to the bound does near-optimal packing come, and how long does it take?

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m bench.packing.tight [--items 100000] [--seed 0] [--cap 1.04] [--seconds 60]

Every list of `bench.lists` is packed into rows of 256 to 16384 tokens, and with best-fit-decreasing in the same run.
`--cap 1.04` also limits the items per row to 1.04 times their mean number. Kernels are compiled before. The output is JSON with
one line per packing. Fill and gap are in per cent. The gap is the distance to the proven bound. The simple bound, without the
linear program, stands beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from importlib import metadata
from typing import Any

import numpy as np

from bench import lists
from patchpack.plan.packing import lower_bound, pack_lengths, pack_tight

SEQ_LENS = (256, 1024, 4096, 16384)


def measure(name: str, seq_len: int, n: int, seed: int, cap: float | None, seconds: float) -> dict[str, Any]:
    """Measure one list, packed by both methods."""
    lengths = lists.make(name, n, seq_len, seed)
    tokens = int(lengths.sum())
    most = None if cap is None else max(1, math.ceil(cap * n * seq_len / tokens))
    start = time.perf_counter()
    simple = pack_lengths(np.sort(lengths)[::-1], seq_len=seq_len, max_images=most, method="best_fit").num_rows
    middle = time.perf_counter()
    result = pack_tight(lengths, seq_len=seq_len, max_images=most, time_limit=seconds, seed=seed)
    took = time.perf_counter() - middle
    assert np.array_equal(np.sort(result.packing.items), np.arange(n))
    assert np.add.reduceat(lengths[result.packing.items], result.packing.offsets[:-1]).max() <= seq_len
    assert most is None or np.diff(result.packing.offsets).max() <= most
    rows = result.packing.num_rows
    return {
        "list": name, "seq_len": seq_len, "max_images": most, "rows": rows, "bound": result.lower_bound,
        "simple_bound": lower_bound(lengths, seq_len, most), "bfd_rows": simple, "gap": round(100 * result.gap, 4),
        "fill": round(100 * tokens / (rows * seq_len), 3), "bfd_fill": round(100 * tokens / (simple * seq_len), 3),
        "seconds": round(took, 2), "bfd_seconds": round(middle - start, 2), "finished": result.finished,
    }  # fmt: skip


def main() -> None:
    """Measure every list and row length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cap", type=float)
    parser.add_argument("--lists", nargs="+", default=lists.NAMES)
    parser.add_argument("--seq-lens", nargs="+", type=int, default=SEQ_LENS)
    options = parser.parse_args()
    pack_tight([3] * 60 + [4] * 30, seq_len=10, max_images=2, gap=0)
    pack_tight([9] * 54 + [15] * 15 + [20] * 24 + [22] * 57, seq_len=49)
    pack_tight([9] * 54 + [15] * 15 + [20] * 24 + [22] * 57, seq_len=49, max_images=3)
    versions = {"python": platform.python_version(), "numpy": np.__version__, "highspy": metadata.version("highspy")}
    print(json.dumps({**versions, "items": options.items, "seed": options.seed}))
    for name in options.lists:
        for seq_len in options.seq_lens:
            result = measure(name, seq_len, options.items, options.seed, options.cap, options.seconds)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
