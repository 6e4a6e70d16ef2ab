"""Resize policies, which decide how many rows and columns of patches an image is cut into.

Every rule rounds differently (floor, ceil, half-even, pad), so each has its own class, named after its paper or code base. A
custom rule is one class with ``draws``, ``bound`` and ``__call__``. It needs no registration.
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
    """A rule that chooses a grid from the size of an image, without its pixels.

    Row i of the result depends on row i of the input alone.
    """

    @property
    def draws(self) -> int:
        """Number of uniform random draws per image, 0 for a policy that does not draw."""
        ...

    def bound(self, patch_size: int) -> int | None:
        """Return a proven upper bound of ``rows * cols``, or None if there is no bound."""
        ...

    def __call__(self, sizes: npt.NDArray[np.int64], patch_size: int, u: FloatArray | None) -> IntArray:
        """Return the grid of each image.

        Args:
            sizes: int ``[n, 2]``, (height, width) of each image in pixels, >= 1.
            patch_size: pixels per side of a patch, >= 1.
            u: float64 ``[n, draws]``, uniform random draws in [0, 1), or None if `draws` is 0.

        Returns:
            int32 ``[n, 2]``, (rows, cols) >= 1, or (0, 0) if the policy refuses the size.
        """
        ...


@runtime_checkable
class PlacingPolicy(Protocol):
    """A resize policy that also chooses the part of the source that is read, and the size it is resampled to.

    With other policies the whole image is read and resampled to ``grid * patch_size`` pixels. A policy with `place` may choose
    a smaller size. The image is then padded with 0 at the right and at the bottom.
    """

    def place(self, sizes: npt.NDArray[np.int64], grids: IntArray, patch_size: int) -> tuple[IntArray, IntArray]:
        """Return the boxes that are read, and the sizes that they are resampled to.

        The boxes are int32 ``[n, 4]``, (top, left, height, width). The sizes are int32 ``[n, 2]``, (height, width). Both are in
        pixels.

        Args:
            sizes: int ``[n, 2]``, (height, width) of each image in pixels, >= 1.
            grids: int32 ``[n, 2]``, (rows, cols), the policy's grids for these sizes.
            patch_size: pixels per side of a patch, >= 1.
        """
        ...
