"""Sizes from tables and from headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from patchpack.cli.survey.sizes import read_sizes

HW = np.random.default_rng(0).integers(100, 700, (400, 2))


@pytest.mark.parametrize(
    ("name", "order", "turned"),
    [("hw.npz", None, False), ("single.npz", "wh", True), ("single.npz", "hw", False), ("sizes.csv", None, False)],
)
def test_a_table_is_read_as_height_and_width(name: str, order: str | None, turned: bool, tmp_path: Path) -> None:
    np.savez(tmp_path / "hw.npz", hw=HW)
    np.savez(tmp_path / "single.npz", data=HW)
    lines = ["id, Width ,HEIGHT,note", *(f'{i},{w},{h},"a, b"' for i, (h, w) in enumerate(HW.tolist())), ""]
    (tmp_path / "sizes.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    found = read_sizes(str(tmp_path / name), Progress(disable=True), order=order, limit=1000, image="png", target=None)
    assert np.array_equal(found.table, HW[:, ::-1] if turned else HW)
    assert (found.keys, found.complete, found.without_size) == (None, True, 0)
