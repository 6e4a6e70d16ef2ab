"""Where a patch was in its image, as a vector that is added to its token.

Every kind is a module ``positions(position_ids [T, 2], grids [T, 2]) → [T, width]``: (row, col) of each token, and rows and
columns of its image before any token was dropped. A kind of your own needs no more than that; `check` is asked first, where
there is one.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchpack.errors import ConfigError, ShapeError
from patchpack.model.interpolate import Interpolation

Combine = Literal["sum", "product", "stack"]


class FactorizedPositions(nn.Module):
    """A table of `max_len` rows and one of `max_len` columns (NaViT, 2307.06304, "factorized positional embeddings").

    They cost ``2 · max_len · width`` parameters (stacked, half of that), and a grid never seen in training is made of rows
    and columns that were.

    Args:
        width: values per token.
        max_len: longest side of a grid, in patches.
        combine: ``"sum"`` of the two entries (the paper's best), their ``"product"``, or both side by side (``"stack"``).
        first: what the tables call position 0; 1 for Pix2Struct, whose ids are 1-based with 0 for padding.
    """

    def __init__(self, *, width: int, max_len: int, combine: Combine = "sum", first: int = 0) -> None:
        super().__init__()
        if combine not in ("sum", "product", "stack"):
            raise ConfigError(f"combine is 'sum', 'product' or 'stack', got {combine!r}")
        if combine == "stack" and width % 2:
            raise ConfigError(f"stacked tables are half as wide as a token, and width={width} is odd")
        self.max_len, self.combine, self.first = max_len, combine, first
        own = width // 2 if combine == "stack" else width
        self.rows = nn.Parameter(torch.empty(max_len, own))
        self.cols = nn.Parameter(torch.empty(max_len, own))
        for table in (self.rows, self.cols):
            nn.init.normal_(table, std=width**-0.5)

    def forward(self, position_ids: Tensor, grids: Tensor) -> Tensor:
        """int ``[T, 2]`` (row, col) ``→ [T, width]``."""
        require_whole(position_ids)
        rows, cols = (position_ids + self.first).unbind(-1)
        return combined(F.embedding(rows, self.rows), F.embedding(cols, self.cols), self.combine)

    def check(self, grid_sizes: Tensor) -> None:
        """Refuse a grid longer than the tables, see `require_within`."""
        require_within(grid_sizes, self.max_len - self.first)


class GridPositions(nn.Module):
    """A table for one grid, resized to every other: ViT's learned positions (14×14), FlexiViT's (7×7), SigLIP 2's (16×16).

    Nothing is resized as a picture: each token asks for its own weights, so batches of a hundred different grids cost what
    batches of one do, ``T · table² · width`` multiplications.

    Args:
        grid: (rows, cols) of the table.
        width: values per token.
        how: the rule, one of `patchpack.model.interpolate.CONVENTIONS`.
    """

    def __init__(self, *, grid: tuple[int, int], width: int, how: Interpolation) -> None:
        super().__init__()
        self.how = how
        self.table = nn.Parameter(torch.empty(*grid, width))
        nn.init.normal_(self.table, std=width**-0.5)

    def forward(self, position_ids: Tensor, grids: Tensor) -> Tensor:
        """int ``[T, 2]`` (row, col) and their ``[T, 2]`` grids ``→ [T, width]``."""
        require_whole(position_ids)
        rows, cols, _ = self.table.shape
        down = self.how.weights(position_ids[:, 0], grids[:, 0].clamp(min=1), rows).to(self.table.dtype)
        across = self.how.weights(position_ids[:, 1], grids[:, 1].clamp(min=1), cols).to(self.table.dtype)
        weights = (down[:, :, None] * across[:, None, :]).flatten(1)  # [T, rows · cols]
        return weights @ self.table.flatten(0, 1)


def combined(rows: Tensor, cols: Tensor, combine: Combine) -> Tensor:
    """What stands for a row and what stands for a column, as one."""
    if combine == "sum":
        return rows + cols
    return rows * cols if combine == "product" else torch.cat([rows, cols], dim=-1)


def require_whole(position_ids: Tensor) -> None:
    """Refuse what is not integer (row, col) pairs.

    Raises:
        ShapeError: saying what came.
    """
    if position_ids.shape[-1] != 2 or position_ids.is_floating_point():
        raise ShapeError(
            f"positions must be integer (row, col) pairs, got {position_ids.dtype} with {position_ids.shape[-1]} per token"
        )


def require_within(grid_sizes: Tensor, max_len: int) -> None:
    """Refuse a grid longer than a table.

    Grids are looked at, not the ids of surviving tokens: with token drop those would pass or fail by chance. Nothing is
    looked at while compiling: it would break the graph. An id beyond the tables is then torch's own index error.

    Raises:
        ShapeError: naming both numbers.
    """
    if torch.compiler.is_compiling():
        return
    longest = int(grid_sizes.max()) if grid_sizes.numel() else 0
    if longest > max_len:
        raise ShapeError(
            f"max_len={max_len} positions per axis cannot hold a grid of {longest} patches a side. "
            f"Raise max_len to at least {longest}, or choose a resize policy with smaller grids."
        )
