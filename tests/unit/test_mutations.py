"""The faults that tests are tried on fit the library as it is, and what runs them tells a failed test from anything else."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from helpers.mutations import run

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = run.mutations()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_fault_fits_todays_tree(mutation: run.Mutation) -> None:
    for path, text in run.applied(mutation, ROOT).items():
        assert text != (ROOT / path).read_text(encoding="utf-8")
        compile(text, path, "exec")
    assert [path for path in mutation.tests if not (ROOT / path).is_file()] == []


def test_there_are_faults_of_every_room() -> None:
    numbers = [int(mutation.name.split("-")[0]) for mutation in MUTATIONS]
    assert numbers == list(range(1, len(MUTATIONS) + 1))
    rooms = Counter(mutation.edits[0].path.split("/")[1] for mutation in MUTATIONS)
    assert rooms.total() >= 40
    assert rooms >= Counter(plan=12, paint=8, image=2, stream=10, model=5, adapters=3)


PATCH = """# a fault
# tests: tests/test_one.py
--- a/one.py
+++ b/one.py
@@ -1,2 +1,2 @@
 first
-second
+another
"""


def test_a_patch_is_found_by_its_lines_and_taken_back(tmp_path: Path) -> None:
    mutation, file = run.parse("01-one", PATCH), tmp_path / "one.py"
    file.write_text("before\nfirst\nsecond\nafter\n")
    begun = file.stat().st_mtime_ns
    with run.mutated(mutation, tmp_path):
        assert file.read_text() == "before\nfirst\nanother\nafter\n"
        assert file.stat().st_mtime_ns // 10**9 > begun // 10**9  # bytecode goes by whole seconds
    assert (file.read_text(), file.stat().st_mtime_ns) == ("before\nfirst\nsecond\nafter\n", begun)


@pytest.mark.parametrize("text", ["first\nsecondly\nsecond\n", "first\nsecond\nfirst\nsecond\n", "the first\nsecond\n", ""])
def test_a_patch_whose_lines_are_not_there_once_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(text)
    with pytest.raises(run.Failure, match=r"01-one does not apply.*write it anew"):
        run.applied(run.parse("01-one", PATCH), tmp_path)


def test_kernels_are_compiled_for_a_fault_and_kept_for_what_is_right(tmp_path: Path) -> None:
    cache = tmp_path / "__pycache__"
    cache.mkdir()
    (tmp_path / "_kernels_one.py").write_text("first\nsecond\n")
    (cache / "_kernels_two.f-1.nbi").write_text("right")
    with run.mutated(run.parse("01-one", PATCH.replace("one.py", "_kernels_one.py")), tmp_path):
        assert os.listdir(cache) == []
        (cache / "_kernels_two.f-1.nbi").write_text("wrong")
        (cache / "_kernels_one.g-1.1.nbc").write_text("wrong")
    assert {path.name: path.read_text() for path in cache.iterdir()} == {"_kernels_two.f-1.nbi": "right"}


@pytest.mark.parametrize(
    ("code", "output", "failed"),
    [
        (0, "12 passed", ""),
        (1, "FAILED tests/a.py::test_b[x - y] - assert a[1] == 2\n1 failed", "tests/a.py::test_b[x - y]"),
        (1, "FAILED tests/a.py::test_b[1]\n1 failed", "tests/a.py::test_b[1]"),
        (1, "ERROR tests/a.py::test_b - a fixture\n1 error", "tests/a.py::test_b"),
        (
            2,
            "FAILED tests/a.py::test_b - no\n!!! xdist.dsession.Interrupted: stopping after 1 failures !!!",
            "tests/a.py::test_b",
        ),
    ],
)
def test_a_test_that_failed_is_named(code: int, output: str, failed: str) -> None:
    assert run.verdict(code, output) == failed


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (1, "1 failed"),
        (2, "ERROR tests/a.py - ImportError\n1 error"),
        (3, "INTERNALERROR"),
        (4, "usage"),
        (5, "no tests ran"),
    ],
)
def test_what_is_no_failed_test_finds_no_fault(code: int, output: str) -> None:
    with pytest.raises(run.Failure, match=f"pytest ended with {code}"):
        run.verdict(code, output)


def test_what_is_settled_is_not_run_again(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    lines = [
        {"digest": "a", "outcome": "killed", "tier": "nearest"},
        {"digest": "b", "outcome": "survived", "tier": "fast"},
        {"digest": "c", "outcome": "error", "tier": "all"},
    ]
    results.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"digest": "d", "outc')
    assert set(run.settled(results, "fast")) == {"a", "b"}
    assert set(run.settled(results, "all")) == {"a"}
    assert run.settled(tmp_path / "none", "all") == {}
