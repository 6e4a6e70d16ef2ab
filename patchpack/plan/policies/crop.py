"""Sizes to boxes: which part of an image is read. The resize policy is then given the size of that part.

Boxes are (top, left, height, width) in oriented source pixels, never empty, never outside. Of the two draws for the place,
``top = floor(u * (H − height + 1))``, left likewise: every place is as likely as the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, ceil_div, columns, require_int
from patchpack.plan.policies.resize import Pix2Struct
from patchpack.plan.policies.resize.budget import MAX_BUDGET
from patchpack.types import FloatArray, IntArray

TRIES = 10


@runtime_checkable
class CropPolicy(Protocol):
    """A rule from sizes to boxes. Numbers only; row i of the answer depends on row i of the input alone."""

    @property
    def draws(self) -> int:
        """Uniforms wanted per image, 0 if none."""
        ...

    def __call__(self, sizes: npt.NDArray[np.int64], patch_size: int, u: FloatArray | None) -> IntArray:
        """Boxes for sizes.

        Args:
            sizes: int ``[n, 2]`` (height, width) in pixels, >= 1.
            patch_size: pixels per side of a patch, >= 1.
            u: float64 ``[n, draws]`` in [0, 1), or None when ``draws == 0``.

        Returns:
            integers ``[n, 4]`` (top, left, height, width), within the image, at least a pixel each way.
        """
        ...


@dataclass(frozen=True)
class WholeImage:
    """Nothing is cut off."""

    draws = 0

    def __call__(self, sizes: Any, patch_size: int = 0, u: FloatArray | None = None) -> IntArray:
        """``(0, 0, height, width)``."""
        h, w = columns(sizes)
        return _boxes(np.zeros_like(h), np.zeros_like(h), h, w)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A part of random area and aspect ratio at a random place: Inception's crop, as torchvision has it.

    ``area = H * W * U(scale)``, ``aspect = exp(U(log ratio))`` (width / height), ``width = round(sqrt(area * aspect))``,
    ``height = round(sqrt(area / aspect))``. The first of ten such pairs that fits the image is taken. Where none does, the
    largest central box whose aspect ratio is in the range, to the nearest pixel. Halves are rounded to even.
    Source: Szegedy et al. 1409.4842 section 6; torchvision ``RandomResizedCrop``.

    Draws 0 and 1 are the place, ``2 + 2k`` and ``3 + 2k`` area and aspect of try k: what fits does not depend on the place.

    Attributes:
        scale: lowest and highest share of the image's area, in (0, 1].
        ratio: lowest and highest width / height, > 0.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    draws = 2 + 2 * TRIES

    def __post_init__(self) -> None:
        (low, high), (thin, wide) = _pair("scale", self.scale), _pair("ratio", self.ratio)
        if not 0 < low <= high <= 1:
            raise ConfigError(f"scale is a range of shares of the area, 0 < lowest <= highest <= 1; got {self.scale!r}")
        if not 0 < thin <= wide < math.inf:
            raise ConfigError(f"ratio is a range of width / height, 0 < lowest <= highest; got {self.ratio!r}")

    def __call__(self, sizes: Any, patch_size: int, u: FloatArray | None) -> IntArray:
        """See `CropPolicy`."""
        u = _drawn(u, self.draws)
        h, w = columns(sizes)
        height, width = self._central(h, w)
        open_ = np.arange(len(h))  # rows that no try has fitted yet: few are left after the second
        for k in range(TRIES):
            if not len(open_):
                break
            most_high, most_wide = h[open_], w[open_]
            tall, wide = self._try(most_high, most_wide, u[open_, 2 + 2 * k], u[open_, 3 + 2 * k])
            fits = (tall >= 1) & (wide >= 1) & (tall <= most_high) & (wide <= most_wide)
            height[open_[fits]], width[open_[fits]] = tall[fits], wide[fits]
            open_ = open_[~fits]
        return _placed(h, w, height, width, u, centred=open_)

    def _try(self, h: Int64, w: Int64, unit_area: FloatArray, unit_aspect: FloatArray) -> tuple[Any, Any]:
        (low, high), (thin, wide) = self.scale, self.ratio
        area = h.astype(np.float64) * w * (low + unit_area * (high - low))
        aspect = np.exp(math.log(thin) + unit_aspect * (math.log(wide) - math.log(thin)))
        return np.rint(np.sqrt(area / aspect)).astype(np.int64), np.rint(np.sqrt(area * aspect)).astype(np.int64)

    def _central(self, h: Int64, w: Int64) -> tuple[Int64, Int64]:
        """Sides of the largest box in the range of aspect ratios, at least a pixel."""
        thin, wide = self.ratio
        height = np.where(w / h < thin, np.rint(w / thin).astype(np.int64), h)
        width = np.where(w / h > wide, np.rint(h * wide).astype(np.int64), w)
        return np.clip(height, 1, h), np.clip(width, 1, w)


@dataclass(frozen=True)
class RandomCrop:
    """``size x size`` pixels at a random place; a side that is shorter stays whole.

    Attributes:
        size: pixels per side, or (height, width).
    """

    size: int | tuple[int, int]
    draws = 2

    def __post_init__(self) -> None:
        for side in self._sides:
            require_int("size", side, 1, 1 << 20)

    @property
    def _sides(self) -> tuple[int, int]:
        return _pair("size", self.size) if isinstance(self.size, tuple) else (self.size, self.size)

    def __call__(self, sizes: Any, patch_size: int, u: FloatArray | None) -> IntArray:
        """See `CropPolicy`."""
        h, w = columns(sizes)
        height, width = self._sides
        return _placed(h, w, np.minimum(height, h), np.minimum(width, w), _drawn(u, self.draws))


@dataclass(frozen=True)
class BudgetCrop:
    """As many whole patches of source pixels as the budget allows, at a random place, in the image's aspect ratio.

    An image of at most M = max_patches patches (``ceil(H / p) * ceil(W / p)``) stays whole. Of others,
    ``height = min(H, p * clamp(isqrt(M * H // W), 1, M))``, width likewise: at most M patches, by `Pix2Struct`'s proof. With
    `Native` after it no pixel is resampled, where `Native` alone would shrink the image.

    Attributes:
        max_patches: budget of one image.
    """

    max_patches: int
    draws = 2

    def __post_init__(self) -> None:
        require_int("max_patches", self.max_patches, 1, MAX_BUDGET)

    def __call__(self, sizes: Any, patch_size: int, u: FloatArray | None) -> IntArray:
        """See `CropPolicy`."""
        h, w = columns(sizes)
        fits = ceil_div(h, patch_size) * ceil_div(w, patch_size) <= self.max_patches
        rows, cols = columns(Pix2Struct(self.max_patches, exact=True)(sizes, patch_size))
        height, width = np.minimum(h, rows * patch_size), np.minimum(w, cols * patch_size)
        return _placed(h, w, np.where(fits, h, height), np.where(fits, w, width), _drawn(u, self.draws))


def _placed(h: Int64, w: Int64, height: Int64, width: Int64, u: FloatArray, centred: Any = ()) -> IntArray:
    """Boxes of these sides, placed by the first two draws, some in the middle."""
    top = (u[:, 0] * (h - height + 1)).astype(np.int64)
    left = (u[:, 1] * (w - width + 1)).astype(np.int64)
    if len(centred):
        top[centred], left[centred] = ((h - height) // 2)[centred], ((w - width) // 2)[centred]
    return _boxes(top, left, height, width)


def _boxes(*sides: Int64) -> IntArray:
    return np.stack(sides, axis=1).astype(np.int32)


def _drawn(u: FloatArray | None, draws: int) -> FloatArray:
    if u is None:
        raise ConfigError(f"this crop policy draws {draws} uniforms per image: pass u, float64 [n, {draws}]")
    return u


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    try:
        low, high = value
        low < high  # noqa: B015  numbers, at least
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is a pair of numbers, got {value!r}") from None
    return low, high
