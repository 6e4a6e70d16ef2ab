"""Slow reference implementations of the adapters, for one image at a time, in loops, from the models' papers and
configurations.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def qwen_order(patches: Any, grid: tuple[int, int], merge: int, temporal: int) -> Any:
    """``[rows * cols, p * p * 3]`` in raster order → ``[rows * cols, 3 * temporal * p * p]`` in blocks, channel first."""
    rows, cols = grid
    p = int((patches.shape[1] // 3) ** 0.5)
    out = []
    for block_row in range(rows // merge):
        for block_col in range(cols // merge):
            for row_in_block in range(merge):
                for col_in_block in range(merge):
                    row, col = block_row * merge + row_in_block, block_col * merge + col_in_block
                    patch = patches[row * cols + col].reshape(p, p, 3)
                    values = []
                    for channel in range(3):
                        for _ in range(temporal):
                            for y in range(p):
                                values += [patch[y, x, channel] for x in range(p)]
                    out.append(values)
    return np.array(out, dtype=patches.dtype).reshape(rows * cols, -1)


def one_per_row(images: list[Any], length: int) -> tuple[Any, Any]:
    """Arrays ``[n_i, ...]`` → ``[N, length, ...]`` with zeros behind, and bool ``[N, length]``."""
    out = np.zeros((len(images), length, *images[0].shape[1:]), dtype=images[0].dtype)
    mask = np.zeros((len(images), length), dtype=bool)
    for i, image in enumerate(images):
        for k in range(len(image)):
            out[i, k], mask[i, k] = image[k], True
    return out, mask
