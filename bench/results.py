"""A file of results with a line of JSON per run, with which a long benchmark continues after an interruption."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read(out: Path, **wanted: Any) -> list[dict[str, Any]]:
    """Return the lines whose fields have the wanted values. A line that a killed run left unfinished is skipped."""
    lines = []
    for text in out.read_text().splitlines() if out.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if all(line[name] == value for name, value in wanted.items()):
            lines.append(line)
    return lines


def append(out: Path, line: dict[str, Any]) -> None:
    """Append a result as a line of its own, even if the file ends with an unfinished line."""
    before = out.read_bytes() if out.exists() else b""
    with out.open("ab") as file:
        file.write((b"\n" if before and not before.endswith(b"\n") else b"") + json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
