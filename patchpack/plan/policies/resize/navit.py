"""The resize policy of NaViT: the resolution is drawn for each image, and the aspect ratio is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from patchpack._arrays import Int64Array
from patchpack.errors import ConfigError
from patchpack.plan._integers import columns, grid_of, isqrt, require_int, require_number, set_tuples
from patchpack.plan.policies import quantile
from patchpack.types import FloatArray, IntArray

MAX_RESOLUTION = 1 << 15  # areas stay below 2**30, so area * side fits int64


@dataclass(frozen=True)
class NaViT:
    """A size with the area of an r x r square and the aspect ratio of the image. Sides are rounded down to whole patches.

    ``h' = r * sqrt(h / w)``, ``w' = r * sqrt(w / h)``, rows = floor(h' / p), evaluated exactly as
    ``rows = isqrt(A * h // (w * p**2))`` with the integer area ``A = floor(r**2)``. A side under one patch becomes one patch,
    and the other side is then at most ``max(1, A // p**2)`` patches. Source: NaViT 2307.06304 section 2.1 and figure 7. The
    paper does not say how a side is rounded. Rounding down reproduces the paper's table 2.

    Attributes:
        resolution: r in pixels, or a range (lowest, highest) from which r is drawn for each image. Default (64, 256).
        sampling: distribution from which r is drawn. ``"uniform"`` is the default. ``"normal"`` draws from a normal
            distribution truncated to [−1, 1], and maps the drawn number linearly to the range.
        mean: mean of the normal distribution before truncation. Default −0.5, which makes small images more frequent, and was
            the best mean in the paper.
        std: standard deviation of the normal distribution before truncation. Default 1.
        on: quantity that is drawn: ``"side"`` (default, as in the paper) draws r, ``"area"`` draws r².
        eval_resolution: fixed r in pixels that `for_eval` uses. Default None, the highest r of the range.
    """

    resolution: int | tuple[int, int] = (64, 256)
    sampling: Literal["uniform", "normal"] = "uniform"
    mean: float = -0.5
    std: float = 1.0
    on: Literal["side", "area"] = "side"
    eval_resolution: int | None = None

    def __post_init__(self) -> None:
        set_tuples(self, "resolution")
        if isinstance(self.resolution, tuple) and len(self.resolution) != 2:
            raise ConfigError(f"resolution must be a number of pixels, or the lowest and the highest, got {self.resolution!r}")
        low, high = self.range
        for side in (low, high):
            require_int("resolution", side, 1, MAX_RESOLUTION)
        if low > high:
            raise ConfigError(f"resolution must be a range with lowest <= highest, got {self.resolution!r}")
        if self.eval_resolution is not None:
            require_int("eval_resolution", self.eval_resolution, 1, MAX_RESOLUTION)
        if isinstance(self.sampling, int):
            raise ConfigError(
                f"a range of resolutions is a pair: NaViT(({self.resolution}, {self.sampling})), got two arguments"
            )
        if self.sampling not in ("uniform", "normal"):
            raise ConfigError(f"sampling must be 'uniform' or 'normal', got {self.sampling!r}")
        if self.on not in ("side", "area"):
            raise ConfigError(f"on must be 'side' or 'area', got {self.on!r}")
        require_number("mean", self.mean)
        require_number("std", self.std)
        if not self.std > 0:
            raise ConfigError(f"std must be > 0, got {self.std}")

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest r in pixels."""
        return self.resolution if isinstance(self.resolution, tuple) else (self.resolution, self.resolution)

    @property
    def draws(self) -> int:
        """Number of uniform random draws per image: 1, or 0 for a fixed resolution."""
        return 0 if self.range[0] == self.range[1] else 1

    def bound(self, patch_size: int) -> int:
        """Return ``max(1, highest**2 // p**2)``.

        Proof: rows * cols <= sqrt(A h / (w p²)) * sqrt(A w / (h p²)) = A / p². If a side is under one patch, the limit stated
        in `NaViT` holds.
        """
        return max(1, self.range[1] ** 2 // patch_size**2)

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None = None) -> IntArray:
        """See `ResizePolicy`."""
        h, w = columns(sizes)
        area, patch_area = self._areas(len(h), u), patch_size**2
        rows, cols = isqrt(area * h // (w * patch_area)), isqrt(area * w // (h * patch_area))
        cap = np.maximum(1, area // patch_area)
        thin_rows, thin_cols = rows == 0, cols == 0
        rows = np.where(thin_cols, np.minimum(rows, cap), rows)
        cols = np.where(thin_rows, np.minimum(cols, cap), cols)
        return grid_of(np.maximum(rows, 1), np.maximum(cols, 1))

    def for_eval(self, patch_size: int, max_patches: int | None = None) -> NaViT:
        """Return the policy at a fixed resolution: `eval_resolution`, or the largest r with at most `max_patches` patches."""
        fixed = self.eval_resolution or self.range[1]
        if max_patches is not None:
            fixed = max(1, math.isqrt(max_patches * patch_size**2))
        return replace(self, resolution=fixed)

    def _areas(self, n: int, u: FloatArray | None) -> Int64Array:
        """Return the area ``A = floor(r**2)`` for each image, int64 ``[n]``."""
        low, high = self.range
        if not self.draws:
            return np.full(n, high * high, dtype=np.int64)
        if u is None:
            raise ConfigError("a resolution range draws one uniform per image: pass u, float64 [n, 1]")
        unit = u[:, 0]
        if self.sampling == "normal":
            unit = (quantile.truncated_normal(unit, self.mean, self.std, -1.0, 1.0) + 1) / 2
        if self.on == "area":
            return (low**2 + unit * (high**2 - low**2)).astype(np.int64)
        return ((low + unit * (high - low)) ** 2).astype(np.int64)
