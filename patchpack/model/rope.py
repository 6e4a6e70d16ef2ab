"""Rotary positions in two dimensions: queries and keys are rotated by angles that grow with row and column.

The attention between two tokens then depends on their distance, in rows and columns alike (RoFormer 2104.09864, by axis as in
EVA-02 and Qwen2-VL). Half of a head's pairs rotate with the row, half with the column.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchpack.errors import ConfigError
from patchpack.model.waves import angle_dtype


class Rope2d(nn.Module):
    """The rotation angles of queries and keys, computed from (row, col).

    Args:
        head_width: values per head, a multiple of 4: pairs, half of them per axis.
        base: the slowest pair rotates by about ``1 / base`` per patch; ``angle_i = position · base^(−i / (head_width / 4))``.
            Default 10,000.

    Raises:
        ConfigError: a head width that is not a multiple of 4.
    """

    like: Tensor

    def __init__(self, *, head_width: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_width % 4:
            raise ConfigError(f"2-D RoPE needs a head width that is a multiple of 4, got {head_width}")
        self.pairs, self.base = head_width // 4, base
        self.register_buffer("like", torch.empty(0), persistent=False)  # knows the model's dtype, see `angle_dtype`

    def forward(self, position_ids: Tensor) -> Tensor:
        """Return the angles of (row, col), integer or float ``[T, 2]``, as ``[T, head_width / 2]``, row pairs first."""
        steps = torch.arange(self.pairs, device=position_ids.device, dtype=angle_dtype(self.like))
        return (position_ids[:, :, None] * self.base ** -(steps / self.pairs)).flatten(1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs ``(x[i], x[i + d/2])`` of ``[T, heads, d]`` by ``[T, d/2]`` angles. Lengths do not change."""
    cos, sin = (f(angles)[:, None].to(x.dtype) for f in (torch.cos, torch.sin))
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
