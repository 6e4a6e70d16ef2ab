"""What does it cost to read a sample of three members from a tar file?

    OMP_NUM_THREADS=1 python -m bench.reading.tar [--samples 200] [--bytes 117000] [--rounds 15]

Shards of jpg, cls and json files are written in two ways: as webdataset's own writer makes them (each member has a pax header
with its date), and as ustar. patchpack, webdataset's tar iterators and the standard library read each shard as a local file, as
a stream, and as a gzipped stream. A check ensures that all find the same bytes.

The output is JSON: medians and quartiles of the CPU time of the thread, in µs per sample. Files are in the page cache, and the
ways take turns in every round. "places" reads names, offsets and lengths without the bytes. "scan" also reads the size of the
image and makes the objects that the planner takes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from patchpack.stream.sample.parsing import parse_members
from patchpack.stream.sources.opening import open_source
from patchpack.stream.tar.byte_reader import SeekableReader, StreamReader
from patchpack.stream.tar.grouping import Grouper
from patchpack.stream.tar.members import Member, read_members
from patchpack.stream.tar.shards import BUFFER_BYTES

ASKED = parse_members("jpg", "cls")
Found = Iterator[dict[str, bytes]]


def samples(n: int, num_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield samples whose images have `num_bytes` bytes, with a label and a description."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(file, "JPEG", quality=75)
    for i in range(n):
        tail = rng.bytes(max(0, num_bytes - file.tell()))  # bytes after the end of the image
        name = f"n{i:08}"
        yield {
            "__key__": name,
            "jpg": file.getvalue() + tail,
            "cls": b"%d" % (i % 1000),
            "json": b'{"wnid": "%s"}' % name.encode(),
        }


def write(folder: Path, n: int, num_bytes: int) -> dict[str, Path]:
    """Write the shards and their gzipped copies. Return the paths."""
    paths = {"webdataset's": folder / "dated.tar", "ustar": folder / "ustar.tar"}
    with wds.TarWriter(str(paths["webdataset's"]), encoder=False) as writer:
        for sample in samples(n, num_bytes):
            writer.write(sample)
    with tarfile.open(paths["ustar"], "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples(n, num_bytes):
            for extension in ("jpg", "cls", "json"):
                info = tarfile.TarInfo(f"{sample['__key__']}.{extension}")
                info.size = len(sample[extension])
                tar.addfile(info, io.BytesIO(sample[extension]))
    for path in paths.values():
        path.with_suffix(".tar.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    return paths


def grouped(members: Iterator[Member], data: Callable[[Member], bytes | None]) -> Found:
    """Group the members of `read_members` into samples."""
    grouper = Grouper(ASKED)
    for member in members:
        whole = grouper.add(member)
        if whole is not None:
            yield {extension: data(m) or b"" for extension, m in whole.members.items()}
    last = grouper.close()
    assert last is not None
    yield {extension: data(m) or b"" for extension, m in last.members.items()}


def places(path: Path) -> Found:
    """Read with patchpack where the members lie."""
    with open(path, "rb", buffering=BUFFER_BYTES) as file:
        yield from grouped(read_members(SeekableReader(file)), lambda _: None)


def by_place(path: Path) -> Found:
    """Read with patchpack where the members lie, and then their bytes by offset, as a worker does."""
    with open(path, "rb", buffering=BUFFER_BYTES) as file:
        number = file.fileno()
        yield from grouped(read_members(SeekableReader(file)), lambda m: os.pread(number, m.where[1], m.where[0]))


def streamed(path: Path) -> Found:
    """Read with patchpack from a file that cannot seek."""
    with open(path, "rb") as file:
        yield from grouped(read_members(StreamReader(file), lambda *_: True), lambda m: m.data)


def scanned(path: Path) -> Found:
    """Scan with patchpack, as the planner does."""
    for _ in open_source(str(path), image="jpg").scan():
        yield {}


def by_webdataset(path: Path) -> Found:
    """Read with webdataset's iterators. Fields that webdataset adds are left out."""
    with open(path, "rb") as file:
        for sample in group_by_keys(tar_file_expander(iter([{"url": str(path), "stream": file}]))):
            yield {name: value for name, value in sample.items() if not name.startswith("__")}


def by_tarfile(path: Path, mode: str) -> Found:
    """Read with the standard library, three members per sample."""
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        sample: dict[str, bytes] = {}
        for info in tar:
            sample[info.name.partition(".")[2]] = tar.extractfile(info).read()
            tar.members = []
            if len(sample) == 3:
                yield sample
                sample = {}


WAYS: dict[str, dict[str, Callable[[Path], Found]]] = {
    "file": {
        "patchpack places": places, "patchpack scan": scanned, "patchpack": by_place, "webdataset": by_webdataset,
        "tarfile": partial(by_tarfile, mode="r:"),
    },
    "stream": {"patchpack": streamed, "webdataset": by_webdataset, "tarfile": partial(by_tarfile, mode="r|")},
    "gzip": {"patchpack": streamed, "webdataset": by_webdataset, "tarfile": partial(by_tarfile, mode="r|gz")},
}  # fmt: skip


def check(paths: dict[str, Path], n: int, num_bytes: int) -> None:
    """Assert that every way that reads bytes finds the same bytes."""
    expected = [{k: v for k, v in sample.items() if k != "__key__"} for sample in samples(n, num_bytes)]
    for path in paths.values():
        for how, ways in WAYS.items():
            for name, way in ways.items():
                found = list(way(path.with_suffix(".tar.gz") if how == "gzip" else path))
                assert len(found) == n
                assert name in ("patchpack places", "patchpack scan") or found == expected, (how, name)


def main() -> None:
    """Write the shards, check the ways and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=117_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    times: dict[tuple[str, str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), options.samples, options.bytes)
        check(paths, options.samples, options.bytes)
        for _ in range(options.rounds):
            for kind, path in paths.items():
                for how, ways in WAYS.items():
                    for name, way in ways.items():
                        start = time.thread_time()
                        for _ in way(path.with_suffix(".tar.gz") if how == "gzip" else path):
                            pass
                        took = 1e6 * (time.thread_time() - start) / options.samples
                        times.setdefault((kind, how, name), []).append(took)
    answer: dict[str, Any] = {
        "python": platform.python_version(), "webdataset": metadata.version("webdataset"), "cpus": os.cpu_count(),
        "samples": options.samples, "image bytes": options.bytes, "rounds": options.rounds,
    }  # fmt: skip
    for (kind, how, name), taken in times.items():
        low, median, high = statistics.quantiles(taken, n=4)
        row = {"us": round(median, 1), "quartiles": [round(low, 1), round(high, 1)]}
        answer.setdefault(kind, {}).setdefault(how, {})[name] = row
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
