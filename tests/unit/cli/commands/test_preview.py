"""The images that a preview draws before and after resizing."""

from __future__ import annotations

from pathlib import Path

import patchpack as pp
from helpers.drawn import photo
from patchpack.cli.commands.preview import first_rows
from patchpack.cli.pictures.rows import drawable
from patchpack.stream.sources.opening import open_source


def test_pairs_are_taken_from_every_row(tmp_path: Path) -> None:
    for i in range(24):
        photo(tmp_path / f"{i:02}.jpg", (64, 64), seed=i)
    recipe = drawable(pp.recipes.siglip2_naflex(max_patches=64, seq_len=512, rows_per_batch=3))
    found = first_rows(open_source(str(tmp_path), target=None), recipe, 0)
    assert [(image.row, image.slot) for image in found.images] == [(row, slot) for row in range(3) for slot in range(4)]
    assert set(found.originals) == {(image.key, image.part) for image in found.images}
