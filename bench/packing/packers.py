"""How full do the packers pack, and how fast, beside installable peers and the published algorithms, in one run?

    python -m bench.packing.packers [--quick] [--json PATH]

Everything runs on one thread (the script restarts itself with one). Items/s count the CPU time of packing alone, the best of
several runs after a warm-up. The lists, tensors or tokens that a peer needs are made before. A peer packs as many items as it
can in a fraction of a second, because many peers are quadratic and would be slower with more items. Patchpack packs 10 million
items. Fills are compared on the peer's items. Every result is read back. The script counts items that were lost, items that
were packed twice, and rows over seq_len. Peers are optional:

    pip install grain binpacking prtpy trl && pip install --no-deps vit-pytorch

vit-pytorch is installed without dependencies, because it would bring a torchvision that may fail to import, and then trl fails,
too. The output is Markdown tables.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bench import lists, threads
from bench.packing import online
from bench.packing.peers import Packer, Prepare, Rows, find, ours
from bench.packing.tables import faults, show
from patchpack.plan.packing import Lookahead, learn_prices, pack_histogram, pack_lengths, pack_stream, pack_tight

SEQ_LEN, SEQ_LENS = 4096, (256, 1024, 4096, 16384)
MEASURED = "coco"  # list on which memory is measured; learn_prices finds prices for it
ROUNDS, NEAR = 4, 1.0  # runs of ours after the warm-up; points of fill within which a peer is compared
METHODS: tuple[Any, ...] = ("spread", "best_fit_decreasing", "first_fit")  # tried with a cap
HISTOGRAMS = {"wikipedia_512": 512, "squad11_384": 384}
Record = dict[str, Any]

# ------------------------------------------------------------------------------------------------------------ measuring


def audit(rows: Rows, lengths: Any, seq_len: int) -> Record:
    """Return the fill of the rows in %, and the faults: items that were lost or repeated, and rows over seq_len."""
    starts = np.concatenate([[0], rows.ends[:-1]])
    tokens = np.concatenate([[0], np.cumsum(lengths[rows.items])])
    tokens = tokens[rows.ends] - tokens[starts]
    times = np.bincount(rows.items, minlength=len(lengths))
    return {
        "rows": int((rows.ends > starts).sum()),
        "fill": 100 * float(tokens.sum()) / seq_len / max(1, int((rows.ends > starts).sum())),
        "lost": int((times == 0).sum()),
        "repeated": int((times > 1).sum()),
        "over": int((tokens > seq_len).sum()),
    }


def cpu(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of a function on all threads, and its result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def waits(rows: Rows, n: int) -> int:
    """Return the largest number of items that were pushed after an item before its row closed.

    Rows that the end of the stream closed are left out.
    """
    assert rows.closed is not None
    closed = np.repeat(rows.closed, np.diff(rows.ends, prepend=0))
    return int((closed - rows.items)[closed < n].max(initial=0))


def measure(prepare: Prepare, lengths: Any, seq_len: int, fewest: int, budget: float) -> tuple[Record, Rows]:
    """Measure a packer.

    The number of items is doubled as long as a run takes less than `budget` seconds. A short run is repeated.
    """
    n = min(fewest, len(lengths))
    prepare(lengths[:64], seq_len)[0]()
    while True:
        run, read = prepare(lengths[:n], seq_len)
        seconds, result = cpu(run)
        if seconds >= budget or n == len(lengths):
            break
        n = min(len(lengths), 2 * n)
    for _ in range(3):  # a first run may be several times as slow: memory is new, and the garbage collector runs
        if budget and seconds > 4 * budget:
            break
        seconds = min(seconds, cpu(run)[0])
    rows = read(result)
    return {"items": n, "items/s": n / max(seconds, 1e-9), **audit(rows, lengths[:n], seq_len)}, rows


def stream(options: Lookahead) -> Packer:
    """Return `pack_stream` as a packer that can be sent to another process."""

    def prepare(lengths: Any, seq_len: int) -> Any:
        return lambda: pack_stream(lengths, seq_len=seq_len, packer=options), lambda made: Rows(made.items, made.offsets[1:])

    return Packer(f"Lookahead({options.waiting})" + (" with prices" if options.prices else ""), True, prepare)


def spread(lengths: Any, seq_len: int) -> Any:
    """Return the run of `pack_lengths` with its default method, and the reader of its result."""
    return lambda: pack_lengths(lengths, seq_len=seq_len), lambda made: Rows(made.items, made.offsets[1:])


def _grown(name: str, make: tuple[str, int, int], sender: Any) -> None:
    """Pack in a process of its own, and send by how many MiB its peak resident set exceeded the resident set before."""
    listed, n, seq_len = make
    lengths = lists.make(listed, n, seq_len)
    if name == "spread":
        prepare = spread
    elif name.startswith("Lookahead"):
        prepare = stream(Lookahead(64, None, _prices(listed, seq_len) if "prices" in name else None)).prepare
    else:
        prepare = next(packer.prepare for packer in [*ours(), *find(name)[0]] if packer.name == name)
    prepare(lengths[:64], seq_len)[0]()  # compiles, imports
    run, _ = prepare(lengths, seq_len)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _resident("VmRSS")
    kept = run()
    sender.send((_resident("VmHWM") - before) / 1024)
    del kept


def _resident(field: str) -> int:
    """Return a field of Linux's status file of this process, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def grown(name: str, listed: str, n: int, seq_len: int) -> float:
    """Return the peak memory of packing in MiB, with the result and without the input. This works on Linux only."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_grown, args=(name, (listed, n, seq_len), sender))
    child.start()
    sender.close()
    try:
        return float(receiver.recv())
    except EOFError as error:
        raise RuntimeError(f"{name} did not pack {n} items of {listed} in a process of its own: its error is above") from error
    finally:
        child.join()


def _prices(listed: str, seq_len: int) -> Any:
    return learn_prices(lists.make(listed, online.SAMPLE, seq_len, 1), seq_len=seq_len)


# -------------------------------------------------------------------------------------------------------- the questions


def offline(names: Sequence[str], seq_lens: Sequence[int], items: int, peers: Sequence[Packer], budget: float) -> list[Record]:
    """Measure the default method on every list and row length, and how many times as fast as each peer it is."""
    answers = []
    for name in names:
        for seq_len in seq_lens:
            lengths = lists.make(name, items, seq_len)
            run, read = spread(lengths, seq_len)
            run()
            seconds = min(cpu(run)[0] for _ in range(ROUNDS // 2))
            compared = []
            for peer in peers:
                theirs, _ = measure(peer.prepare, lengths, seq_len, peer.fewest, budget)
                same = lengths[: theirs["items"]]
                best = 100 * same.sum() / seq_len / pack_lengths(same, seq_len=seq_len, method="best_fit_decreasing").num_rows
                mine = 100 * same.sum() / seq_len / pack_lengths(same, seq_len=seq_len).num_rows
                near = theirs["fill"] >= best - NEAR
                compared.append({"packer": peer.name, **theirs, "fill of ours": mine, "within a point": bool(near)})
            seconds = min(seconds, *(cpu(run)[0] for _ in range(ROUNDS - ROUNDS // 2)))  # peers between the rounds
            for theirs in compared:
                theirs["times as fast"] = items / seconds / theirs["items/s"]
            decreasing = pack_lengths(lengths, seq_len=seq_len, method="best_fit_decreasing").num_rows
            answer = {"list": name, "seq_len": seq_len, "items": items, "items/s": items / seconds}
            answers.append({**answer, **audit(read(run()), lengths, seq_len), "rows of bfd": decreasing, "peers": compared})
            assert answers[-1]["rows"] <= decreasing
    return answers


def capped(names: Sequence[str], seq_len: int, items: int) -> list[Record]:
    """Return the reached share of the bound ``max(sum / seq_len, n / max_images)`` in %.

    `max_images` is 1.04 times the mean number of images per row.
    """
    answers = []
    for name in names:
        lengths = lists.make(name, items, seq_len)
        cap = math.ceil(1.04 * items * seq_len / lengths.sum())
        bound = max(lengths.sum() / seq_len, items / cap)
        answer: Record = {"list": name, "seq_len": seq_len, "items": items, "max_images": cap}
        packings = {m: pack_lengths(lengths, seq_len=seq_len, max_images=cap, method=m) for m in METHODS}
        options = Lookahead(256, None, _prices(name, seq_len))
        packings["lookahead"] = pack_stream(lengths, seq_len=seq_len, max_images=cap, packer=options)
        for method, packing in packings.items():
            found = audit(Rows(packing.items, packing.offsets[1:]), lengths, seq_len)
            assert faults(found) == "–", faults(found)
            assert np.diff(packing.offsets).max() <= cap
            answer[method] = 100 * bound / packing.num_rows
        answers.append(answer)
    return answers


def arriving(names: Sequence[str], seq_len: int, items: int, peers: Sequence[Packer], budget: float) -> list[Record]:
    """Measure packers of items as they arrive, each on as many items as it can pack in the time.

    The fill of `Lookahead` on the same items stands beside each.
    """
    answers = []
    for name in names:
        lengths, prices = lists.make(name, items, seq_len), _prices(name, seq_len)
        best = Lookahead(64, None, prices)
        options = [Lookahead(64)] + ([best] if prices else [])
        for option in options:
            packer = stream(option)
            found, rows = measure(packer.prepare, lengths, seq_len, items, 0)
            packing = pack_stream(lengths, seq_len=seq_len, packer=option)
            assert np.array_equal(packing.items, rows.items)
            found |= {"longest wait": online.longest_wait(packing, option), "pushed items/s": online.pushed(lengths, option)}
            answers.append({"list": name, "seq_len": seq_len, "packer": packer.name, **found})
        for packer in (*peers, *ours()):
            found, rows = measure(packer.prepare, lengths, seq_len, max(8000, packer.fewest), budget)
            same = lengths[: found["items"]]
            mine = 100 * same.sum() / seq_len / pack_stream(same, seq_len=seq_len, packer=best).num_rows
            answers.append(
                {
                    "list": name,
                    "seq_len": seq_len,
                    "packer": packer.name,
                    **found,
                    "longest wait": waits(rows, len(same)),
                    "fill of ours": mine,
                }
            )
    return answers


def published(name: str, counts: Any, seq_len: int, *, slow: bool, seconds: float) -> Record:
    """Return efficiency in % and seconds of the algorithms of Krell et al. and of patchpack, on a histogram of lengths."""
    tokens, lengths = int(counts @ np.arange(len(counts))), np.repeat(np.arange(len(counts)), counts)
    answer: Record = {"histogram": name, "seq_len": seq_len, "items": len(lengths)}
    methods: tuple[Any, ...] = ("spfhp", "lpfhp", "nnlshp", "spread")
    for method in methods:
        for depth in (None, 3):
            if method == "nnlshp" and (depth is None or not slow):
                continue  # defined only with a depth of 3
            took, patterns = cpu(partial(pack_histogram, counts, seq_len=seq_len, max_images=depth, method=method))
            parts = np.repeat(patterns.rows, np.diff(patterns.offsets)) * patterns.repeats
            assert np.array_equal(np.bincount(patterns.lengths, weights=parts, minlength=len(counts)), counts)
            answer[method + (f", depth {depth}" if depth else "")] = [100 * tokens / seq_len / patterns.num_rows, took]
    took, tight = cpu(lambda: pack_tight(lengths, seq_len=seq_len, gap=0, time_limit=seconds))
    found = audit(Rows(tight.packing.items, tight.packing.offsets[1:]), lengths, seq_len)
    assert faults(found) == "–", faults(found)
    return {**answer, "pack_tight": [found["fill"], took], "at most": 100 * tokens / seq_len / tight.lower_bound}


# -------------------------------------------------------------------------------------------------------------- the run


def versions() -> Record:
    """Return the machine, the packages and the day."""
    found = {}
    for name in (
        "numpy",
        "numba",
        "grain",
        "binpacking",
        "prtpy",
        "trl",
        "datasets",
        "vit-pytorch",
        "torch",
        "scipy",
        "highspy",
    ):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    processor = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    limits = {name: os.environ.get(name) for name in threads.THREADS}
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return {"date": day, "python": platform.python_version(), "cpu": processor, "cpus": os.cpu_count(), **limits, **found}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Answer every question on every list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few items: does it run?")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    threads.limit_to_one()
    start, quick = time.monotonic(), options.quick
    peers, missing = find()
    answer: Record = {**versions(), "missing": missing}
    print(*(f"{key}: {value}" for key, value in answer.items()), sep="\n")
    budget = 0.02 if quick else 0.2
    names, seq_lens = (("coco", "lognormal"), (SEQ_LEN,)) if quick else (lists.NAMES, SEQ_LENS)
    whole = [peer for peer in peers if not peer.name.startswith("grain first-fit")]  # slow, never fuller than its best-fit
    answer["offline"] = offline(names, seq_lens, 100_000 if quick else 10_000_000, whole, budget)
    answer["capped"] = capped(names, SEQ_LEN, 20_000 if quick else 300_000)
    arrivals = [peer for peer in peers if peer.online]
    answer["online"] = arriving(names, SEQ_LEN, 20_000 if quick else online.ITEMS, arrivals, budget)
    answer["published"] = []
    for name, seq_len in HISTOGRAMS.items():
        counts = lists.histogram(name) // (100 if quick else 1)
        answer["published"].append(published(name, counts, seq_len, slow=not quick, seconds=2 if quick else 20))
    for row in (row for row in answer["offline"] if row["seq_len"] == SEQ_LEN and row["list"] == MEASURED):
        row["MiB"] = grown("spread", MEASURED, row["items"], SEQ_LEN)
    for row in (row for row in answer["online"] if row["list"] == MEASURED):
        row["MiB"] = grown(row["packer"], MEASURED, row["items"], SEQ_LEN)
    answer["minutes"] = {"elapsed": (time.monotonic() - start) / 60, "cpu": sum(os.times()[:4]) / 60}
    if options.json:
        options.json.write_text(json.dumps(answer, indent=1) + "\n")
    show(answer)
    print(f"\n{answer['minutes']['elapsed']:.1f} minutes, {answer['minutes']['cpu']:.1f} of CPU")


if __name__ == "__main__":
    main()
