"""Grid to position ids: where each patch was in its image, in raster order.

Fractions are one correctly rounded float32 division of small integers, never a product of rounded numbers.
Source: NaViT 2307.06304 section 2.1 and figure 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchpack.types import Grid


@runtime_checkable
class PositionScheme(Protocol):
    """A rule from one grid to its position ids."""

    def __call__(self, grid: Grid) -> npt.NDArray[Any]:
        """int32 or float32 ``[rows * cols, A]``, raster order."""
        ...


@dataclass(frozen=True)
class Absolute:
    """(row, col), int32 ``[n, 2]``, from 0."""

    def __call__(self, grid: Grid) -> npt.NDArray[np.int32]:
        """See `PositionScheme`."""
        rows, cols = grid
        ids = np.empty((rows, cols, 2), dtype=np.int32)
        ids[..., 0] = np.arange(rows, dtype=np.int32)[:, None]
        ids[..., 1] = np.arange(cols, dtype=np.int32)
        return ids.reshape(rows * cols, 2)


@dataclass(frozen=True)
class Fractional:
    """Positions as a share of the image, float32 ``[n, 2]`` in [0, 1).

    ``(row + c) / rows, (col + c) / cols`` with c = 0, or 1/2 if ``centered``; with ``keep_aspect`` both are divided by
    ``max(rows, cols)``. The last index i = n − 1 maps to (n − 1) / n: the text of the paper, not the label of its figure.

    Attributes:
        keep_aspect: divide both axes by the longer side, so that aspect ratio stays visible.
        centered: patch centres instead of patch corners.
    """

    keep_aspect: bool = False
    centered: bool = False

    def __call__(self, grid: Grid) -> npt.NDArray[np.float32]:
        """See `PositionScheme`."""
        longer = max(grid)
        divisor = np.array([longer, longer] if self.keep_aspect else grid, dtype=np.float32)
        # doubled, so that the half of a centre is an integer too: one division, one rounding
        twice = (2 * Absolute()(Grid(*grid)) + int(self.centered)).astype(np.float32)
        return twice / (2 * divisor)


@dataclass(frozen=True)
class Raster:
    """``row * cols + col``, int32 ``[n, 1]``: the 1-D table of ViT 2010.11929."""

    def __call__(self, grid: Grid) -> npt.NDArray[np.int32]:
        """See `PositionScheme`."""
        return np.arange(grid[0] * grid[1], dtype=np.int32)[:, None]
