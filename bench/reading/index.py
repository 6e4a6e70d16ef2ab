"""What does an index cost: to scan a sample, to store a sample, to open the file, and to read a batch of headers?

    OMP_NUM_THREADS=1 python -m bench.reading.index [--samples 300] [--rounds 9] [--lines 1000000]

Scanning is measured on shards of jpg, cls and json files as in `bench.reading.tar`, and on the photographs in the folder that
PATCHPACK_TEST_DATA names, or else on the package's samples. "places" reads only names, offsets and lengths. "events" reads what
a planner without an index needs. "columns" reads what an index stores. webdataset's iterators read every byte. Their time shows
the speed of the machine.

Storing, opening and reading are measured on an index of `--lines` samples with ImageNet's names, sizes and classes, made
without shards. The output is JSON: medians and quartiles of the CPU time of the thread. The ways take turns in every round.
Files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import patchpack as pp
from bench.pictures import default_shards
from bench.reading import tar
from patchpack.stream.index.build import assemble
from patchpack.stream.index.fingerprint import Fingerprint, changed
from patchpack.stream.index.scan import ShardColumns, ShardTask, scan_columns
from patchpack.stream.sample.parsing import parse_members
from patchpack.stream.tar.shards import scan_shard

ASKED = parse_members("jpg", "cls")
PER_SHARD = 10_000


def summary(values: list[float]) -> dict[str, Any]:
    """Return the median and the quartiles."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": round(median, 3), "quartiles": [round(low, 3), round(high, 3)], "least": round(min(values), 3)}


