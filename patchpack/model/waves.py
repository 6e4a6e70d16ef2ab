"""Computed positions: sines and cosines of (row, col), fixed or with learned frequencies.

These modules are called like the tables of `patchpack.model.positions`, and have no limit on the length of a grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from patchpack.errors import ConfigError
from patchpack.model.positions import between, require_fractions, require_whole


class SinusoidalPositions(nn.Module):
    """Fixed sines and cosines without parameters: half of a token's values for its row, half for its column.

    The vector is ``[sin(row · f), cos(row · f), sin(col · f), cos(col · f)]`` with ``f_i = base^(−i / (width / 4))``. These are
    the frequencies of Vaswani et al. (1706.03762 §3.5) for each axis, and NaViT's "sinusoidal" positions (2307.06304).

    Args:
        width: values per token, a multiple of 4.
        base: number that sets the frequencies. The slowest wave turns by about ``1 / base`` radians per patch. Default 10,000.
        moco: True for the form of MoCo-v3 and big_vision's `posemb_sincos_2d`. Columns come before rows, and the slowest wave
            turns by exactly ``1 / base``: ``f_i = base^(−i / (width / 4 − 1))``. Default False.
        fractional: True for position ids that are fractions of the image. The vectors are then interpolated linearly in a table
            of `max_len` entries (see `between`). Default False.
        max_len: number of entries of the table for fractional ids. Integer ids have no limit. Default 128.

    Raises:
        ConfigError: the width is not a multiple of 4, or the table would have no entries.
    """

    like: Tensor

    def __init__(
        self, *, width: int, base: float = 10_000.0, moco: bool = False, fractional: bool = False, max_len: int = 128
    ) -> None:
        super().__init__()
        if width % 4 or width < 1:
            raise ConfigError(f"sines and cosines of two axes need a width that is a multiple of 4, got {width}")
        if max_len < 1:
            raise ConfigError(f"max_len must be at least 1, got {max_len}")
        self.width, self.base, self.moco, self.fractional, self.max_len = width, base, moco, fractional, max_len
        # knows the model's dtype and device; frequencies themselves would lose digits in a bfloat16 model
        self.register_buffer("like", torch.empty(0), persistent=False)

    def forward(self, position_ids: Tensor, grids: Tensor) -> Tensor:
        """Return one vector per token, ``[T, width]``.

        Args:
            position_ids: ``[T, 2]``, (row, col) of each token. Floats if `fractional` is True, else integers.
            grids: ``[T, 2]``, (rows, cols) of each token's image, not used.
        """
        if self.fractional:
            require_fractions(position_ids)
            rows, cols = (between(self._waves, axis, self.max_len) for axis in position_ids.unbind(-1))
        else:
            require_whole(position_ids)
            rows, cols = (self._waves(axis) for axis in position_ids.unbind(-1))
        return torch.cat([cols, rows] if self.moco else [rows, cols], dim=-1).to(self.like.dtype)

    def _waves(self, places: Tensor) -> Tensor:
        """Return the waves of one axis, ``[T] → [T, width / 2]``."""
        count = self.width // 4
        steps = torch.arange(count, device=places.device, dtype=angle_dtype(self.like))
        angles = places[:, None] * self.base ** -(steps / (max(1, count - 1) if self.moco else count))
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class FourierPositions(nn.Module):
    """Learned Fourier features (2106.02795): sines and cosines of one linear map of (row, col), with `width` parameters.

    The vector is ``[sin(row · u + col · v), cos(row · u + col · v)]``, with u and v of ``width / 2`` values each. NaViT calls
    these positions "learned Fourier".

    Args:
        width: values per token, even.
        fractional: True for position ids that are fractions of the image. Default False.
        std: standard deviation of u and v at the start of training, in radians. Default None: 0.5 per patch (a wave is a dozen
            patches long), or 2π per image if `fractional` is True.

    Raises:
        ConfigError: the width is odd, or `std` is not positive.
    """

    def __init__(self, *, width: int, fractional: bool = False, std: float | None = None) -> None:
        super().__init__()
        if width % 2 or width < 1:
            raise ConfigError(f"width must be even and at least 2, for sines and cosines, got {width}")
        std = (2 * math.pi if fractional else 0.5) if std is None else std
        if not std > 0:
            raise ConfigError(f"std must be positive, got {std}")
        self.fractional = fractional
        self.frequencies = nn.Parameter(torch.randn(2, width // 2) * std)

    def forward(self, position_ids: Tensor, grids: Tensor) -> Tensor:
        """Return one vector per token, ``[T, width]``.

        Args:
            position_ids: ``[T, 2]``, (row, col) of each token. Floats if `fractional` is True, else integers.
            grids: ``[T, 2]``, (rows, cols) of each token's image, not used.
        """
        (require_fractions if self.fractional else require_whole)(position_ids)
        # a sum of two, not a matrix product: autocast would round angles to three digits
        angles = (position_ids[:, :, None] * self.frequencies.to(angle_dtype(self.frequencies))).sum(1)
        return torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.frequencies.dtype)


def angle_dtype(like: Tensor) -> torch.dtype:
    """Return the dtype for angles: float64 for a float64 model, else float32.

    Angles reach hundreds of radians, which bfloat16 resolves only to the nearest radian.
    """
    return torch.float64 if like.dtype == torch.float64 else torch.float32
