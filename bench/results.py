"""A file of results, a line of JSON per run, that a long benchmark goes on from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read(out: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The lines whose fields are these; a line that a killed call left unfinished is passed over."""
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
    """One more line, on a line of its own whatever stands at the end of the file."""
    before = out.read_bytes() if out.exists() else b""
    with out.open("ab") as file:
        file.write((b"\n" if before and not before.endswith(b"\n") else b"") + json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
