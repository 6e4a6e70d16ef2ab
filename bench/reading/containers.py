"""How many of the faulty tar files in `tests/helpers/faults` are handled correctly, by patchpack and by webdataset?

    OMP_NUM_THREADS=1 python -m bench.reading.containers [-o FILE]

A file is handled correctly if reading ends within 10 seconds, every whole sample arrives with its own label (which its picture
shows), nothing is unpickled, and every loss is reported. webdataset gets a handler that counts errors and continues.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

import numpy as np
import webdataset

import patchpack as pp
from helpers.faults import FAULTS, Fault
from helpers.painted import PATCH, RECIPE, painted_label

LIMIT = 10  # seconds


class Late(BaseException):
    """Raised when the time is over. No handler takes it for a fault of the data."""


def late(*_: object) -> None:
    raise Late


def ours(path: str, fault: Fault) -> tuple[list[tuple[int, int]], int]:
    """Return (label shown, label given) of each sample that patchpack delivers, and the number of reported losses."""
    loader = pp.load(path, RECIPE, target=fault.target, on_error=pp.ErrorPolicy("skip", max_in_a_row=None))
    pairs = []
    try:
        for batch in loader:
            pairs += [(painted_label(image.patches), first(image.target)) for image in pp.unpack(batch)]
    except pp.errors.SourceError:  # no sample can be packed
        pass
    report = loader.report()
    return pairs, len(report.rejected) + len(report.shard_errors)


def theirs(path: str, fault: Fault) -> tuple[list[tuple[int, int]], int]:
    """Return the same two values for webdataset, which decodes as its documentation shows."""
    told = []

    def handler(error: Exception) -> bool:
        told.append(error)
        return True

    targets = (fault.target,) if isinstance(fault.target, str) else fault.target
    stream = webdataset.WebDataset(path, shardshuffle=False, handler=handler, empty_check=False)
    stream = stream.decode("pilrgb", handler=handler).to_tuple("jpg;jpeg;png;webp", *targets, handler=handler)
    pairs = []
    for image, *labels in stream:
        patches = np.asarray(image).reshape(4, PATCH, -1, PATCH, 3).swapaxes(1, 2).reshape(-1, 3 * PATCH**2)
        try:
            pairs.append((painted_label(patches), first(labels[0])))
        except (TypeError, ValueError, AssertionError):  # a label of another kind arrives as it is
            pairs.append((0, -1))
    return pairs, len(told)


def first(target: Any) -> int:
    return int(next(iter(target.values())) if isinstance(target, dict) else target)


def verdict(read: Any, path: str, fault: Fault) -> tuple[str, float]:
    begun = time.perf_counter()
    signal.alarm(LIMIT)
    try:
        pairs, told = read(path, fault)
    except Late:
        return "does not end", LIMIT
    except Exception as error:
        return f"raises {type(error).__name__}", time.perf_counter() - begun
    finally:
        signal.alarm(0)
    took = time.perf_counter() - begun
    if os.path.exists("unpickled"):
        os.remove("unpickled")
        return "unpickles", took
    if any(shown != given for shown, given in pairs):
        return "wrong label", took
    got, whole = Counter(given for _, given in pairs), Counter(fault.labels().values())
    if whole - got:
        return "loses others", took
    more = (got - whole).total()  # a sample that patchpack refuses is no loss if it arrives with its own label
    return "right" if told or more or not (fault.rejected or fault.fault) else "lost in silence", took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", help="a JSON file for the verdicts")
    output = parser.parse_args().output and os.path.abspath(parser.parse_args().output)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, late)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # a pickle that is opened writes a file here
        for fault in FAULTS.values():
            path = fault.write_to(Path(folder))
            found[fault.name] = {"ours": verdict(ours, path, fault), "webdataset": verdict(theirs, path, fault)}
            print(f"{fault.name:55}", *(f"{of:18} {took:6.3f} s" for of, took in found[fault.name].values()), flush=True)
        os.chdir("/")
    for who in ("ours", "webdataset"):
        print(who, dict(Counter(entry[who][0] for entry in found.values())), f"of {len(found)}")
    if output:
        Path(output).write_text(json.dumps({"webdataset": webdataset.__version__, "faults": found}, indent=1))


if __name__ == "__main__":
    main()
