"""Fuzz, with coverage as the guide: ``python tests/fuzz/run.py --target tar --seconds 300``; needs ``patchpack[fuzz]``.

A target after the other, each in a process of its own, held to the time and memory of `fuzz.target`. An input that breaks it is
written to ``--crashes``; ``--replay FILE`` runs it alone. A line of JSON for each: executions, executions per second, branches
reached, and whether it broke. SIGINT and SIGTERM end the child and remove its files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from fuzz.files import MEMORY, PLACE, PREFIX  # noqa: E402
from fuzz.target import bounded, limit_memory  # noqa: E402
from fuzz.targets import NAMES, find  # noqa: E402


def fuzz(name: str, arguments: list[str]) -> None:
    """What a child does: it ends the process."""
    import atheris

    package = TESTS.parent / "patchpack"
    kernels = [".".join(path.relative_to(TESTS.parent).with_suffix("").parts) for path in package.rglob("_kernels*.py")]
    with atheris.instrument_imports(include=["patchpack"], exclude=kernels):  # numba compiles what it finds
        target = find(name)
    corpus = Path(arguments[0])
    for number, seed in enumerate(target.seeds()):
        corpus.joinpath(f"seed-{number:04d}").write_bytes(seed)
        target.check(seed)  # what is compiled and imported on the way takes its memory before there is a limit
    check = bounded(target.check)
    limit_memory()
    atheris.Setup([sys.argv[0], *arguments, f"-max_len={target.max_len}"], check)
    atheris.Fuzz()


def run(
    name: str, *, crashes: Path, corpus: Path | None = None, seconds: int = 0, runs: int = -1, seed: int = 1
) -> dict[str, Any]:
    """One target in a child, which does not outlive this call: a child ends without removing its own files."""
    prefix = f"{PREFIX}{os.getpid()}-"
    with (
        tempfile.TemporaryDirectory(prefix=prefix) as folder,
        tempfile.TemporaryDirectory(prefix=prefix, dir=MEMORY) as scratch,
    ):
        place = corpus / name if corpus else Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        crashes.mkdir(parents=True, exist_ok=True)
        options = [f"-runs={runs}", f"-seed={seed}", f"-artifact_prefix={crashes}/{name}-"]
        options += [f"-max_total_time={seconds}"] if seconds else []
        options += ["-print_final_stats=1", "-timeout=60", "-rss_limit_mb=4096", "-verbosity=1"]
        begun = time.monotonic()
        child = subprocess.run(
            [sys.executable, __file__, "--child", name, str(place), *options],
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            errors="replace",
            env={**os.environ, "OMP_NUM_THREADS": "1", PLACE: scratch},
        )
        taken = time.monotonic() - begun
        kept = len(list(place.iterdir()))
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", child.stdout)
    reached = re.findall(r"cov: (\d+) ft: (\d+)", child.stdout)
    done = int(executions[1]) if executions else 0
    return {
        "target": name,
        "executions": done,
        "per_second": round(done / taken, 1),
        "seconds": round(taken, 1),
        "branches": int(reached[-1][0]) if reached else 0,
        "inputs_kept": kept,
        "broken": child.returncode != 0,
        "output": child.stdout[-6000:] if child.returncode else "",
    }


def end(number: int, _: Any) -> None:
    """Leave by an exception, so that what was begun is ended and removed."""
    sys.exit(128 + number)


def main() -> None:
    """Parse and run."""
    signal.signal(signal.SIGTERM, end)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=[*NAMES, "all"], default="all")
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--runs", type=int, default=-1, help="of each target, instead of seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="keep inputs that reached something new here, and go on from them")
    parser.add_argument("--crashes", type=Path, default=Path("fuzz-crashes"))
    parser.add_argument("--replay", type=Path, help="run the target on this file alone")
    chosen = parser.parse_args()
    names = NAMES if chosen.target == "all" else [chosen.target]
    if chosen.replay:
        find(chosen.target).check(chosen.replay.read_bytes())
        return
    broken = False
    for name in names:
        limits = {"runs": chosen.runs} if chosen.runs >= 0 else {"seconds": chosen.seconds}
        result = run(name, crashes=chosen.crashes, corpus=chosen.corpus, seed=chosen.seed, **limits)
        output = result.pop("output")
        print(json.dumps(result), flush=True)
        print(output, end="", file=sys.stderr)
        broken |= result["broken"]
    sys.exit(broken)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        main()
