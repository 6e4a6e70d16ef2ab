"""Qwen's smart resize: both sides are multiples of a factor, and the area is between two limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import columns, grid_of, require_number
from patchpack.types import FloatArray, IntArray

MAX_ASPECT = 200


@dataclass(frozen=True)
class SmartResize:
    """Sides rounded to multiples of ``f = patch_size * merge``. An image with too many or too few pixels is scaled.

    In the formulas, min is `min_pixels` and max is `max_pixels`. ``H = rint(h / f) * f`` (half to even), and W likewise. If ``H
    * W > max``, then ``H = max(f, floor(h / b / f) * f)`` with ``b = sqrt(h * w / max)``, and W likewise. If ``H * W < min``,
    then ``H = ceil(h * b / f) * f`` with ``b = sqrt(min / (h * w))``, and W likewise. Aspect ratios above 200 are refused.
    Source: Qwen2-VL ``smart_resize`` (transformers ``image_processing_qwen2_vl.py``).

    Attributes:
        min_pixels: area in pixels below which an image is scaled up.
        max_pixels: area in pixels above which an image is scaled down. Very thin images may end above this area. `bound` takes
            such images into account.
        merge: number of patches per side that the model merges into one token. Rows and columns are multiples of `merge`.
            Default 2.
        min_side: smallest length of a side, in pixels. An image with a shorter side is first scaled up at its aspect ratio
            (PaddleOCR-VL: 28). Default None, no limit. For GLM-4.xV, pass half of that model's area limits, because the model
            counts an image as two frames. The model rounds short sides down, so its size differed from ours for 4 of 4,512
            images.
    """

    min_pixels: int
    max_pixels: int
    merge: int = 2
    min_side: int | None = None
    draws = 0

    def __post_init__(self) -> None:
        for name in ("min_pixels", "max_pixels", "merge", "min_side"):
            if name != "min_side" or self.min_side is not None:
                require_number(name, getattr(self, name))
        if not 1 <= self.min_pixels <= self.max_pixels < 1 << 40:
            raise ConfigError(
                f"expected 1 <= min_pixels <= max_pixels < 2**40, got min_pixels={self.min_pixels}, "
                f"max_pixels={self.max_pixels}"
            )
        if self.merge < 1 or (self.min_side is not None and self.min_side < 1):
            raise ConfigError(f"merge and min_side must be >= 1, got merge={self.merge}, min_side={self.min_side}")

    def bound(self, patch_size: int) -> int:
        """Return the largest ``rows * cols`` over the branches below: the number of blocks of f x f pixels, times merge**2.

        * No scaling, or scaling down without a clamp: ``H * W <= max_pixels``, so ``max // f**2`` blocks.
        * Scaling down with a side clamped to f: the other side has ``floor(sqrt(max * a) / f)`` blocks, with aspect a <= 200. A
          clamp needs ``a > max / f**2``.
        * Scaling up: ``ceil(x) * ceil(y)`` blocks with ``x * y = m = min / f**2`` and ``x <= sqrt(200 * m)``. For
          ``ceil(y) = j``, y > j − 1, hence ``ceil(x) <= ceil(m / (j − 1))``. In float64 the rule may round both x and y up
          although both are integers (19 x 1900 at f 28 and m 100: 2 x 101 blocks). The 1e-9 in the code allows for this.
        """
        f = patch_size * self.merge
        most, least = self.max_pixels / f**2, self.min_pixels / f**2
        blocks = max(1, self.max_pixels // f**2)
        if most <= MAX_ASPECT:
            blocks = max(blocks, math.floor(math.sqrt(MAX_ASPECT * self.max_pixels) / f + 1e-9))
        longest = math.ceil(math.sqrt(MAX_ASPECT * least) + 1e-9)
        j = np.arange(2, longest + 1)
        others = np.minimum(longest, np.ceil(least / (j - 1) + 1e-9)).astype(np.int64)
        return self.merge**2 * int(max(blocks, longest, (j * others).max(initial=0)))

    def __call__(self, sizes: npt.ArrayLike, patch_size: int, u: FloatArray | None = None) -> IntArray:
        """See `ResizePolicy`."""
        f = patch_size * self.merge
        h, w = (side.astype(np.float64) for side in columns(sizes))
        if self.min_side is not None:  # height first, then width, as the reference does
            short = h < self.min_side
            w, h = np.where(short, np.rint(w * self.min_side / h), w), np.where(short, self.min_side, h)
            short = w < self.min_side
            h, w = np.where(short, np.rint(h * self.min_side / w), h), np.where(short, self.min_side, w)
        height, width = np.rint(h / f) * f, np.rint(w / f) * f
        area = height * width

        b = np.sqrt(h * w / self.max_pixels)
        shrink = area > self.max_pixels
        height = np.where(shrink, np.maximum(f, np.floor(h / b / f) * f), height)
        width = np.where(shrink, np.maximum(f, np.floor(w / b / f) * f), width)

        b = np.sqrt(self.min_pixels / (h * w))
        grow = area < self.min_pixels  # a side rounded to 0 comes here too, and a long image may then shrink
        height = np.where(grow, np.ceil(h * b / f) * f, height)
        width = np.where(grow, np.ceil(w * b / f) * f, width)

        refused = np.maximum(h, w) / np.minimum(h, w) > MAX_ASPECT
        return grid_of(np.where(refused, 0, height // patch_size), np.where(refused, 0, width // patch_size))
