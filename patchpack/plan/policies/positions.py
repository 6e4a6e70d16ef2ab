"""Grid to position ids: where each patch was in its image, in raster order.

Fractions are one correctly rounded float32 division of small integers, never a product of rounded numbers.
Source: NaViT 2307.06304 section 2.1 and figure 4.

Of a crop, ids are places in the crop or, ``of="image"``, in the image it was cut from, seen at the crop's scale. A mirrored
crop is a crop of the mirrored image: ids count from the left of what the pixels show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.types import Grid


@runtime_checkable
class PositionScheme(Protocol):
    """A rule from one grid to its position ids."""

    def __call__(self, grid: Grid) -> npt.NDArray[Any]:
        """int32 or float32 ``[rows * cols, A]``, raster order."""
        ...


class Window(NamedTuple):
    """Where a crop lies on one axis of its image: integers in ``1 / unit`` of a patch, from the image's edge.

    Attributes:
        start: where the crop's first patch begins.
        extent: where the image ends; the end of the crop's last patch if that is padded beyond.
        unit: of a patch.
    """

    start: int
    extent: int
    unit: int


def window(start: int, length: int, side: int, target: int, count: int, patch_size: int, flip: bool = False) -> Window:
    """The window of a crop on one axis.

    ``length`` source pixels become ``target``, so a patch has ``patch_size * length / target`` of them.

    Args:
        start, length: of the box, in pixels of the source.
        side: of the whole source.
        target: pixels that the length becomes.
        count: patches.
        patch_size: pixels per side of a patch.
        flip: the image is mirrored along this axis.
    """
    unit = length * patch_size
    end = start * target + count * unit
    extent = max(side * target, end)
    return Window(extent - end if flip else start * target, extent, unit)


@runtime_checkable
class WindowScheme(Protocol):
    """What a position scheme may add: ids in the whole image. Asked where its ``of`` is "image"."""

    @property
    def of(self) -> str:
        """ "crop" or "image"."""
        ...

    def within(self, grid: Grid, rows: Window, cols: Window) -> npt.NDArray[Any]:
        """As `PositionScheme`, for the grid of a crop that lies in these windows."""
        ...


def of_image(scheme: Any) -> bool:
    """True for a scheme whose ids are places in the whole image."""
    return isinstance(scheme, WindowScheme) and scheme.of == "image"


def _require_of(of: str) -> None:
    if of not in ("crop", "image"):
        raise ConfigError(f"positions are of the 'crop' or of the 'image', got of={of!r}")


@dataclass(frozen=True)
class Absolute:
    """(row, col), int32 ``[n, 2]``, from 0.

    Attributes:
        of: "crop", or "image" for ids on the grid that the whole image has at the crop's scale: ``row + floor(top / p')``, p'
            the pixels of the source per patch, and likewise col. Of a box of height h in an image of height H they are below
            ``rows * H / h + 1``: a table of positions must hold as many.
    """

    of: Literal["crop", "image"] = "crop"

    def __post_init__(self) -> None:
        _require_of(self.of)

    def __call__(self, grid: Grid) -> npt.NDArray[np.int32]:
        """See `PositionScheme`."""
        rows, cols = grid
        ids = np.empty((rows, cols, 2), dtype=np.int32)
        ids[..., 0] = np.arange(rows, dtype=np.int32)[:, None]
        ids[..., 1] = np.arange(cols, dtype=np.int32)
        return ids.reshape(rows * cols, 2)

    def within(self, grid: Grid, rows: Window, cols: Window) -> npt.NDArray[np.int32]:
        """See `WindowScheme`."""
        first: npt.NDArray[np.int32] = np.array([rows.start // rows.unit, cols.start // cols.unit], dtype=np.int32)
        return self(grid) + first


@dataclass(frozen=True)
class Fractional:
    """Positions as a share of the image, float32 ``[n, 2]`` in [0, 1).

    ``(row + c) / rows, (col + c) / cols`` with c = 0, or 1/2 if ``centered``; with ``keep_aspect`` both are divided by
    ``max(rows, cols)``. The last index i = n − 1 maps to (n − 1) / n: the text of the paper, not the label of its figure.

    Attributes:
        keep_aspect: divide both axes by the longer side, so that aspect ratio stays visible.
        centered: patch centres instead of patch corners.
        of: "crop", or "image" for shares of the whole image: ``(top + (row + c) * p') / H``, p' the pixels of the source per
            patch, rounded to float32. H ends where the padding does, if a crop at the edge is padded beyond: ids stay below 1.
    """

    keep_aspect: bool = False
    centered: bool = False
    of: Literal["crop", "image"] = "crop"

    def __post_init__(self) -> None:
        _require_of(self.of)

    def __call__(self, grid: Grid) -> npt.NDArray[np.float32]:
        """See `PositionScheme`."""
        longer = max(grid)
        divisor = np.array([longer, longer] if self.keep_aspect else grid, dtype=np.float32)
        # doubled, so that the half of a centre is an integer too: one division, one rounding
        twice = (2 * Absolute()(Grid(*grid)) + int(self.centered)).astype(np.float32)
        return twice / (2 * divisor)

    def within(self, grid: Grid, rows: Window, cols: Window) -> npt.NDArray[np.float32]:
        """See `WindowScheme`."""
        ids = np.empty((*grid, 2), dtype=np.float32)
        # sides in patches, as fractions: the longer one divides both
        longer = rows if rows.extent * cols.unit >= cols.extent * rows.unit else cols
        for axis, (count, own) in enumerate(zip(grid, (rows, cols), strict=True)):
            side = longer if self.keep_aspect else own
            # Python's integers and their division: one rounding, however large the pixels
            shares = [
                (2 * own.start + (2 * i + self.centered) * own.unit) * side.unit / (2 * own.unit * side.extent)
                for i in range(count)
            ]
            ids[..., axis] = np.expand_dims(np.array(shares, dtype=np.float32), 1 - axis)
        return ids.reshape(-1, 2)


@dataclass(frozen=True)
class Raster:
    """``row * cols + col``, int32 ``[n, 1]``: the 1-D table of ViT 2010.11929."""

    def __call__(self, grid: Grid) -> npt.NDArray[np.int32]:
        """See `PositionScheme`."""
        return np.arange(grid[0] * grid[1], dtype=np.int32)[:, None]
