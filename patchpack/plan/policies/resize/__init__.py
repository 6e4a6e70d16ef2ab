"""Sizes to grids: how many rows and columns of patches an image becomes.

Every rule snaps differently (floor, ceil, half-even, pad), so each stands alone under the name its paper or code base gave
it. A rule of your own is one class with ``draws``, ``bound`` and ``__call__``; nothing is registered anywhere.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchpack.plan.policies.resize.budget import NaFlex, Pix2Struct
from patchpack.plan.policies.resize.fixed import LongestSide, Native, Square
from patchpack.plan.policies.resize.navit import NaViT
from patchpack.plan.policies.resize.smart import SmartResize
from patchpack.types import FloatArray, IntArray

__all__ = [
    "ResizePolicy", "PlacingPolicy", "NaViT", "Pix2Struct", "NaFlex", "SmartResize", "LongestSide", "Square", "Native",
]  # fmt: skip


@runtime_checkable
class ResizePolicy(Protocol):
    """A rule from sizes to grids. Numbers only; row i of the answer depends on row i of the input alone."""

    @property
    def draws(self) -> int:
        """Uniforms wanted per image, 0 if none."""
        ...

    def bound(self, patch_size: int) -> int | None:
        """Proven largest ``rows * cols``, or None if there is none."""
        ...

    def __call__(self, sizes: npt.NDArray[np.int64], patch_size: int, u: FloatArray | None) -> IntArray:
        """Grids for sizes.

        Args:
            sizes: int ``[n, 2]`` (height, width) in pixels, >= 1.
            patch_size: pixels per side of a patch, >= 1.
            u: float64 ``[n, draws]`` in [0, 1), or None when ``draws == 0``.

        Returns:
            int32 ``[n, 2]`` (rows, cols) >= 1; (0, 0) where this rule refuses the size.
        """
        ...


@runtime_checkable
class PlacingPolicy(Protocol):
    """What a resize policy may add: which part of the source is read, and to what size it is resampled.

    Without it the box is the whole image and the target is ``grid * patch_size``. A target smaller than its grid is
    zero-padded right and bottom.
    """

    def place(self, sizes: npt.NDArray[np.int64], grids: IntArray, patch_size: int) -> tuple[IntArray, IntArray]:
        """(box int32 ``[n, 4]`` top, left, height, width; target int32 ``[n, 2]``), in pixels."""
        ...
