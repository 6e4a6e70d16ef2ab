"""Rotary positions in two dimensions: queries and keys are rotated by angles that grow with row and column.

The attention between two tokens then depends on their distance in rows and in columns (RoFormer 2104.09864, applied to each
axis as in EVA-02 and Qwen2-VL). A head's values are rotated in pairs: half of the pairs by the row, half by the column.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchpack.errors import ConfigError
from patchpack.model.waves import angle_dtype


class Rope2d(nn.Module):
    """The rotation angles of queries and keys, computed from (row, col).

    Args:
        head_width: values per head, a multiple of 4, because there are pairs of values for each of two axes.
        base: number that sets the speeds of rotation: ``angle_i = position · base^(−i / (head_width / 4))`` radians. The
            slowest pair rotates by about ``1 / base`` per patch. Default 10,000.

    Raises:
        ConfigError: the head width is not a multiple of 4.
    """

    like: Tensor

    def __init__(self, *, head_width: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_width % 4:
            raise ConfigError(f"2-D RoPE needs a head width that is a multiple of 4, got {head_width}")
        self.pairs, self.base = head_width // 4, base
        self.register_buffer("like", torch.empty(0), persistent=False)  # knows the model's dtype, see `angle_dtype`

    def forward(self, position_ids: Tensor) -> Tensor:
        """Return the angles of rotation, ``[T, head_width / 2]``. Angles of rows come first.

        Args:
            position_ids: ``[T, 2]``, integers or floats, (row, col) of each token.
        """
        steps = torch.arange(self.pairs, device=position_ids.device, dtype=angle_dtype(self.like))
        return (position_ids[:, :, None] * self.base ** -(steps / self.pairs)).flatten(1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate queries or keys ``[T, heads, d]``: the pair ``(x[i], x[i + d/2])`` is rotated by ``angles[:, i]``."""
    cos, sin = (f(angles)[:, None].to(x.dtype) for f in (torch.cos, torch.sin))
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
