"""How long does a table of paths take to its first batch, and what does a row cost beside the header of its file?

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python -m bench.reading.tables [--rows 100000]

Prints JSON. The table has a row for each of `--rows` paths, which are hard links to 200 PNG files of 64 to 160 pixels per side.
Each kind of table runs in a process of its own, after one batch of a small table has compiled the kernels:

* `open s`: seconds of CPU of `open_source`, which reads the table, types the labels and hashes paths and labels.
* `first batch s`: seconds from `load(..., shuffle=True)` to the first batch, in one process. Opening is included.
* `first batch CPU s`: seconds of CPU for the same.
* `scan us`: microseconds of CPU per row to scan all rows.
* `beside the header us`: microseconds of CPU per row without `scan_file`, which reads the header of the file.
* `B per row`: bytes of memory per row that the opened source keeps, by the growth of the process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import patchpack as pp
from patchpack.stream.sources import tables
from patchpack.types import Header, Size

KINDS = ("csv", "csv.gz", "jsonl", "parquet", "DataFrame")
RECIPE = pp.recipes.navit(seq_len=256, rows_per_batch=8)
IMAGES = 200


def write_files(folder: Path, rows: int) -> list[str]:
    """Write images and hard links to them; return the paths of the links."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(IMAGES):
        height, width = rng.integers(64, 160, 2)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
    names = []
    for row in range(rows):
        if row % 1000 == 0:
            (folder / f"{row // 1000:04d}").mkdir()
        names.append(f"{row // 1000:04d}/photograph_{row:07d}.png")
        os.link(folder / "images" / f"{row % IMAGES}.png", folder / names[-1])
    return names


def write_tables(folder: Path, names: list[str]) -> None:
    """Write every kind of table, with the columns ``file``, ``label`` and two that are not read."""
    import pandas

    frame = pandas.DataFrame({"file": names, "label": np.arange(len(names)) % 1000, "split": "train", "width": 128})
    frame.to_csv(folder / "t.csv", index=False, quoting=csv.QUOTE_MINIMAL)
    frame.to_csv(folder / "t.csv.gz", index=False)
    frame.to_json(folder / "t.jsonl", orient="records", lines=True)
    frame.to_parquet(folder / "t.parquet")
    frame.head(IMAGES).to_csv(folder / "small.csv", index=False)


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(folder: Path, kind: str) -> dict[str, float]:
    """Return the figures of one kind of table, in this process."""
    next(iter(pp.load(folder / "small.csv", RECIPE)))
    given: Any = folder / f"t.{kind}"
    if kind == "DataFrame":
        import pandas

        given = pandas.read_csv(folder / "t.csv")
    elif kind == "parquet":
        import pyarrow.parquet  # noqa: F401 - loading a package is not the price of a table

    before, begin = resident(), time.process_time()
    source = pp.open_source(given, root=folder)
    opening, kept = time.process_time() - begin, resident() - before
    rows, scans = source.num_parts or 0, []
    for read in (tables.scan_file, _no_header):
        tables.scan_file = read  # type: ignore[attr-defined]
        begin = time.process_time()
        assert sum(isinstance(event, Header) for event in source.scan()) == rows
        scans.append(time.process_time() - begin)
    tables.scan_file = _scan_file  # type: ignore[attr-defined]
    begin, cpu = time.perf_counter(), time.process_time()
    next(iter(pp.load(given, RECIPE, root=folder, shuffle=True)))
    first, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "open s": round(opening, 2),
        "first batch s": round(first, 2),
        "first batch CPU s": round(cpu, 2),
        "scan us": round(1e6 * scans[0] / rows, 1),
        "beside the header us": round(1e6 * scans[1] / rows, 1),
        "B per row": round(kept / rows),
    }


_scan_file = tables.scan_file


def _no_header(path: Path, key: str, shard: str, location: object, asked: object) -> Header:
    return Header(key, shard, path.name, Size(100, 100), location)


def main() -> None:
    """Write the tables, and measure each kind in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(Path(options.child[0]), options.child[1])))
        return
    results: dict[str, Any] = {"python": platform.python_version(), "rows": options.rows}
    with tempfile.TemporaryDirectory() as name:
        write_tables(Path(name), write_files(Path(name), options.rows))
        for kind in KINDS:
            command = [sys.executable, "-m", __spec__.name, "--child", name, kind]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[kind] = json.loads(done.stdout)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
