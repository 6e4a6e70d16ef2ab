"""Measurements that need a process of their own: the time to start, and the memory for a stream of large files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import patchpack as pp
from bench.images.rounds import spread

_FIRST_BATCH = """
import json, sys, time
begin = time.perf_counter()
import patchpack as pp
pp.load
imported = time.perf_counter()
batch = next(iter(pp.load(json.loads(sys.argv[1]), pp.recipes.siglip2_naflex(drop=pp.drop.Beta(0.5, 0.9)), on_error="skip")))
print(json.dumps([imported - begin, time.perf_counter() - imported]))
"""

_STREAM = """
import json, resource, sys, time
from pathlib import Path
import patchpack as pp

def peak():  # of this program alone, where the system tells: ru_maxrss remembers the process that started it
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 2**10

def samples(folder):
    for path in sorted(Path(folder).iterdir()):
        yield pp.Sample(path.stem, path.read_bytes())

folder, kind, recipe = sys.argv[1], sys.argv[2], pp.recipes.siglip2_naflex(**json.loads(sys.argv[3]))
for batch in pp.load(pp.samples.shards("val"), recipe, on_error="skip"):
    pass
before, images, begin = peak(), 0, time.process_time()
for batch in pp.load(samples(folder) if kind == "iterable" else folder, recipe, target=None):
    images += int(batch.num_images.sum())
print(json.dumps([before, peak(), images, time.process_time() - begin]))
"""

START_UP = {
    "python alone": "pass",
    "import patchpack": "import patchpack",
    "patchpack --help": "from patchpack.cli import main; main(['--help'])",
}


def start_up(shards: Sequence[str], repeats: int) -> dict[str, Any]:
    """Return the wall and CPU seconds of whole processes, and the seconds of the parts of a first batch.

    All caches are filled before.
    """
    answer: dict[str, Any] = {}
    for name, code in START_UP.items():
        runs = [_run(code) for _ in range(repeats + 1)][1:]  # the first one fills caches
        answer[name] = {"wall s": spread([r[0] for r in runs]), "cpu s": spread([r[1] for r in runs])}
    runs = [_run(_FIRST_BATCH, json.dumps(list(shards))) for _ in range(repeats + 1)]
    parts = [json.loads(run[2]) for run in runs]
    answer["first batch"] = {
        "wall s": spread([run[0] for run in runs[1:]]),
        "cpu s": spread([run[1] for run in runs[1:]]),
        "of it imports, wall s": spread([part[0] for part in parts[1:]]),
        "of it pp.load to first batch, wall s": spread([part[1] for part in parts[1:]]),
    }
    return answer


def peak_memory(files: Sequence[pp.Sample], count: int, kind: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the peak memory in MiB of a process that loads `count` files with `pp.load`, and its peak before the first of
    them.

    `kind` is ``"folder"``, whose files are read when they are painted, or ``"iterable"``, whose bytes wait together with their
    plans.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number, sample in zip(range(count), cycle(files)):
            path = Path(folder, f"{number:06d}.jpg")
            if number < len(files):
                path.write_bytes(sample.image)
            else:
                path.hardlink_to(Path(folder, f"{number % len(files):06d}.jpg"))
        before, peak, images, seconds = json.loads(_run(_STREAM, folder, kind, json.dumps(changes))[2])
    return {
        "images": images,
        "peak MiB": round(peak),
        "after a small stream MiB": round(before),
        "cpu ms per image": round(1e3 * seconds / images, 1),
    }


def _run(code: str, *arguments: str) -> tuple[float, float, str]:
    """Run code in a new Python process. Return wall seconds, CPU seconds and the printed text."""
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
    wall, after = time.perf_counter() - begin, os.times()
    if done.returncode:
        raise RuntimeError(f"a child ended with {done.returncode}: {done.stderr[-500:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, done.stdout
