"""Images before and after resizing: extreme shapes, and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchpack as pp
from helpers.drawn import photo
from patchpack.cli.commands.preview import first_rows
from patchpack.cli.pictures import pairs, rows, sheet
from patchpack.stream.sources.opening import open_source


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_000)])
def test_extreme_shapes_can_be_seen(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, (255, 0, 0)).save(tmp_path / "needle.png")
    photo(tmp_path / "other.jpg")
    recipe = rows.drawable(pp.recipes.siglip2_naflex(rows_per_batch=1))
    found = first_rows(open_source(str(tmp_path), target=None), recipe, 0)
    needle = [image for image in found.images if image.key == "needle.png"]
    assert tuple(needle[0].source_size) == size[::-1]
    pictures = {
        "rows": rows.draw_rows(found.batch, plan=found.plan, width=1200),
        "pairs": pairs.draw_pairs(needle, found.originals, 16, width=1200),
    }
    for name, picture in pictures.items():
        red = np.argwhere((np.asarray(picture) == (255, 0, 0)).all(axis=-1))
        assert len(red), name
        wide = size[1] == 1
        _, thickness = np.unique(red[:, int(wide)], return_counts=True)  # red pixels in each column of a wide one
        assert thickness.min() >= 6 * (2 if wide and name == "pairs" else 1), name  # before and after


def test_a_long_key_keeps_its_end() -> None:
    assert pairs.shortened("a.png", 188) == "a.png"
    short = pairs.shortened("photos-000000.tar/" + "deep/" * 40 + "n01440764.jpg", 188)
    assert short.startswith("...")
    assert short.endswith("/n01440764.jpg")
    assert sheet.font(13).getlength(short) <= 188
    assert pairs.shortened("\x1b[31m\N{CJK UNIFIED IDEOGRAPH-732B}", 188) == r"\x1b[31m\u732b"
