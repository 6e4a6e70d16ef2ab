"""Patches → tokens: one linear map of the normalised pixels, plus where the patch was in its image.

Positions are factorised, as in NaViT (2307.06304, "factorized positional embeddings"): a table for rows and one for
columns, summed. They cost ``2 * max_len * width`` parameters, and a grid never seen in training is made of rows and
columns that were.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchpack.errors import ShapeError


class PatchEmbed(nn.Module):
    """Linear map of a flattened patch, pixels in (y, x, channel) order, to `width` values."""

    def __init__(self, *, patch_size: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(patch_size * patch_size * 3, width, bias=False)

    def forward(self, patches: Tensor, norm: Tensor) -> Tensor:
        """``[T, D] → [T, width]``.

        Args:
            patches: uint8 or float ``[T, D]``.
            norm: float ``[2, 3]`` mean and std per channel, ``value = (patch - mean) / std``; (0, 1) for float patches.
        """
        weight = self.linear.weight
        if patches.shape[-1] != weight.shape[1]:
            raise ShapeError(f"a patch must have {weight.shape[1]} values, got {patches.shape[-1]}")
        # the channel is the fastest axis of a patch
        mean, std = norm.to(patches.device).repeat(1, weight.shape[1] // norm.shape[1])
        # at least float32 until here, so that a bfloat16 model sees well-rounded pixels
        tokens: Tensor = self.linear(((patches - mean) / std).to(weight.dtype))
        return tokens


class FactorizedPositions(nn.Module):
    """Learned tables of `max_len` rows and `max_len` columns; a position is the sum of its two entries."""

    def __init__(self, *, width: int, max_len: int) -> None:
        super().__init__()
        self.max_len = max_len
        self.rows = nn.Parameter(torch.empty(max_len, width))
        self.cols = nn.Parameter(torch.empty(max_len, width))
        for table in (self.rows, self.cols):
            nn.init.normal_(table, std=width**-0.5)

    def forward(self, position_ids: Tensor) -> Tensor:
        """int ``[T, 2]`` (row, col) ``→ [T, width]``."""
        if position_ids.shape[-1] != 2 or position_ids.is_floating_point():
            raise ShapeError(
                f"positions must be integer (row, col) pairs, got {position_ids.dtype} with {position_ids.shape[-1]} per token"
            )
        rows, cols = position_ids.unbind(-1)
        return F.embedding(rows, self.rows) + F.embedding(cols, self.cols)

    def check(self, grid_sizes: Tensor) -> None:
        """Refuse a grid longer than the tables.

        Grids are looked at, not the ids of surviving tokens: with token drop those would pass or fail by chance. Nothing is
        looked at while compiling: it would break the graph. An id beyond the tables is then torch's own index error.

        Raises:
            ShapeError: naming both numbers.
        """
        if torch.compiler.is_compiling():
            return
        longest = int(grid_sizes.max()) if grid_sizes.numel() else 0
        if longest > self.max_len:
            raise ShapeError(
                f"max_len={self.max_len} positions per axis cannot hold a grid of {longest} patches a side. "
                f"Raise max_len to at least {longest}, or choose a resize policy with smaller grids."
            )
