"""A pytest plugin that records the seconds of each test, and a check of the fast tier's slowest tests.

The plugin adds ``--record-durations FILE``: after the run, FILE holds a JSON object of the seconds (set-up, call, tear-down)
and the tiers of each test. The check, ``python tests/helpers/durations.py FILE``, runs every fast test that took over one
second again, as the fast tier runs it. Tests that again take over one second run in one process, up to three times. By then the
kernels are compiled. The check names each test whose median is over one second. It fails if a median is over three seconds.
Both limits hold for a machine that imports torch in 1.7 seconds. On a slower machine they grow in proportion.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

NAMED, REFUSED = 1.0, 3.0  # seconds
REFERENCE = 1.7  # seconds in which the machine of these limits imports torch
TIERS = {"slow", "peers", "docs"}  # whatever else is fast


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--record-durations``."""
    parser.addoption("--record-durations", metavar="FILE", help="write a JSON object of each test's seconds and tiers")


def pytest_configure(config: pytest.Config) -> None:
    """Record in the process that sees every report: the only one, or the one that started pytest-xdist's workers."""
    if config.getoption("--record-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(config.getoption("--record-durations"))))


class Recorder:
    """Adds up the seconds of each test."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of one test."""
        test = self._tests.setdefault(report.nodeid, {"seconds": 0.0, "tiers": sorted(TIERS & set(report.keywords))})
        test["seconds"] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        self._path.write_text(json.dumps(self._tests, indent=0))


def again(tests: list[str], processes: str) -> dict[str, float]:
    """Run tests with the fast profile, in a number of processes (or ``auto``), and return the seconds of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "durations.json"
        command = [sys.executable, "-m", "pytest", "-q", "-n", processes, "--record-durations", str(file), *tests]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"HYPOTHESIS_PROFILE": "fast"})
        return {name: test["seconds"] for name, test in json.loads(file.read_text()).items()}


def slowness() -> float:
    """Return how many times as long as the reference this machine takes to import torch in a new process, at least 1."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        seconds.append(time.perf_counter() - begun)
    return max(1.0, statistics.median(seconds) / REFERENCE)


def main(path: str) -> int:
    """Print the fast tests that are slow; return 1 if one of them is far too slow, else 0."""
    recorded = json.loads(Path(path).read_text())
    slow, factor = [name for name, test in recorded.items() if not test["tiers"] and test["seconds"] > NAMED], slowness()
    if slow:
        slow = [name for name, seconds in again(slow, "auto").items() if seconds > NAMED * factor]
    runs: list[dict[str, float]] = []
    while slow and len(runs) < 3:
        runs.append(again(slow, "0"))
        slow = [name for name in slow if len(runs) > 1 or runs[0].get(name, 0.0) > NAMED * factor]
    medians = {name: statistics.median(run[name] for run in runs) for name in slow}
    for name in sorted(medians, key=lambda name: -medians[name]):
        if medians[name] > NAMED * factor:
            over = medians[name] > REFUSED * factor
            print(f"{medians[name]:5.1f} s  {name}{'  mark it slow, or make it cheaper' if over else ''}")
    return int(any(median > REFUSED * factor for median in medians.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
