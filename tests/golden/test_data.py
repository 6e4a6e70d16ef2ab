"""The files of `data/`: small, described, and each read by the tests that its README names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from helpers.goldens import DATA

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.name: path for path in DATA.iterdir() if path.name != "README.md"}


def readers() -> dict[str, list[str]]:
    """File → the sources that read it, by the table in the README."""
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", (DATA / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {name: re.findall(r"`([^`]+)`", sources) for name, sources in rows}


def test_the_readme_lists_every_file_and_no_other() -> None:
    assert readers().keys() == FILES.keys()


def test_every_file_is_read_where_the_readme_says() -> None:
    for name, sources in readers().items():
        assert sources
        for source in sources:
            assert re.search(rf"\b{Path(name).stem}\b", (ROOT / source).read_text(encoding="utf-8")), (name, source)


def test_all_are_under_four_megabytes_and_hold_no_objects() -> None:
    assert sum(path.stat().st_size for path in FILES.values()) < 4_000_000
    for path in FILES.values():
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                assert all(values.dtype.kind in "biuf" for values in file.values())
