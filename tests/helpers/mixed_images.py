"""Twenty pictures of mixed shapes, made by integer formulas.

They are the same on every machine and with every package version.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIZES = [  # height, width
    (64, 64), (37, 91), (91, 37), (120, 48), (33, 200), (200, 33), (15, 15), (7, 60), (75, 100), (100, 75),
    (128, 96), (17, 300), (81, 80), (224, 160), (50, 150), (112, 113), (29, 28), (180, 181), (99, 31), (256, 144),
]  # fmt: skip


def pixels(number: int) -> np.ndarray:
    """uint8 ``[H, W, 3]``: slopes, rings and speckles that differ by channel."""
    height, width = SIZES[number]
    y, x, channel = np.ogrid[:height, :width, :3]
    rings = (y - height // 2) ** 2 + (x - width // 3) ** 2 * (channel + 1)
    speckles = ((x * 73 + y * 151 + channel * 31 + number * 17) * 2654435761 >> 7) & 63
    return ((rings // (9 + number) + y * (channel + 2) + x * 3 + speckles) % 256).astype(np.uint8)


def pictures() -> dict[str, Image.Image]:
    """By key."""
    return {f"picture-{i:02}": Image.fromarray(pixels(i)) for i in range(len(SIZES))}
