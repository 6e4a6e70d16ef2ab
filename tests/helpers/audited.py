"""A program that runs every fault while Python's audit hook reports what is opened and unpickled.

It prints the results as JSON.

``python audited.py FOLDER`` writes the shards there before the auditing begins. Workers report through the same descriptor.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import patchpack as pp
from helpers.accounts import bundles, differences, load, name_of, run
from helpers.faults import FAULTS
from helpers.painted import Maker

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def peak() -> int:
    """MB of this process and of the largest one it has waited for."""
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024


def main(folder: Path) -> None:
    shards: dict[tuple[str, bool], str] = {}
    for fault in FAULTS.values():
        for zipped in (False, True)[: 1 if fault.compressed else 2]:
            shards[fault.name, zipped] = fault.write_to(folder, zipped)
    warm = folder / "warm.tar"
    warm.write_bytes(Maker(0).whole())
    for num_workers in (0, 2):  # kernels, modules, the first processes
        assert len(load([str(warm)], num_workers).delivered) == 3
        assert len(load(pp.Index.build(str(warm)), num_workers).delivered) == 3
    before, holds = peak(), {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    told = os.open(folder.parent / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def listen(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (isinstance(flags, int) and flags & WRITING) or (isinstance(mode, str) and set(mode) & set("wax+")):
                os.write(told, f"open {path}\n".encode(errors="replace"))
        elif event in (
            "pickle.find_class",
            "os.system",
            "subprocess.Popen",
            "os.mkdir",
            "os.remove",
            "os.rename",
            "os.symlink",
        ):
            os.write(told, f"{event} {' '.join(map(str, arguments))}\n".encode(errors="replace"))

    sys.addaudithook(listen)
    times: dict[str, float] = {}
    wrong: list[str] = []
    os.write(told, b"alone\n")
    for fault in FAULTS.values():
        for way in ("as it goes", "as a stream", "indexed")[: 1 if fault.compressed else 3]:
            path = shards[fault.name, way == "as a stream"]
            begun = time.perf_counter()
            found = run([path], way, 0, fault.target)
            times[f"{fault.name}, {way}"] = time.perf_counter() - begun
            wrong += differences(fault, name_of(path), found)
    os.write(told, b"together\n")
    for way in ("as it goes", "as a stream", "indexed"):
        zipped = way == "as a stream"
        for target, faults in bundles(zipped, compressed=way == "as it goes").items():
            paths = [shards[fault.name, zipped] for fault in faults]
            begun = time.perf_counter()
            found = run(paths, way, 2, target)
            times[f"{len(faults)} with {target}, 2 workers, {way}"] = time.perf_counter() - begun
            for fault, path in zip(faults, paths, strict=True):
                wrong += differences(fault, name_of(path), found.of(name_of(path)))
    os.write(told, b"done\n")
    same = holds == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    slowest = sorted(times, key=times.__getitem__)[-3:]
    print(json.dumps({"grown": peak() - before, "wrong": wrong, "same": same, "slowest": {n: times[n] for n in slowest}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
