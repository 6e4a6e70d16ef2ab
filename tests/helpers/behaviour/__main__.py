"""Print digests of what the library does as JSON: case → part → digest; or compare two such files.

python -m helpers.behaviour > before.json                      # in tests/, or with tests/ on PYTHONPATH
python -m helpers.behaviour --only 'resume/*' > some.json
python -m helpers.behaviour --compare before.json after.json   # prints what differs, and ends with 1 if anything does
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

Found = dict[str, dict[str, str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="helpers.behaviour", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="run the cases that fit, as in 'source/*'; repeatable"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases and run none")
    parser.add_argument("--times", action="store_true", help="print on stderr how long each case took")
    parser.add_argument("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="compare two outputs")
    options = parser.parse_args(arguments)
    if options.compare:
        before, after = (json.loads(Path(path).read_text(encoding="utf-8")) for path in options.compare)
        different = differences(before, after)
        print("\n".join([*different, f"{len(different)} of {len({*before, *after})} cases differ"]))
        return 1 if different else 0
    chosen = chosen_cases(options.only)
    if options.list:
        print("\n".join(chosen))
        return 0
    if not chosen:
        parser.error(f"no case fits {options.only}")
    print(json.dumps(run_all(chosen, times=options.times), indent=1, ensure_ascii=False))
    return 0


def chosen_cases(patterns: Sequence[str] | None = None) -> list[str]:
    """Return the names of all cases that one of the patterns fits, sorted."""
    from helpers.behaviour import all_cases

    return sorted(name for name in all_cases() if not patterns or any(fnmatchcase(name, one) for one in patterns))


def run_all(chosen: Sequence[str], *, times: bool = False) -> Found:
    """Run cases in a new folder and return the digests of each."""
    import torch

    from helpers.behaviour.registry import run, working_in

    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory(prefix="behaviour-") as folder, working_in(Path(folder)):
        for name in chosen:
            begin = time.perf_counter()
            found[name] = run(name, tell=True)
            if times:
                print(f"{time.perf_counter() - begin:7.2f} s  {name}", file=sys.stderr)
    return found


def differences(before: Found, after: Found) -> list[str]:
    """Return a line for every case that is not the same: which parts differ, and how an error changed."""
    lines = []
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            lines.append(f"{name}: only {'after' if name in after else 'before'}")
        elif before[name] != after[name]:
            labels = sorted({*before[name], *after[name]})
            changed = [_change(label, before[name].get(label), after[name].get(label)) for label in labels]
            lines.append(f"{name}: {', '.join(filter(None, changed))}")
    return lines


def _change(label: str, before: Any, after: Any) -> str:
    """Return how a part changed, "" if it did not."""
    if before == after:
        return ""
    plain = any(value is not None and not _is_digest(value) for value in (before, after))
    return f"{label} ({before} → {after})" if plain or None in (before, after) else label


def _is_digest(value: str) -> bool:
    return len(value) == 16 and set(value) <= set("0123456789abcdef")


if __name__ == "__main__":
    sys.exit(main())
