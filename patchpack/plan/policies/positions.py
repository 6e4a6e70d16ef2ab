"""Grid to position ids: the place of each patch in its image, in raster order.

Fractions are one correctly rounded float32 division of small integers, never a product of rounded numbers.
Source: NaViT 2307.06304 section 2.1 and figure 4.

The ids of a crop are places in the crop or, with ``of="image"``, places in the whole image at the crop's scale. A mirrored
crop is a crop of the mirrored image: ids count from the left of the mirrored pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_bool
from patchpack.types import Grid


@runtime_checkable
class PositionScheme(Protocol):
    """A rule from one grid to its position ids."""

    def __call__(self, grid: Grid) -> np.ndarray:
        """Return the position ids, int32 or float32 ``[rows * cols, A]``, in raster order."""
        ...


class Window(NamedTuple):
    """The place of a crop on one axis of its image: integers in ``1 / unit`` of a patch, from the image's edge.

    Attributes:
        start: start of the crop's first patch.
        extent: end of the image, or end of the crop's last patch if that is padded beyond the image.
        unit: length of a patch.
    """

    start: int
    extent: int
    unit: int


def window(start: int, length: int, side: int, target: int, count: int, patch_size: int, flip: bool = False) -> Window:
    """Return the window of a crop on one axis.

    ``length`` source pixels become ``target`` pixels, so a patch covers ``patch_size * length / target`` source pixels.

    Args:
        start, length: start and length of the box, in source pixels.
        side: length of the whole source, in pixels.
        target: number of pixels that the box is resampled to.
        count: number of patches.
        patch_size: pixels per side of a patch.
        flip: True if the image is mirrored along this axis. Default False.
    """
    unit = length * patch_size
    end = start * target + count * unit
    extent = max(side * target, end)
    return Window(extent - end if flip else start * target, extent, unit)


@runtime_checkable
class WindowScheme(Protocol):
    """A position scheme that also gives ids in the whole image. It is called where its ``of`` is "image"."""

    @property
    def of(self) -> str:
        """The frame of the ids: "crop" or "image"."""
        ...

    def within(self, grid: Grid, rows: Window, cols: Window) -> np.ndarray:
        """Return the position ids of a crop in the whole image, like `PositionScheme.__call__`.

        Args:
            grid: rows and cols of the crop.
            rows: the crop's place on the vertical axis.
            cols: the crop's place on the horizontal axis.
        """
        ...


def of_image(scheme: object) -> bool:
    """Return True for a scheme whose ids are places in the whole image."""
    return isinstance(scheme, WindowScheme) and scheme.of == "image"


def _require_of(of: str) -> None:
    if of not in ("crop", "image"):
        raise ConfigError(f"of must be 'crop' or 'image', got {of!r}")


@dataclass(frozen=True)
class Absolute:
    """The scheme (row, col), int32 ``[n, 2]``, from 0.

    Attributes:
        of: "crop", the default, or "image". With "image" ids lie on the grid that the whole image has at the crop's scale:
            ``row + floor(top / p')``, and col likewise, where p' is the number of source pixels per patch. For a box of
            height h in an image of height H the row ids are below ``rows * H / h + 1``. A table of positions must hold that
            many.
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

    ``(row + c) / rows, (col + c) / cols`` with c = 0, or 1/2 if ``centered``. With ``keep_aspect`` both are divided by
    ``max(rows, cols)``. The last index i = n − 1 maps to (n − 1) / n. That follows the text of the paper, not the label of
    its figure.

    Attributes:
        keep_aspect: True divides both axes by the longer side, so that the ids show the aspect ratio. Default False.
        centered: True for patch centres, False for patch corners. Default False.
        of: "crop", the default, or "image" for shares of the whole image: ``(top + (row + c) * p') / H``, rounded to float32,
            where p' is the number of source pixels per patch. If a crop at the edge is padded beyond the image, H ends where
            the padding ends, so ids stay below 1.
    """

    keep_aspect: bool = False
    centered: bool = False
    of: Literal["crop", "image"] = "crop"

    def __post_init__(self) -> None:
        require_bool("keep_aspect", self.keep_aspect)
        require_bool("centered", self.centered)
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
    """The scheme ``row * cols + col``, int32 ``[n, 1]``: the 1-D table of ViT 2010.11929."""

    def __call__(self, grid: Grid) -> npt.NDArray[np.int32]:
        """See `PositionScheme`."""
        return np.arange(grid[0] * grid[1], dtype=np.int32)[:, None]
