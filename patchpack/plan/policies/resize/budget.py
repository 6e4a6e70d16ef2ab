"""Resize policies that fill a budget of patches: `Pix2Struct` rounds down, `NaFlex` rounds up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, ceil_div, columns, grid_of, isqrt, require_bool, require_int
from patchpack.types import FloatArray, IntArray

MAX_BUDGET = 1 << 24
NAFLEX_MAX_SCALE = 100
NAFLEX_EPS = 1e-5
_HALVINGS = 24  # 100 / 2**23 is above NAFLEX_EPS, 100 / 2**24 below, for every image


@dataclass(frozen=True)
class Pix2Struct:
    """The resize policy of Pix2Struct: as many whole patches as the budget allows at the image's aspect ratio.

    Images are scaled up or down. With M = max_patches: ``scale = sqrt(M * (p / h) * (p / w))`` and
    ``rows = clamp(floor(scale * h / p), 1, M)``, and cols likewise. Source: Pix2Struct 2210.03347,
    google-research/pix2struct ``preprocessors.py``.

    Attributes:
        max_patches: budget of one image in patches, >= 1.
        exact: False (default) evaluates the published formula in float64, and equals the original code bit for bit. True
            evaluates ``rows = clamp(isqrt(M * h // w), 1, M)`` in integers. With True no row is lost to rounding if
            ``sqrt(M * h / w)`` is an integer: 224 x 224 pixels at p = 16 and M = 25 give 5 x 5 patches, not 4 x 4.
    """

    max_patches: int
    exact: bool = False
    draws = 0

    def __post_init__(self) -> None:
        require_int("max_patches", self.max_patches, 1, MAX_BUDGET)
        require_bool("exact", self.exact)

    def bound(self, patch_size: int) -> int:
        """Return `max_patches`. Proof: ``floor(x) * floor(y) <= x * y = M``. If one side is clamped to 1, the other is <= M."""
        return self.max_patches

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None = None) -> IntArray:
        """See `ResizePolicy`."""
        h, w = columns(sizes)
        if self.exact:
            rows, cols = isqrt(self.max_patches * h // w), isqrt(self.max_patches * w // h)
        else:
            # operations in the order of the original code: another order rounds differently
            scale = np.sqrt(self.max_patches * (patch_size / h) * (patch_size / w))
            rows, cols = np.floor(scale * h / patch_size), np.floor(scale * w / patch_size)
        return grid_of(np.clip(rows, 1, self.max_patches), np.clip(cols, 1, self.max_patches))


@dataclass(frozen=True)
class NaFlex:
    """The resize policy of SigLIP 2 NaFlex and timm NaFlex: the largest scale whose grid, rounded up, fits the budget.

    ``s* = max { s <= 100 : ceil(s * h / p) * ceil(s * w / p) <= N }``, rows = ceil(s* * h / p), and cols likewise.
    Source: big_vision ``pp/proj/image_text/ops_naflex.py``.

    Attributes:
        max_patches: budget N of one image in patches, >= 1.
        upscale: False keeps the grid ``ceil(h / p) x ceil(w / p)`` of an image that already fits (timm ``max_ratio=1``).
            Default True.
        search: the method that finds s*. ``"exact"``, the default, relies on the fact that rows or cols grow by one just above
            s*. So s* is ``k * p / h`` or ``l * p / w``, for the largest feasible k or l. ``"bisection"`` halves the interval
            1e-6 … 100 in float64 until it is shorter than 1e-5. transformers and timm do the same, so the sizes are equal bit
            for bit. The search ends just below s*. About one image in 6,000, with sides of thousands of pixels, therefore loses
            a row or a column. (big_vision bisects in float32.)
    """

    max_patches: int
    upscale: bool = True
    search: Literal["exact", "bisection"] = "exact"
    draws = 0

    def __post_init__(self) -> None:
        require_int("max_patches", self.max_patches, 1, MAX_BUDGET)
        require_bool("upscale", self.upscale)
        if self.search not in ("exact", "bisection"):
            raise ConfigError(f"search must be 'exact' or 'bisection', got {self.search!r}")

    def bound(self, patch_size: int) -> int:
        """Return `max_patches`. Proof: every search checks that the grid fits the budget, and a 1 x 1 grid always fits."""
        return self.max_patches

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None = None) -> IntArray:
        """See `ResizePolicy`."""
        h, w = columns(sizes)
        return self._bisected(h, w, patch_size) if self.search == "bisection" else self._exact(h, w, patch_size)

    def _exact(self, h: Int64, w: Int64, patch_size: int) -> IntArray:
        k, l = self._largest(np.array([h, w]), np.array([w, h]))  # noqa: E741
        by_rows = k * w >= l * h  # k / h >= l / w
        rows = np.where(by_rows, k, ceil_div(l * h, w))
        cols = np.where(by_rows, ceil_div(k * w, h), l)
        capped = np.where(by_rows, k * patch_size > NAFLEX_MAX_SCALE * h, l * patch_size > NAFLEX_MAX_SCALE * w)
        if capped.any():
            rows = np.where(capped, ceil_div(NAFLEX_MAX_SCALE * h, patch_size), rows)
            cols = np.where(capped, ceil_div(NAFLEX_MAX_SCALE * w, patch_size), cols)
        if not self.upscale:
            native_rows, native_cols = ceil_div(h, patch_size), ceil_div(w, patch_size)
            fits = native_rows * native_cols <= self.max_patches
            rows, cols = np.where(fits, native_rows, rows), np.where(fits, native_cols, cols)
        return grid_of(rows, cols)

    def _bisected(self, h: Int64, w: Int64, patch_size: int) -> IntArray:
        # operations in the order of the original code: another order rounds differently
        sides = np.array([h, w], dtype=np.float64)
        low, high = np.full(len(h), NAFLEX_EPS / 10), np.full(len(h), float(NAFLEX_MAX_SCALE))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            rows, cols = np.ceil(sides * middle / patch_size)
            fits = rows * cols <= self.max_patches
            np.copyto(low, middle, where=fits)
            np.copyto(high, middle, where=~fits)
        rows, cols = np.ceil(sides * (low if self.upscale else np.minimum(low, 1.0)) / patch_size)
        grids = grid_of(rows, cols)
        over = rows * cols > self.max_patches
        if over.any():  # an image a million pixels long: the original code exceeds the budget, or raises an error
            grids[over] = self._exact(h[over], w[over], patch_size)
        return grids

    def _largest(self, along: Int64, across: Int64) -> Int64:
        """Return the largest k with ``k * ceil(k * across / along) <= N``, or 0 if there is no such k.

        The product grows with k. With r = across / along and x = sqrt(N / r) the product is at least k² r, so k <= x. It is
        below k² r + k, so every integer k <= x - 1 / (2 r) is feasible. The search is between these two limits. It takes one
        step if along < 2 * across.
        """
        budget = self.max_patches
        high = np.minimum(isqrt(budget * along // across), budget)
        low: Int64 = np.maximum(high - along // (2 * across) - 1, 0)
        while (low < high).any():
            k = (low + high + 1) // 2
            fits = k * ceil_div(k * across, along) <= budget
            low, high = np.where(fits, k, low), np.where(fits, high, k - 1)
        return low
