"""Crop policies, which choose the part of each image that is read. The resize policy then receives the size of that part.

A box is (top, left, height, width) in source pixels after orientation. It has at least one pixel and lies within the image. Two
random draws u choose the position of the box: ``top = floor(u * (H − height + 1))``, and left in the same way. So all positions
are equally likely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchpack._arrays import IndexArray
from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, ceil_div, columns, require_int, set_tuples
from patchpack.plan.policies.resize import Pix2Struct
from patchpack.plan.policies.resize.budget import MAX_BUDGET
from patchpack.types import FloatArray, IntArray

Number = TypeVar("Number", int, float)
TRIES = 10


@runtime_checkable
class CropPolicy(Protocol):
    """A rule that chooses a box from the size of an image, without its pixels.

    Row i of the result depends on row i of the input alone.
    """

    @property
    def draws(self) -> int:
        """Number of uniform random draws per image, 0 for a policy that does not draw."""
        ...

    def __call__(self, sizes: npt.NDArray[np.int64], patch_size: int, u: FloatArray | None) -> IntArray:
        """Return the box of each image.

        Args:
            sizes: int ``[n, 2]``, (height, width) of each image in pixels, >= 1.
            patch_size: pixels per side of a patch, >= 1.
            u: float64 ``[n, draws]``, uniform random draws in [0, 1), or None if `draws` is 0.

        Returns:
            Integers ``[n, 4]``, (top, left, height, width) of each box. A box lies within its image, and has sides of at least
            one pixel.
        """
        ...


@dataclass(frozen=True)
class WholeImage:
    """The crop policy that reads the whole image."""

    draws = 0

    def __call__(self, sizes: npt.ArrayLike, patch_size: int = 0, u: FloatArray | None = None) -> IntArray:
        """Return ``(0, 0, height, width)`` for each size.

        Args:
            sizes: int ``[n, 2]``, (height, width) of each image in pixels, >= 1.
            patch_size: not used.
            u: not used, because this policy does not draw.
        """
        h, w = columns(sizes)
        return _boxes(np.zeros_like(h), np.zeros_like(h), h, w)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A box of random area, aspect ratio and position: Inception's crop, as torchvision implements it.

    ``area = H * W * U(scale)``, ``aspect = exp(U(log ratio))`` (width / height), ``width = round(sqrt(area * aspect))``,
    ``height = round(sqrt(area / aspect))``. Up to ten such pairs (width, height) are drawn, and the first that fits the image
    is used. If no pair fits, the box is the largest central box whose aspect ratio is in the range. Its sides are rounded to
    the nearest pixel, halves to even. Source: Szegedy et al. 1409.4842 section 6, and torchvision ``RandomResizedCrop``.

    Random draws 0 and 1 choose the position. Random draws ``2 + 2k`` and ``3 + 2k`` give area and aspect of try k. The size of
    the box therefore does not depend on its position.

    Attributes:
        scale: lowest and highest share of the image's area that the box covers, in (0, 1]. Default 0.08 and 1.
        ratio: lowest and highest aspect ratio (width / height) of the box, > 0. Default 3/4 and 4/3.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    draws = 2 + 2 * TRIES

    def __post_init__(self) -> None:
        set_tuples(self, "scale", "ratio")
        (low, high), (thin, wide) = _pair("scale", self.scale), _pair("ratio", self.ratio)
        if not 0 < low <= high <= 1:
            raise ConfigError(f"scale must be a range of shares of the area, 0 < lowest <= highest <= 1, got {self.scale!r}")
        if not 0 < thin <= wide < math.inf:
            raise ConfigError(f"ratio must be a range of width / height, 0 < lowest <= highest, got {self.ratio!r}")

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None) -> IntArray:
        """See `CropPolicy`."""
        u = _drawn(u, self.draws)
        h, w = columns(sizes)
        height, width = self._central(h, w)
        open_ = np.arange(len(h))  # images for which no try has fitted so far: few remain after the second try
        for k in range(TRIES):
            if not len(open_):
                break
            most_high, most_wide = h[open_], w[open_]
            tall, wide = self._try(most_high, most_wide, u[open_, 2 + 2 * k], u[open_, 3 + 2 * k])
            fits = (tall >= 1) & (wide >= 1) & (tall <= most_high) & (wide <= most_wide)
            height[open_[fits]], width[open_[fits]] = tall[fits], wide[fits]
            open_ = open_[~fits]
        return _placed(h, w, height, width, u, centred=open_)

    def _try(self, h: Int64, w: Int64, unit_area: FloatArray, unit_aspect: FloatArray) -> tuple[Int64, Int64]:
        (low, high), (thin, wide) = self.scale, self.ratio
        area = h.astype(np.float64) * w * (low + unit_area * (high - low))
        aspect = np.exp(math.log(thin) + unit_aspect * (math.log(wide) - math.log(thin)))
        return np.rint(np.sqrt(area / aspect)).astype(np.int64), np.rint(np.sqrt(area * aspect)).astype(np.int64)

    def _central(self, h: Int64, w: Int64) -> tuple[Int64, Int64]:
        """Return the sides of the largest box in the range of aspect ratios, at least one pixel each."""
        thin, wide = self.ratio
        height = np.where(w / h < thin, np.rint(w / thin).astype(np.int64), h)
        width = np.where(w / h > wide, np.rint(h * wide).astype(np.int64), w)
        return np.clip(height, 1, h), np.clip(width, 1, w)


@dataclass(frozen=True)
class RandomCrop:
    """A box of fixed size at a random position. If a side of the image is shorter than the box, the whole side is read.

    Attributes:
        size: pixels per side of a square box, or (height, width) in pixels.
    """

    size: int | tuple[int, int]
    draws = 2

    def __post_init__(self) -> None:
        set_tuples(self, "size")
        for side in self._sides:
            require_int("size", side, 1, 1 << 20)

    @property
    def _sides(self) -> tuple[int, int]:
        return _pair("size", self.size) if isinstance(self.size, tuple) else (self.size, self.size)

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None) -> IntArray:
        """See `CropPolicy`."""
        h, w = columns(sizes)
        height, width = self._sides
        return _placed(h, w, np.minimum(height, h), np.minimum(width, w), _drawn(u, self.draws))


@dataclass(frozen=True)
class BudgetCrop:
    """A box at a random position. It has the image's aspect ratio, and at most `max_patches` patches of source pixels.

    M is `max_patches` and p is the patch size. An image with at most M patches, ``ceil(H / p) * ceil(W / p)``, is read whole.
    For a larger image ``height = min(H, p * clamp(isqrt(M * H // W), 1, M))``, and width in the same way. This box has at most
    M patches (see the proof in `Pix2Struct.bound`). With `Native` as the resize policy, the box is not resampled. Without the
    crop, `Native` would shrink the larger image.

    Attributes:
        max_patches: budget of one image in patches, >= 1.
    """

    max_patches: int
    draws = 2

    def __post_init__(self) -> None:
        require_int("max_patches", self.max_patches, 1, MAX_BUDGET)

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None) -> IntArray:
        """See `CropPolicy`."""
        h, w = columns(sizes)
        fits = ceil_div(h, patch_size) * ceil_div(w, patch_size) <= self.max_patches
        rows, cols = columns(Pix2Struct(self.max_patches, exact=True)(sizes, patch_size))
        height, width = np.minimum(h, rows * patch_size), np.minimum(w, cols * patch_size)
        return _placed(h, w, np.where(fits, h, height), np.where(fits, w, width), _drawn(u, self.draws))


def _placed(h: Int64, w: Int64, height: Int64, width: Int64, u: FloatArray, centred: IndexArray | tuple[()] = ()) -> IntArray:
    """Return boxes with sides `height` and `width`. The first two draws in `u` place a box.

    A box whose index is in `centred` is placed in the centre.
    """
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


def _pair(name: str, value: tuple[Number, Number]) -> tuple[Number, Number]:
    try:
        low, high = value
        low < high  # noqa: B015  numbers, at least
    except (TypeError, ValueError):
        raise ConfigError(f"{name} must be a pair of numbers, got {value!r}") from None
    return low, high
