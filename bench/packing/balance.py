"""How long do ranks wait for each other when rows are dealt in the order of packing, sorted by window, or balanced?

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m bench.packing.balance [--windows 4] [--seq-len 16384]

Rows are packed offline with best-fit in arrival order, and then dealt into steps of 8 and of 64 ranks. There are two costs of a
row: Σn² (attention alone), and the whole cost of a block at width 768. The output is JSON. For each cost it has these figures:

* the imbalance: the mean over steps of 1 − mean/max over ranks;
* the share of all time that ranks wait: 1 − Σmean/Σmax;
* the largest number of steps by which a row comes early or late;
* the rows per second, the best of several runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from bench import lists
from patchpack.plan.packing import Packing, pack_lengths
from patchpack.plan.packing.balance import AttentionCost, Costs, balance, imbalance, row_costs

WINDOW, RANKS, REPEATS = 64, (8, 64), 5
Steps = npt.NDArray[np.int64]


def rows_of(name: str, seq_len: int, steps: int, num_ranks: int) -> tuple[Packing, npt.NDArray[np.int64]]:
    """Return packed rows for `steps` steps, and the lengths of the items in them."""
    mean = lists.make(name, 4000, seq_len, seed=1).mean()
    lengths = lists.make(name, int(steps * num_ranks * seq_len / mean), seq_len)
    return pack_lengths(lengths, seq_len=seq_len, method="best_fit"), lengths


def by_window(costs: Costs, num_ranks: int) -> Steps:
    """Sort the rows of each window by cost and cut them into steps. `balance` is compared with this way."""
    window = np.arange(len(costs)) // (WINDOW * num_ranks)
    return np.lexsort((costs, window)).reshape(-1, num_ranks)


def quality(steps: Steps, costs: Costs) -> dict[str, float]:
    """Return the mean imbalance over steps, and the share of time that ranks wait."""
    load = np.asarray(costs, dtype=np.float64)[steps]
    return {
        "imbalance": round(imbalance(steps, costs), 4),
        "share of time": round(float(1 - load.mean(axis=1).sum() / load.max(axis=1).sum()), 4),
    }


def measure(name: str, seq_len: int, windows: int, num_ranks: int) -> dict[str, Any]:
    """Measure one list on one number of ranks. Steps with idle ranks are left out everywhere."""
    packing, lengths = rows_of(name, seq_len, windows * WINDOW, num_ranks)
    whole = packing.num_rows // num_ranks
    answer: dict[str, Any] = {"rows": packing.num_rows, "steps": whole}
    answer["fill"] = round(float(lengths.sum() / (packing.num_rows * seq_len)), 5)
    for cost_name, cost in (("squares", AttentionCost(0)), ("width 768", AttentionCost(768))):
        costs = row_costs(packing, lengths, cost=cost)
        rates = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            steps = balance(packing, lengths, num_ranks=num_ranks, window=WINDOW, cost=cost)
            rates.append(packing.num_rows / (time.perf_counter() - start))
        assert sorted(steps[steps >= 0].tolist()) == list(range(packing.num_rows))
        moved = (np.arange(len(steps))[:, None] - steps // num_ranks)[steps >= 0]
        arrival = np.arange(whole * num_ranks).reshape(-1, num_ranks)
        answer[cost_name] = {
            "in arrival order": quality(arrival, costs),
            "sorted windows": quality(by_window(costs[: whole * num_ranks], num_ranks), costs),
            "balanced": quality(steps[:whole], costs),
            "steps early, late": [int(-moved.min()), int(moved.max())],
            "rows per second, best": round(max(rates)),
        }
    return answer


def main() -> None:
    """Measure all lists on all numbers of ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=16384)
    args = parser.parse_args()
    balance([[1]], num_ranks=1)  # compiles
    answer = {
        "window": WINDOW,
        "seq_len": args.seq_len,
        "lists": {name: {f"{n} ranks": measure(name, args.seq_len, args.windows, n) for n in RANKS} for name in lists.NAMES},
        "numpy": np.__version__,
        "numba": numba.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