def seconds(work: Callable[[], Any]) -> float:
    """Return the CPU time of this thread for a function."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def scanning(shards: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    """Return the microseconds per sample of each way of scanning, for each kind of shard."""
    ways: dict[str, Callable[[str], Any]] = {
        "places": lambda path: all(True for _ in tar.places(Path(path))),
        "events": lambda path: all(True for _ in scan_shard(path, 0, "label", ASKED)),
        "columns": lambda path: scan_columns(ShardTask(path, "label", ASKED)),
        "webdataset": lambda path: all(True for _ in tar.by_webdataset(Path(path))),
    }
    taken: dict[str, dict[str, list[float]]] = {kind: {way: [] for way in ways} for kind in shards}
    counts = {
        kind: sum(len(scan_columns(ShardTask(p, "label", ASKED)).columns["kind"]) for p in paths)
        for kind, paths in shards.items()
    }
    for _ in range(rounds):
        for kind, paths in shards.items():
            for name, way in ways.items():
                took = seconds(lambda way=way, paths=paths: [way(path) for path in paths])
                taken[kind][name].append(1e6 * took / counts[kind])
    answer: dict[str, Any] = {}
    for kind, by_way in taken.items():
        answer[kind] = {"samples": counts[kind], **{f"{way}, us": summary(values) for way, values in by_way.items()}}
        for peer in ("places", "events", "webdataset"):
            ratios = [ours / theirs for ours, theirs in zip(by_way["columns"], by_way[peer], strict=True)]
            answer[kind][f"columns over {peer}"] = summary(ratios)
    return answer


def synthetic(lines: int, folder: Path) -> tuple[list[ShardTask], list[ShardColumns]]:
    """Return the columns of shards that were never written.

    They have ImageNet's names, 1000 classes, sizes around 400 x 500 pixels, and files around 110 kB.
    """
    rng = np.random.default_rng(0)
    tasks, parts = [], []
    for number in range(-(-lines // PER_SHARD)):
        n = min(PER_SHARD, lines - number * PER_SHARD)
        classes = rng.integers(0, 1000, n)
        stems = [
            b"n%08d_%d" % (1440764 + 13_000 * c, i)
            for c, i in zip(classes.tolist(), rng.integers(1, 99_999, n).tolist(), strict=True)
        ]
        lengths = rng.integers(20_000, 200_000, n).astype(np.uint64)
        texts = [b"%d" % c for c in classes.tolist()]
        columns = {
            "size": np.clip(rng.normal((405, 470), 100, (n, 2)), 40, 5000).astype(np.uint32),
            "key_hash": rng.integers(0, 1 << 63, n).astype(np.uint64),
            "kind": np.zeros(n, np.uint16),
            "offset": np.cumsum(lengths // np.uint64(512) + np.uint64(4)),
            "length": lengths,
            "stem.lengths": np.array([len(stem) for stem in stems], np.uint64),
            "stem.bytes": np.frombuffer(b"".join(stems), np.uint8),
            "label0.lengths": np.array([len(text) for text in texts], np.uint64),
            "label0.bytes": np.frombuffer(b"".join(texts), np.uint8),
            "label0.offset": np.zeros(n, np.uint64),
            "label0.length": np.zeros(n, np.uint64),
        }
        name = f"imagenet-train-{number:06}.tar"
        tasks.append(ShardTask(str(folder / name), name, ASKED))
        parts.append(ShardColumns(Fingerprint(1 << 40, 0, "0" * 32), "", [(".jpg", "JPEG")], columns, [], []))
    return tasks, parts


def keeping(lines: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return the size of an index with `lines` samples, and the times for opening it and for reading headers."""
    tasks, parts = synthetic(lines, folder)
    start = time.thread_time()
    head, columns = assemble(tasks, iter(parts))
    assembled = time.thread_time() - start
    del parts
    path = folder / "synthetic.index"
    saved = seconds(lambda: pp.Index(head, columns).save(path))
    size = path.stat().st_size
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        times.setdefault("open, ms", []).append(1e3 * seconds(lambda: pp.Index.open(path, verify=False)))
        index = pp.Index.open(path, verify=False)
        for n in (64, 300, 1000):
            asked = rng.integers(0, lines, n)
            times.setdefault(f"header of {n} lines anywhere, us", []).append(
                1e6 / n * seconds(lambda a=asked, i=index: i.headers(a))
            )
        asked = np.arange(300) + int(rng.integers(0, lines - 300))
        times.setdefault("header of 300 lines in a row, us", []).append(
            1e6 / 300 * seconds(lambda a=asked, i=index: i.headers(a))
        )
        times.setdefault("sizes, ms", []).append(1e3 * seconds(lambda i=index: i.sizes))
        times.setdefault("send to a worker, us", []).append(1e6 * seconds(lambda i=index: pickle.loads(pickle.dumps(i))))
    per_sample = {name: round(column.nbytes / lines, 2) for name, column in columns.items()}
    return {
        "lines": lines, "shards": len(tasks), "bytes": size, "bytes per sample": round(size / lines, 2),
        "of which": per_sample, "GB for 100 M": round(size / lines * 100e6 / 1e9, 2),
        "assemble, s": round(assembled, 3), "save, s": round(saved, 3),
        **{name: summary(values) for name, values in times.items()},
    }  # fmt: skip


def verifying(path: str, rounds: int) -> dict[str, Any]:
    """Return the microseconds to check that a shard has not changed, for an untouched shard and for a copied one."""
    known = scan_columns(ShardTask(path, "label", ASKED)).fingerprint
    copied = known._replace(version=0)
    untouched = [1e6 / 50 * seconds(lambda: [changed(path, known) for _ in range(50)]) for _ in range(rounds)]
    touched = [1e6 / 50 * seconds(lambda: [changed(path, copied) for _ in range(50)]) for _ in range(rounds)]
    return {"untouched, us": summary(untouched), "copied, us": summary(touched)}


def main(argv: list[str] | None = None) -> None:
    """Write the shards, check them and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--bytes", type=int, default=117_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lines", type=int, default=1_000_000)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = {kind: [str(path)] for kind, path in tar.write(folder, options.samples, options.bytes).items()}
        shards["photographs"] = default_shards()
        answer = {
            "python": platform.python_version(), "numpy": np.__version__, "cpus": os.cpu_count(), "rounds": options.rounds,
            "image bytes": options.bytes,
            "scanning": scanning(shards, options.rounds),
            "verifying a shard": verifying(shards["ustar"][0], options.rounds),
            "keeping": keeping(options.lines, options.rounds, folder),
        }  # fmt: skip
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
