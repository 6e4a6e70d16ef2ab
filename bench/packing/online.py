"""How full does a bounded number of waiting items make the rows, how fast is packing, and how long does an item wait?

    NUMBA_NUM_THREADS=1 python -m bench.packing.online

The output is JSON. For each list of `bench.lists` it has:

* the fill in %, which includes the last rows at the end of the stream;
* the items/s of `pack_stream`, the best of three runs after a warm-up, on one thread;
* the longest wait, in items;
* these figures for 8 … 1024 waiting items;
* these figures without prices and, if `learn_prices` finds any, with prices (learned from another random sample of the list);
* first-fit over 16 open rows in the same run, as the reference;
* these figures with `max_images` at 1.04 × the mean number of images per row.
"""

from __future__ import annotations

import json
import platform
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import lists
from patchpack.plan.packing import FirstFit, Item, Lookahead, Packing, learn_prices, pack_stream

SEQ_LEN, ITEMS, SAMPLE = 4096, 200_000, 20_000
CURVE = (8, 16, 32, 48, 64, 128, 256, 512, 1024)


def longest_wait(packing: Packing, options: Lookahead, max_images: int | None = None) -> int:
    """Return the largest number of items that were pushed after an item before its row closed.

    Rows that the final flush closed are left out. A row closes at one of two pushes: the push that makes the oldest item too
    old, or the push after which as many items wait as `options` allows.
    """
    waiting, longest = options.limits(max_images)
    starts, n = packing.offsets[:-1], len(packing.items)
    oldest = np.minimum.accumulate(np.minimum.reduceat(packing.items, starts)[::-1])[::-1]
    closed = np.minimum(starts + waiting - 1, oldest + longest)
    waits = (np.repeat(closed, np.diff(packing.offsets)) - packing.items)[np.repeat(closed < n, np.diff(packing.offsets))]
    return int(waits.max(initial=0))


def measure(lengths: npt.NDArray[np.int64], options: Lookahead, max_images: int | None = None) -> dict[str, Any]:
    """Return fill, share of the bound ``max(sum / seq_len, n / max_images)``, speed and wait of one packer on one list."""
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        packing = pack_stream(lengths, seq_len=SEQ_LEN, max_images=max_images, packer=options)
        seconds.append(time.perf_counter() - start)
    bound = max(lengths.sum() / SEQ_LEN, len(lengths) / (max_images or len(lengths)))
    return {
        "fill": round(100 * lengths.sum() / SEQ_LEN / packing.num_rows, 4),
        "of bound": round(100 * bound / packing.num_rows, 4),
        "items/s": round(len(lengths) / min(seconds[1:])),
        "longest wait": longest_wait(packing, options, max_images),
    }


def first_fit(lengths: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the figures of NaViT's greedy first-fit, pushed item by item."""
    packer, rows, some = FirstFit()(SEQ_LEN, 1 << 20), 0, lengths[:20_000]
    start = time.perf_counter()
    for i, n in enumerate(some.tolist()):
        rows += len(packer.push(Item(i, n)))
    rows += len(packer.flush())
    rate = len(some) / (time.perf_counter() - start)
    return {"fill": round(100 * some.sum() / SEQ_LEN / rows, 4), "items/s": round(rate)}


def pushed(lengths: npt.NDArray[np.int64], options: Lookahead) -> int:
    """Return the items/s with one Python call of `push` for each item."""
    packer, items = options(SEQ_LEN, 1 << 20), [Item(i, n) for i, n in enumerate(lengths[:50_000].tolist())]
    fill_up, _ = options.limits(1 << 20)
    for item in items[:fill_up]:
        packer.push(item)
    start = time.perf_counter()
    for item in items[fill_up:]:
        packer.push(item)
    return round((len(items) - fill_up) / (time.perf_counter() - start))


def main() -> None:
    """Measure every list, without and with a limit of images per row."""
    results: dict[str, Any] = {"python": platform.python_version(), "seq_len": SEQ_LEN, "items": ITEMS}
    pack_stream([1], seq_len=SEQ_LEN)
    for name in lists.NAMES:
        lengths = lists.make(name, ITEMS, SEQ_LEN, 0)
        start = time.perf_counter()
        prices = learn_prices(lists.make(name, SAMPLE, SEQ_LEN, 1), seq_len=SEQ_LEN)
        learnt = time.perf_counter() - start
        cap = int(np.ceil(1.04 * len(lengths) * SEQ_LEN / lengths.sum()))
        results[name] = {
            "first fit, 16 open rows": first_fit(lengths),
            "items/s pushed one by one": pushed(lengths, Lookahead(64, None, prices)),
            "waiting": {n: measure(lengths, Lookahead(n)) for n in CURVE},
            f"256 waiting, max_images {cap}": measure(lengths, Lookahead(256, None, prices), cap),
        }
        if prices is not None:
            results[name]["waiting, with prices"] = {n: measure(lengths, Lookahead(n, None, prices)) for n in CURVE}
            results[name]["longest_wait, 64 waiting, with prices"] = {
                n: measure(lengths, Lookahead(64, n, prices)) for n in (64, 128, 256, 512, 1024, 4096)
            }
            results[name]["prices"] = {"seconds to learn": round(learnt, 2), "units": prices.units, "steps": prices.steps}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
