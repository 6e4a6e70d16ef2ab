"""Photographs of noise for drawing, and a check of a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def assert_drawn(path: Path) -> None:
    """Raise `AssertionError` unless each quarter of a picture holds something, and nothing crosses its edges."""
    with Image.open(path) as file:
        picture = file.convert("L")
    assert min(picture.size) >= 1200
    width, height = picture.size
    for box in ((0, 0, 5, height), (width - 5, 0, width, height), (0, 0, width, 5), (0, height - 5, width, height)):
        assert picture.crop(box).getextrema() == (255, 255), box
    for x in (0, width // 2):
        for y in (height * 15 // 100, height * 65 // 100):
            quarter = picture.crop((x, y, x + width // 2, y + height * 3 // 10)).resize((100, 60))
            assert len(quarter.getcolors(6000) or ()) > 30


def photo(path: Path, size: tuple[int, int] = (256, 256), *, whole: bool = True, seed: int = 0) -> None:
    """Write a JPEG of noise. Unless `whole`, only its first half, in which the header can be read and the pixels cannot."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    if not whole:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
