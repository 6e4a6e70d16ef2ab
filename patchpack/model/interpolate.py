"""Resizing along one axis as a matrix. The matrix turns a table of one length into a table of another length.

A rule says how to resize, for position tables and patch kernels alike. Each code base has its own rule, and the rules are not
interchangeable. They differ in three settings: kernel, corners and antialias. `CONVENTIONS` lists the rule of each code base. A
resize in two dimensions is one matrix per axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from patchpack.errors import ConfigError

Kernel = Literal["bilinear", "bicubic"]
TAPS = {"bilinear": (0, 1), "bicubic": (-1, 0, 1, 2)}


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """One rule of resizing. The defaults are the rule that FlexiViT uses for its patch kernels.

    Attributes:
        kernel: ``"bilinear"`` (the default) or ``"bicubic"``.
        align_corners: True puts the outermost entries of both tables at the same position. False, the default, lets both tables
            cover the same interval. Each entry is then in the middle of its part of the interval, and all parts are equal
            (half-pixel).
        antialias: True widens the kernel when a table shrinks, so that it covers all entries that one new entry replaces. As in
            torch, a bicubic kernel is Keys' kernel, with a = −0.5 if `antialias` is True and a = −0.75 if it is False. Default
            False.

    Raises:
        ConfigError: the kernel is unknown, or `antialias` and `align_corners` are both True, which no code base defines.
    """

    kernel: Kernel = "bilinear"
    align_corners: bool = False
    antialias: bool = False

    def __post_init__(self) -> None:
        if self.kernel not in TAPS:
            raise ConfigError(f"kernel must be 'bilinear' or 'bicubic', got {self.kernel!r}")
        if self.align_corners and self.antialias:
            raise ConfigError(
                "antialias=True needs align_corners=False, because a wider kernel is not defined with aligned corners"
            )

    def weights(self, index: Tensor, length: Tensor | int, table: int) -> Tensor:
        """Return the weight of each table entry in each entry of the resized table.

        Args:
            index: integers ``[T]``, numbers of entries of the resized table, ``0 … length − 1``.
            length: ``[T]`` or one number, length of the resized table.
            table: number of entries of the table.

        Returns:
            ``[T, table]``, float64 for float64 indices, else float32. Every row sums to 1. For values ``[table, ...]``,
            ``resized[index] = weights @ values``.
        """
        index = index if index.is_floating_point() else index.float()
        length = torch.as_tensor(length, dtype=index.dtype, device=index.device)
        pinned, middle = index * (table - 1) / (length - 1).clamp(min=1), (index + 0.5) * table / length - 0.5
        centre = pinned if self.align_corners else middle
        if self.antialias:
            width = (table / length).clamp(min=1)
            entries = torch.arange(table, device=index.device, dtype=index.dtype)
            weights = _kernel(self.kernel, (entries - centre[:, None]) / width.expand_as(centre)[:, None], -0.5)
            return weights / weights.sum(1, keepdim=True)
        first = centre.floor()
        taps = first[:, None] + torch.tensor(TAPS[self.kernel], device=index.device, dtype=index.dtype)
        weights = _kernel(self.kernel, taps - centre[:, None], -0.75)
        # beyond the ends the outermost entries repeat
        return weights.new_zeros(len(index), table).scatter_add(1, taps.clamp(0, table - 1).long(), weights)

    def matrix(self, source: int, target: int) -> Tensor:
        """Return the matrix of a resize, float64 ``[target, source]``: ``resized = matrix @ values``.

        The matrix is cached, so do not write to it.
        """
        return _matrix(self, source, target)


CONVENTIONS = {
    "big_vision vit": Interpolation(align_corners=True),
    "torchvision": Interpolation(kernel="bicubic", align_corners=True),
    "hf vit": Interpolation(kernel="bicubic"),
    "timm": Interpolation(kernel="bicubic", antialias=True),
    "flexivit": Interpolation(antialias=True),
    "siglip2": Interpolation(antialias=True),
    "qwen3_vl": Interpolation(align_corners=True),
    "paddleocr_vl": Interpolation(),
    "moonvit": Interpolation(kernel="bicubic"),
}
"""The rules by which code bases resize a table of positions."""


def resize_grid(table: Tensor, rows: int, cols: int, how: Interpolation) -> Tensor:
    """Resize a table of positions to another grid permanently, for fine-tuning at another resolution.

    For example, 14×14 (196 positions) becomes 64×64 (4096 positions).

    Args:
        table: ``[table rows, table cols, width]``.
        rows: rows of the new grid.
        cols: columns of the new grid.
        how: rule of the resize, one of `CONVENTIONS`.

    Returns:
        ``[rows, cols, width]``: ``R @ table[:, :, k] @ C.T`` for every k. R and C are the rule's matrices for rows and columns.
    """
    down, across = (how.matrix(n, m).to(table) for n, m in zip(table.shape, (rows, cols), strict=False))
    return torch.einsum("ri,cj,ijk->rck", down, across, table)


@lru_cache(maxsize=512)
def _matrix(how: Interpolation, source: int, target: int) -> Tensor:
    return how.weights(torch.arange(target, dtype=torch.float64), target, source)


def _kernel(kernel: Kernel, x: Tensor, a: float) -> Tensor:
    x = x.abs()
    if kernel == "bilinear":
        return (1 - x).clamp(min=0)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
