"""Run the tests against 41 small faults of the library, one after the other, in a copy of the tree.

    python tests/helpers/mutations/run.py [--tier nearest|fast|all] [--only NN ...] [--results FILE] [--keep-going]

Each fault is a patch beside this file. A patch is applied to the copy, the tests that it names run first, and only where they
pass the whole fast tier does; with ``--tier all`` everything, then. The test that failed runs once more without the patch and
must pass. After each fault a line of JSON is added to the results; faults that are settled there are not run again, so a run
that was stopped goes on where it was.

Exit code: 0 if every fault was found, 1 if one was not or could not be tried.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TIERS = {"nearest": ["nearest"], "fast": ["nearest", "fast"], "all": ["nearest", "fast", "all"]}
# -n 0: a few files are done before other processes have started; -m "" also runs what is marked slow, peers or docs
ARGUMENTS = {"nearest": ["-n", "0"], "fast": ["-n", "auto"], "all": ["-n", "auto", "-m", ""]}
FOUND = {"nearest": "by the nearest tests", "fast": "by the fast tier", "all": "by everything"}
CACHES = ("__pycache__", ".hypothesis", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".venv", ".git", "build", "dist", "site")

_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+\.py::[^\[\s]+(?:\[.*?\])?)(?: - |$)", re.MULTILINE)
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@")


class Failure(Exception):
    """A fault could not be tried; says why."""


class Edit(NamedTuple):
    """One hunk: lines of a file, and what they become."""

    path: str
    before: str
    after: str


class Mutation(NamedTuple):
    """One fault.

    Attributes:
        name: of the patch, without its extension.
        what: the fault in a sentence.
        tests: the test files nearest to it.
        edits: its hunks, in order.
        digest: of the patch; a result counts for this one alone.
    """

    name: str
    what: str
    tests: list[str]
    edits: list[Edit]
    digest: str


# ----------------------------------------------------------------------------------------------------------------- patches


def mutations(folder: Path = HERE) -> list[Mutation]:
    """Return all faults, by name."""
    return [parse(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.patch"))]


def parse(name: str, text: str) -> Mutation:
    """Read a patch: comment lines, of which one names the tests, then a unified diff.

    Raises:
        Failure: anything else.
    """
    comments = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    tests = [word for line in comments if line.startswith("tests:") for word in line.split()[1:]]
    what = " ".join(line for line in comments if not line.startswith("tests:"))
    edits: list[Edit] = []
    path = ""
    for line in text.splitlines(keepends=True):
        if line.startswith("+++ b/"):
            path = line[6:].strip()
        elif _HUNK.match(line):
            edits.append(Edit(path, "", ""))
        elif edits and line[0] in " -+" and not line.startswith("--- a/"):
            edit = edits[-1]
            before, after = (line[1:] if line[0] in kinds else "" for kinds in (" -", " +"))
            edits[-1] = edit._replace(before=edit.before + before, after=edit.after + after)
    if not (what and tests and edits and path):
        raise Failure(f"{name}: expected a comment, a line '# tests: ...' and a unified diff")
    return Mutation(name, what, tests, edits, hashlib.sha256(text.encode()).hexdigest()[:16])


def applied(mutation: Mutation, root: Path) -> dict[str, str]:
    """Return the files that a patch changes, changed. Lines are found by what they say, not by their number.

    Raises:
        Failure: lines that are not in their file, or more than once.
    """
    files: dict[str, str] = {}
    for edit in mutation.edits:
        if edit.path not in files:
            path = root / edit.path
            files[edit.path] = path.read_text(encoding="utf-8") if path.is_file() else ""
        places = [found.span() for found in re.finditer(f"^{re.escape(edit.before)}", files[edit.path], re.MULTILINE)]
        if len(places) != 1:
            raise Failure(f"{mutation.name} does not apply, its lines are {len(places)} times in {edit.path}: write it anew")
        [(begin, end)] = places
        files[edit.path] = files[edit.path][:begin] + edit.after + files[edit.path][end:]
    return files


@contextmanager
def mutated(mutation: Mutation, root: Path) -> Iterator[None]:
    """Have a fault in a tree for a while.

    A file that is changed gets a time of its own, so that no bytecode of another version is taken for it. Where it holds
    kernels, the machine code of its folder is out of the way meanwhile: numba's cache looks at the file, and kernels of one
    file may be compiled into those of another.
    """
    changed = applied(mutation, root)
    paths = {root / name: text for name, text in changed.items()}
    before = {path: (path.read_bytes(), path.stat()) for path in paths}
    folders = {path.parent / "__pycache__" for path in paths if path.name.startswith("_kernels")}
    with tempfile.TemporaryDirectory(prefix="patchpack-kernels-") as aside:
        for number, folder in enumerate(sorted(folders)):
            _move_kernels(folder, Path(aside) / str(number))
        try:
            for path, text in paths.items():
                path.write_text(text, encoding="utf-8")
                later = before[path][1].st_mtime_ns + 1_000_000_000 * (1 + int(mutation.digest[:4], 16))
                os.utime(path, ns=(later, later))
            yield
        finally:
            for path, (data, status) in before.items():
                path.write_bytes(data)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            for number, folder in enumerate(sorted(folders)):
                _move_kernels(folder, None)
                _move_kernels(Path(aside) / str(number), folder)


def _move_kernels(source: Path, target: Path | None) -> None:
    """Move numba's files to another folder; remove them where there is none."""
    for path in [*source.glob("*.nbi"), *source.glob("*.nbc")]:
        if target is None:
            path.unlink()
        else:
            target.mkdir(exist_ok=True)
            shutil.move(path, target / path.name)


