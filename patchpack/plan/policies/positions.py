"""Position schemes, which give each patch of a grid its position ids, in raster order.

A fractional id is the quotient of two small integers, correctly rounded to float32. Source: NaViT 2307.06304 section 2.1 and
figure 4.

If an image is cropped, ids are positions in the crop. With ``of="image"`` ids are positions in the whole image, counted in
patches at the scale of the crop. In a mirrored image, ids count from the left of the mirrored pixels.
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
    """A rule that gives the position ids of the patches of a grid."""

    def __call__(self, grid: Grid) -> np.ndarray:
        """Return the position ids, int32 or float32 ``[rows * cols, A]``, in raster order."""
        ...


class Window(NamedTuple):
    """The position of a crop on one axis of its image. All lengths are integers, in a unit in which a patch has length `unit`.

    Attributes:
        start: distance from the edge of the image to the crop's first patch.
        extent: distance from the edge to the end of the image. If the crop's last patch ends further out, distance from the
            edge to the end of this patch.
        unit: length of a patch.
    """

    start: int
    extent: int
    unit: int


def window(start: int, length: int, side: int, target: int, count: int, patch_size: int, flip: bool = False) -> Window:
    """Return the position of a crop on one axis of its image.

    `length` source pixels become `target` pixels, so a patch covers ``patch_size * length / target`` source pixels.

    Args:
        start: first source pixel of the box along the axis.
        length: length of the box along the axis, in source pixels.
        side: length of the whole source, in pixels.
        target: number of pixels that the box is resampled to along the axis.
        count: number of patches along the axis.
        patch_size: pixels per side of a patch.
        flip: True if the image is mirrored along this axis. Default False.
    """
    unit = length * patch_size
    end = start * target + count * unit
    extent = max(side * target, end)
    return Window(extent - end if flip else start * target, extent, unit)


@runtime_checkable
class WindowScheme(Protocol):
    """A position scheme that can also give ids in the whole image. `within` is called if `of` is "image"."""

    @property
    def of(self) -> str:
        """The area to which ids refer: "crop" or "image"."""
        ...

    def within(self, grid: Grid, rows: Window, cols: Window) -> np.ndarray:
        """Return the position ids of a crop's patches in the whole image, in the form of `PositionScheme.__call__`.

        Args:
            grid: rows and columns of patches of the crop.
            rows: the crop's position on the vertical axis.
            cols: the crop's position on the horizontal axis.
        """
        ...


def of_image(scheme: object) -> bool:
    """Return True for a scheme whose ids are positions in the whole image."""
    return isinstance(scheme, WindowScheme) and scheme.of == "image"


def _require_of(of: str) -> None:
    if of not in ("crop", "image"):
        raise ConfigError(f"of must be 'crop' or 'image', got {of!r}")


@dataclass(frozen=True)
class Absolute:
    """The position scheme with the ids (row, col), counted from 0, as int32 ``[n, 2]``.

    Attributes:
        of: area to which ids refer, "crop" (default) or "image". With "image", ``floor(top / p')`` is added to the row, and
            ``floor(left / p')`` to the column. p' is the number of source pixels per patch. If the crop has height h in an
            image of height H, row ids are below ``rows * H / h + 1``. A model's table of positions must be long enough for
            these ids.
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
    """The position scheme whose ids are fractions of the sides of the image, as float32 ``[n, 2]`` in [0, 1).

    The ids are ``(row + c) / rows`` and ``(col + c) / cols``, with c = 0, or c = 1/2 if `centered`. With c = 0, the last of n
    rows has the id (n − 1) / n, as in the text of the paper. The label in the paper's figure differs.

    Attributes:
        keep_aspect: True divides both ids by ``max(rows, cols)``, so that they show the aspect ratio. Default False.
        centered: True for the centres of patches, False for their top left corners. Default False.
        of: area to which ids refer, "crop" (default) or "image". With "image" the ids are fractions of the whole image:
            ``(top + (row + c) * p') / H``, rounded to float32, where p' is the number of source pixels per patch. If the crop
            is padded beyond the image, H includes the padding, so ids stay below 1.
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
        # doubled, so that centres (halves) are integers too: one division, one rounding
        twice = (2 * Absolute()(Grid(*grid)) + int(self.centered)).astype(np.float32)
        return twice / (2 * divisor)

    def within(self, grid: Grid, rows: Window, cols: Window) -> npt.NDArray[np.float32]:
        """See `WindowScheme`."""
        ids = np.empty((*grid, 2), dtype=np.float32)
        # sides in patches, as fractions: the longer side divides both ids
        longer = rows if rows.extent * cols.unit >= cols.extent * rows.unit else cols
        for axis, (count, own) in enumerate(zip(grid, (rows, cols), strict=True)):
            side = longer if self.keep_aspect else own
            # Python's integers: the division rounds once, however many pixels there are
            shares = [
                (2 * own.start + (2 * i + self.centered) * own.unit) * side.unit / (2 * own.unit * side.extent)
                for i in range(count)
            ]
            ids[..., axis] = np.expand_dims(np.array(shares, dtype=np.float32), 1 - axis)
        return ids.reshape(-1, 2)


@dataclass(frozen=True)
class Raster:
    """The position scheme with id ``row * cols + col``, int32 ``[n, 1]``. It suits the 1-D position table of ViT 2010.11929."""

    def __call__(self, grid: Grid) -> npt.NDArray[np.int32]:
        """See `PositionScheme`."""
        return np.arange(grid[0] * grid[1], dtype=np.int32)[:, None]
