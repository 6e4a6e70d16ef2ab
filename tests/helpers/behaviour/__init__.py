"""Digests of what the library does: run before a change that moves names and files, run after it, and compare.

`names` is the one table of how the library spells things, `values` names values by their bytes, `parts` says what is pinned of
batches, plans and reports, `data` and `recipes` are what runs, and the cases are in `cases`, `decisions`, `kinds`, `files`,
`faults` and `arguments`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def all_cases() -> Mapping[str, Any]:
    """Return every case by its name."""
    from helpers.behaviour import arguments, cases, decisions, faults, files, kinds
    from helpers.behaviour.registry import CASES

    if not CASES:
        for module in (cases, decisions, kinds, files, faults, arguments):
            module.enter()
    return CASES