# ------------------------------------------------------------------------------------------------------------------- tests


def copy_tree(target: Path) -> None:
    """Copy the repository's files: what git tracks or would, else all but caches."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names: list[str] = []
    if (ROOT / ".git").exists():
        names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    if not names:
        shutil.copytree(ROOT, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*CACHES))
        return
    for name in filter(None, names):
        if (ROOT / name).is_file():  # one that was removed is still tracked
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def environment(root: Path) -> dict[str, str]:
    """Return what pytest and every process that a test starts run with: the copy is imported, its kernels are cached in it."""
    left_out = ("PYTEST_ADDOPTS", "NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES")
    found = {name: value for name, value in os.environ.items() if name not in left_out}
    if found.get("PATCHPACK_TEST_DATA"):
        found["PATCHPACK_TEST_DATA"] = os.path.abspath(found["PATCHPACK_TEST_DATA"])
    return found | {"PYTHONPATH": str(root), "TMPDIR": str(root.parent / "tmp")}


def run_tests(root: Path, arguments: Sequence[str], timeout: float) -> str:
    """Return the test that failed, or "" where all passed.

    Raises:
        Failure: pytest could not run them, or not in time.
    """
    # without plugins that keep something between runs, that change the order, or that see what another run leaves behind
    plugins = ["-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:helpers.leftovers"]
    own = ["--ignore", "tests/unit/test_mutations.py"]  # a patch that is applied does not apply again
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", *plugins, *own, *arguments]
    with subprocess.Popen(
        command, cwd=root, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # the leader of its session, and all that it started
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise Failure(f"the tests were not done in {timeout:g} seconds") from None
    return verdict(process.returncode, output)


def verdict(code: int, output: str) -> str:
    """Return the test that failed by what pytest said, or "" where all passed.

    pytest-xdist ends with 2 where ``-x`` stops it, pytest with 2 where tests could not be collected: the summary tells.

    Raises:
        Failure: no test failed, and not all passed either.
    """
    if code == 0:
        return ""
    failed = _FAILED.search(output)
    if code in (1, 2) and failed:
        return failed[1]
    raise Failure(f"pytest ended with {code} and no test that failed: {' | '.join(output.strip().splitlines()[-6:])}")


def try_out(mutation: Mutation, root: Path, tier: str, timeout: float) -> dict[str, Any]:
    """Run the tests against one fault and return what is written down of it."""
    begun = time.monotonic()
    result: dict[str, Any] = {"name": mutation.name, "digest": mutation.digest, "tier": tier, "outcome": "survived"}
    try:
        for stage in TIERS[tier]:
            with mutated(mutation, root):
                by = run_tests(root, [*ARGUMENTS[stage], *(mutation.tests if stage == "nearest" else ["tests"])], timeout)
            if by:
                if run_tests(root, ["-n", "0", "-m", "", by], timeout):
                    raise Failure(f"{by} fails without the patch, too")
                result |= {"outcome": "killed", "stage": stage, "by": by}
                break
    except Failure as error:
        result |= {"outcome": "error", "by": str(error)}
    return result | {"seconds": round(time.monotonic() - begun, 1)}


# ----------------------------------------------------------------------------------------------------------------- results


def settled(results: Path, tier: str) -> dict[str, dict[str, Any]]:
    """Return the results of earlier runs that stand, by digest: what was found, and what was not in as large a tier."""
    found: dict[str, dict[str, Any]] = {}
    for line in results.read_text(encoding="utf-8").splitlines() if results.exists() else ():
        try:
            result = json.loads(line)
        except ValueError:  # the last line of a run that was killed
            continue
        survived = result["outcome"] == "survived" and len(TIERS[result["tier"]]) >= len(TIERS[tier])
        if result["outcome"] == "killed" or survived:
            found[result["digest"]] = result
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the results as lines of text, and their sum."""
    lines = []
    for result in results:
        where = FOUND[result["stage"]] if result["outcome"] == "killed" else result["outcome"].upper()
        lines.append(f"{result['name']:48} {where:22} {result['seconds']:7.1f} s  {result.get('by', '')}")
    counts = Counter(result.get("stage", result["outcome"]) for result in results)
    parts = [f"{counts[stage]} {said}" for stage, said in FOUND.items()]
    return "\n".join(
        [*lines, f"{len(results)} faults: {', '.join(parts)}, {counts['survived']} survived, {counts['error']} errors"]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tier", choices=TIERS, default="fast", help="how far to go with a fault that is not found")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers or names of faults; survivors again")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "mutations.jsonl", metavar="FILE", help="JSON lines")
    parser.add_argument("--keep-going", action="store_true", help="go on after a fault that could not be tried")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="for one run of pytest")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through what ends the tests and removes the copy
    chosen = [m for m in mutations() if not options.only or {m.name, m.name.split("-")[0]} & set(options.only)]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    known, results = settled(options.results, options.tier), []
    with tempfile.TemporaryDirectory(prefix="patchpack-mutations-") as folder:
        root = Path(folder) / "patchpack"
        copy_tree(root)
        (root.parent / "tmp").mkdir()
        for mutation in chosen:
            result = known.get(mutation.digest)
            if result is None or (options.only and result["outcome"] == "survived"):  # by name: there may be a test now
                print(f"{mutation.name}: {mutation.what}", flush=True)
                result = try_out(mutation, root, options.tier, options.timeout)
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
                print(f"    {result['outcome']} {result.get('by', '')} ({result['seconds']} s)", flush=True)
            results.append(result)
            if result["outcome"] == "error" and not options.keep_going:
                break
    print(table(results))
    return int(any(result["outcome"] != "killed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
