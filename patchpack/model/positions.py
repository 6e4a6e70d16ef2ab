"""Learned tables of positions. A table gives a vector for a patch's position in its image. The vector is added to the token.

`patchpack.model.waves` has the computed positions. Every kind of positions is a module ``positions(position_ids [T, 2], grids
[T, 2]) → [T, width]``. It receives (row, col) of each token, and the rows and columns of the token's image before any token was
dropped. A custom kind needs only this call. If the module has a method `check`, the model calls this method first.

Ids come from the recipe's ``positions=``: integers from `Absolute`, fractions of the image from `Fractional`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchpack.errors import ConfigError, ShapeError
from patchpack.model.interpolate import Interpolation

Combine = Literal["sum", "product", "stack"]


class RasterPositions(nn.Module):
    """A table with an entry per raster number: ViT's 1-D positions (2010.11929 §3.1).

    A token reads ``table[row · cols + col]``. An entry therefore stands for different positions in grids of different shapes.
    There is no interpolation.

    Args:
        width: values per token.
        max_tokens: number of entries, the largest ``rows · cols`` of a grid.
    """

    def __init__(self, *, width: int, max_tokens: int) -> None:
        super().__init__()
        self.table = new_table(max_tokens, width)

    def forward(self, position_ids: Tensor, grids: Tensor) -> Tensor:
        """Return one vector per token, ``[T, width]``.

        Args:
            position_ids: int ``[T, 2]``, (row, col) of each token.
            grids: ``[T, 2]``, (rows, cols) of each token's image.
        """
        require_whole(position_ids)
        return F.embedding(position_ids[:, 0] * grids[:, 1] + position_ids[:, 1], self.table)

    def check(self, grid_sizes: Tensor) -> None:
        """Raise `ShapeError` if a grid has more patches than the table has entries (see `require_within`).

        Raises:
            ShapeError: the table is too small. The error has both numbers.
        """
        most = _largest(grid_sizes.prod(-1))
        if most > len(self.table):
            raise ShapeError(
                f"max_tokens={len(self.table)} positions cannot hold a grid of {most} patches. "
                f"Raise max_tokens to at least {most}, or choose a resize policy with smaller grids."
            )


class JointPositions(nn.Module):
    """A table with an entry for every (row, col). NaViT (2307.06304 §2.1) describes Pix2Struct's positions in this form.

    The table has ``max_len² · width`` parameters. An entry that no training image reached keeps its start value. (The published
    Pix2Struct model differs: it sums a vector from a row table and a vector from a column table. For this model use
    `FactorizedPositions` with ``max_len=4096, first=1``.)

    Args:
        width: values per token.
        max_len: longest side of a grid, in patches.
    """

    def __init__(self, *, width: int, max_len: int) -> None:
        super().__init__()
        self.table = new_table(max_len, max_len, width)

    def forward(self, position_ids: Tensor, grids: Tensor) -> Tensor:
        """Return one vector per token, ``[T, width]``.

        Args:
            position_ids: int ``[T, 2]``, (row, col) of each token.
            grids: ``[T, 2]``, (rows, cols) of each token's image, not used.
        """
        require_whole(position_ids)
        # not row · max_len + col: a column beyond the table would be read from the next row
        return self.table[position_ids[:, 0], position_ids[:, 1]]

    def check(self, grid_sizes: Tensor) -> None:
        """Raise `ShapeError` if a side of a grid is longer than the table (see `require_within`)."""
        require_within(grid_sizes, len(self.table))


class FactorizedPositions(nn.Module):
    """A table of `max_len` rows and a table of `max_len` columns (NaViT, 2307.06304, "factorized positional embeddings").

    The tables have ``2 · max_len · width`` parameters, or half as many with ``combine="stack"``. A grid that did not occur in
    training has trained positions if its rows and columns occurred in other grids.

    Args:
        width: values per token.
        max_len: number of entries per table. Unless `fractional` is True, this is the longest side of a grid, in patches.
        combine: ``"sum"`` (the default, and best in the paper) adds the two entries. ``"product"`` multiplies the entries.
            ``"stack"`` puts both entries side by side.
        first: number of the entry that position 0 reads. Default 0. Use 1 for Pix2Struct, where ids begin at 1 and padding has
            0.
        fractional: True for position ids that are fractions of the image. The tables are then read by linear interpolation (see
            `between`), and cover an image of any size. With ``Fractional(centered=True)``, an image of `max_len` patches per
            side reads every entry exactly, without interpolation. Default False.
    """

    def __init__(self, *, width: int, max_len: int, combine: Combine = "sum", first: int = 0, fractional: bool = False) -> None:
        super().__init__()
        if combine not in ("sum", "product", "stack"):
            raise ConfigError(f"combine must be 'sum', 'product' or 'stack', got {combine!r}")
        if combine == "stack" and width % 2:
            raise ConfigError(f"combine='stack' needs an even width, got {width}")
        if fractional and first:
            raise ConfigError(f"fractional=True needs first=0, got {first}")
        self.max_len, self.combine, self.first, self.fractional = max_len, combine, first, fractional
        own = width // 2 if combine == "stack" else width
        # for a product this is the std of each factor, so that the result is as large as for the others
        std = width ** (-0.25 if combine == "product" else -0.5)
        self.rows, self.cols = new_table(max_len, own, std=std), new_table(max_len, own, std=std)

    def forward(self, position_ids: Tensor, grids: Tensor) -> Tensor:
        """Return one vector per token, ``[T, width]``.

        Args:
            position_ids: ``[T, 2]``, (row, col) of each token. Floats if `fractional` is True, else integers.
            grids: ``[T, 2]``, (rows, cols) of each token's image, not used.
        """
        if self.fractional:
            require_fractions(position_ids)
            rows, cols = (
                between(partial(F.embedding, weight=table), fractions, self.max_len)
                for fractions, table in zip(position_ids.unbind(-1), (self.rows, self.cols), strict=True)
            )
        else:
            require_whole(position_ids)
            ids = position_ids + self.first
            rows, cols = F.embedding(ids[:, 0], self.rows), F.embedding(ids[:, 1], self.cols)
        return combined(rows, cols, self.combine)

    def check(self, grid_sizes: Tensor) -> None:
        """Raise `ShapeError` if a side of a grid is longer than the tables (see `require_within`). Fractions fit any table."""
        if not self.fractional:
            require_within(grid_sizes, self.max_len - self.first)


class GridPositions(nn.Module):
    """A table for one grid. The table is resized to other grids. Its grid is 14×14 in ViT, 7×7 in FlexiViT, 16×16 in SigLIP 2.

    The resized table is never stored. Each token computes its own weights for the table's entries. So a batch of a hundred
    different grids costs as much as a batch of one grid: ``T · entries · width`` multiplications.

    Args:
        grid: (rows, cols) of the table.
        width: values per token.
        how: rule by which the table is resized, one of `patchpack.model.interpolate.CONVENTIONS`.
        preserve_aspect: True resizes the table to a square whose side is the longer side of the image, and uses the part of the
            square that the image covers. A step down is then as long as a step to the right (timm's
            ``pos_embed_ar_preserving``). Default False.
    """

    def __init__(self, *, grid: tuple[int, int], width: int, how: Interpolation, preserve_aspect: bool = False) -> None:
        super().__init__()
        self.how, self.preserve_aspect = how, preserve_aspect
        self.table = new_table(*grid, width)

    def forward(self, position_ids: Tensor, grids: Tensor) -> Tensor:
        """Return one vector per token, ``[T, width]``.

        Args:
            position_ids: int ``[T, 2]``, (row, col) of each token.
            grids: ``[T, 2]``, (rows, cols) of each token's image.
        """
        require_whole(position_ids)
        places = position_ids.to(torch.float64 if self.table.dtype == torch.float64 else torch.float32)
        lengths = grids.clamp(min=1)  # padding's grid is 0 × 0
        if self.preserve_aspect:
            lengths = lengths.amax(1, keepdim=True).expand(-1, 2)
        down, across = (
            self.how.weights(places[:, axis], lengths[:, axis], self.table.shape[axis]).to(self.table.dtype) for axis in (0, 1)
        )
        weights = (down[:, :, None] * across[:, None, :]).flatten(1)  # [T, rows · cols]
        return weights @ self.table.flatten(0, 1)


def combined(rows: Tensor, cols: Tensor, combine: Combine) -> Tensor:
    """Combine the vectors of rows and of columns into one vector per token.

    Args:
        rows: float ``[T, width]``, vectors of rows. For "stack", float ``[T, width / 2]``.
        cols: float of the same shape, vectors of columns.
        combine: "sum", "product", or "stack", which puts both vectors side by side.
    """
    if combine == "sum":
        return rows + cols
    return rows * cols if combine == "product" else torch.cat([rows, cols], dim=-1)


def between(values: Callable[[Tensor], Tensor], fractions: Tensor, max_len: int) -> Tensor:
    """Read a table at fractions of its length, with linear interpolation between neighbouring entries.

    Entry k is at ``(k + 0.5) / max_len``, like the centre of a patch. Beyond the ends the outermost entries repeat.
    ``out = (1 − s) · values(⌊u⌋) + s · values(⌊u⌋ + 1)`` with ``u = fraction · max_len − 0.5`` and ``s = u − ⌊u⌋``.

    Args:
        values: function from numbers of entries, int64 ``[T]`` in ``0 … max_len − 1``, to vectors ``[T, width]``.
        fractions: float ``[T]``, positions as fractions of the table's length.
        max_len: number of entries of the table.

    Returns:
        ``[T, width]``, in the dtype of the values.
    """
    at = fractions * max_len - 0.5
    low = at.floor()
    lower, upper = (values(entries.clamp(0, max_len - 1).long()) for entries in (low, low + 1))
    share = (at - low)[:, None]
    return ((1 - share) * lower + share * upper).to(lower.dtype)


def new_table(*shape: int, std: float | None = None) -> nn.Parameter:
    """Create a table of random values from N(0, std²).

    The last axis holds the values of a token. Default `std`: ``width^−0.5``, with the length of the last axis as width.

    Raises:
        ConfigError: an axis would have no entries.
    """
    if min(shape) < 1:
        shown = "×".join(map(str, shape))
        raise ConfigError(f"a table of positions must have at least one entry per axis and one value per entry, got {shown}")
    return nn.Parameter(torch.randn(shape) * (shape[-1] ** -0.5 if std is None else std))


def require_whole(position_ids: Tensor) -> None:
    """Raise `ShapeError` unless positions are integer (row, col) pairs.

    Raises:
        ShapeError: the positions have another form. The error gives their dtype, and the setting that the recipe should have.
    """
    if position_ids.shape[-1] != 2 or position_ids.is_floating_point():
        raise ShapeError(
            f"positions must be integer (row, col) pairs, got {position_ids.dtype} with {position_ids.shape[-1]} per token. "
            f"Use a recipe with positions=Absolute(), or a model with fractional positions. The (time, row, col) of a recipe "
            f"with "
            f"video need a model made with patchpack.model.for_video"
        )


def require_fractions(position_ids: Tensor) -> None:
    """Raise `ShapeError` unless positions are (row, col) as fractions of the image.

    Raises:
        ShapeError: the positions have another form. The error gives their dtype, and the setting that the recipe should have.
    """
    if position_ids.shape[-1] != 2 or not position_ids.is_floating_point():
        raise ShapeError(
            f"positions must be (row, col) as fractions, got {position_ids.dtype} with {position_ids.shape[-1]} per token. "
            f"Use a recipe with positions=Fractional(centered=True), or a model with fractional=False"
        )


def require_within(grid_sizes: Tensor, max_len: int) -> None:
    """Raise `ShapeError` if a side of a grid is longer than a table.

    The check reads the grids and not the ids: with token drop, the ids of the kept tokens would pass or fail by chance. While
    compiling there is no check, because a check would break the graph. Torch then raises its own index error for an id beyond
    the table.

    Raises:
        ShapeError: the table is too short. The error has both numbers.
    """
    longest = _largest(grid_sizes)
    if longest > max_len:
        raise ShapeError(
            f"max_len={max_len} positions per axis cannot hold a grid of {longest} patches a side. "
            f"Raise max_len to at least {longest}, or choose a resize policy with smaller grids."
        )


def _largest(numbers: Tensor) -> int:
    """Return the largest number in a tensor. Return 0 for an empty tensor, and while compiling."""
    return 0 if torch.compiler.is_compiling() or not numbers.numel() else int(numbers.max())
