"""Resize policies that do not search for a scale: a fixed square, a longest side, or the image's own resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import ceil_div, columns, grid_of, require_bool, require_int
from patchpack.plan.policies.resize.budget import MAX_BUDGET, Pix2Struct
from patchpack.types import FloatArray, IntArray

MAX_SIDE = 1 << 20  # so that a product of two sides fits int64


@dataclass(frozen=True)
class Square:
    """The grid of ``size x size`` pixels for every image. ViT uses 224 or 384 pixels. FlexiViT uses 240 at every patch size.

    Source: ViT 2010.11929 section 3.1; FlexiViT 2212.08013 section 3.1 (grid = image // patch size).

    Attributes:
        size: pixels per side of the square, a multiple of every patch size of the recipe.
    """

    size: int
    draws = 0

    def __post_init__(self) -> None:
        require_int("size", self.size, 1, MAX_SIDE)

    def bound(self, patch_size: int) -> int:
        """Return ``(size / patch_size)**2``. Raise `ConfigError` if `patch_size` does not divide `size`."""
        if self.size % patch_size:
            raise ConfigError(f"Square's size must be a multiple of patch_size={patch_size}, got {self.size}")
        return (self.size // patch_size) ** 2

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None = None) -> IntArray:
        """See `ResizePolicy`."""
        self.bound(patch_size)
        side = np.full(len(columns(sizes)[0]), self.size // patch_size)
        return grid_of(side, side)


@dataclass(frozen=True)
class LongestSide:
    """A limit on the longer side. A longer image is shrunk to the limit, then sides are rounded up to whole patches (Pixtral).

    Let ``r = max(h, w) / longest``. If r > 1, then ``h = floor(h / r)`` and ``w = floor(w / r)``. In both cases
    ``rows = ceil(h / p)``, at least 1, and cols likewise. The floor is exact, in integers: ``floor(h * longest / max(h, w))``.
    Source: Pixtral 12B (p 16, longest 1024).

    Attributes:
        longest: largest length of the longer side, in pixels.
        upscale: True also scales smaller images up, to a longer side of `longest` pixels. Default False.
    """

    longest: int
    upscale: bool = False
    draws = 0

    def __post_init__(self) -> None:
        require_int("longest", self.longest, 1, MAX_SIDE)
        require_bool("upscale", self.upscale)

    def bound(self, patch_size: int) -> int:
        """Return ``ceil(longest / patch_size)**2``, because both sides have at most `longest` pixels."""
        return int(ceil_div(self.longest, patch_size)) ** 2

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None = None) -> IntArray:
        """See `ResizePolicy`."""
        h, w = columns(sizes)
        longer = np.maximum(h, w)
        scaled = np.ones_like(longer, dtype=bool) if self.upscale else longer > self.longest
        rows, cols = (
            np.maximum(1, ceil_div(np.where(scaled, side * self.longest // longer, side), patch_size)) for side in (h, w)
        )
        return grid_of(rows, cols)


@dataclass(frozen=True)
class Native:
    """The image at its own resolution. An image is resampled only if it has more patches than the budget.

    Attributes:
        max_patches: budget of one image in patches, >= 1.
        edge: treatment of sides that are not multiples of the patch size. ``"crop"`` (default) keeps the central
            ``floor(h / p) x floor(w / p)`` patches, and pads a side shorter than a patch with 0. ``"pad"`` keeps every pixel,
            in ``ceil(h / p) x ceil(w / p)`` patches, and pads with 0 at the right and at the bottom.
        oversize: treatment of an image over the budget. ``"shrink"`` (default) resizes it to the grid of
            ``Pix2Struct(max_patches, exact=True)``. ``"reject"`` refuses it.
    """

    max_patches: int
    edge: Literal["crop", "pad"] = "crop"
    oversize: Literal["shrink", "reject"] = "shrink"
    draws = 0

    def __post_init__(self) -> None:
        require_int("max_patches", self.max_patches, 1, MAX_BUDGET)
        if self.edge not in ("crop", "pad") or self.oversize not in ("shrink", "reject"):
            raise ConfigError(
                f"edge must be 'crop' or 'pad', oversize 'shrink' or 'reject', got {self.edge!r} and {self.oversize!r}"
            )

    def bound(self, patch_size: int) -> int:
        """Return `max_patches`. An image with more patches is shrunk to a `Pix2Struct` grid within the budget, or refused."""
        return self.max_patches

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None = None) -> IntArray:
        """See `ResizePolicy`."""
        native = self._native(sizes, patch_size)
        over = native.prod(axis=1, dtype=np.int64)[:, None] > self.max_patches
        if self.oversize == "reject":
            return np.where(over, np.int32(0), native)
        return np.where(over, Pix2Struct(self.max_patches, exact=True)(sizes, patch_size), native)

    def place(self, sizes: npt.ArrayLike, grids: IntArray, patch_size: int) -> tuple[IntArray, IntArray]:
        """See `PlacingPolicy`. An image that fits is not resampled. An image over the budget is read whole."""
        whole = np.stack(columns(sizes), axis=1)
        covered = np.asarray(grids, dtype=np.int64) * patch_size
        fits = np.all(grids == self._native(sizes, patch_size), axis=1)[:, None]
        part = np.minimum(whole, covered)  # equals the whole side if the edge is padded
        corner = np.where(fits, (whole - part) // 2, 0)
        extent = np.where(fits, part, whole)
        target = np.where(fits, part, covered)
        return np.concatenate([corner, extent], axis=1).astype(np.int32), target.astype(np.int32)

    def _native(self, sizes: npt.ArrayLike, patch_size: int) -> IntArray:
        h, w = columns(sizes)
        if self.edge == "pad":
            return grid_of(ceil_div(h, patch_size), ceil_div(w, patch_size))
        return grid_of(np.maximum(1, h // patch_size), np.maximum(1, w // patch_size))
