"""A model of clips from a model of images.

The kernel is put in a tubelet's central frame, and a position in time that starts at zero is added. Attention needs no
change: a clip is one segment, and all its tokens attend to each other. Source: ViViT 2103.15691
(central frame initialisation), which NaViT 2307.06304 uses too.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchpack.errors import ConfigError, ShapeError
from patchpack.model.embed import inflate_kernel
from patchpack.model.vit import ViT

Model = TypeVar("Model", bound=ViT)


class TemporalPositions(nn.Module):
    """A position in time, added to a position in space: ``spatial(row, col) + table[time]``.

    The table starts at zero, so a model of images gives the same positions at every step of time as for the image. Time 0,
    which all images have, is learned like the other times.

    Args:
        spatial: a module of `patchpack.model.positions`, of `waves`, or a custom one. None if the model has rotary positions
            only.
        width: values per token.
        max_times: number of entries, the most tubelets along time (`patchpack.Video.max_times`).

    Raises:
        ConfigError: a table without entries.
    """

    def __init__(self, spatial: nn.Module | None, *, width: int, max_times: int) -> None:
        super().__init__()
        if max_times < 1 or width < 1:
            raise ConfigError(
                f"a table of positions must have at least one entry and one value per entry, got {max_times}×{width}"
            )
        self.spatial = spatial
        self.table = nn.Parameter(torch.zeros(max_times, width))

    def forward(self, position_ids: Tensor, grids: Tensor) -> Tensor:
        """Return the positions ``[T, width]`` of ids ``[T, 1 + A]`` (time, then the ids of `spatial`) in grids ``[T, 2]``."""
        moment = F.embedding(position_ids[:, 0].long(), self.table)
        return moment if self.spatial is None else moment + self.spatial(position_ids[:, 1:], grids)

    def check(self, grid_sizes: Tensor) -> None:
        """Check grids by the `check` of `spatial`, if it has one."""
        if (check := getattr(self.spatial, "check", None)) is not None:
            check(grid_sizes)

    def check_times(self, times: Tensor | None) -> None:
        """Raise `ShapeError` for a batch of patches, and for a clip longer than the table.

        While compiling, the length of clips is not checked.

        Raises:
            ShapeError: with the batch's property, and the setting that the recipe should have.
        """
        if times is None:
            raise ShapeError("the model takes tubelets, but the batch has patches: use a recipe with video=Video(...)")
        longest = 0 if torch.compiler.is_compiling() or not times.numel() else int(times.max())
        if longest > len(self.table):
            raise ShapeError(
                f"max_times={len(self.table)} positions in time cannot hold a clip of {longest} tubelets. Raise max_times to "
                f"at least {longest}, or give the recipe's video fewer frames (num_frames)"
            )


def for_video(model: Model, *, tubelet: int, max_times: int) -> Model:
    """Copy an image model into one that takes clips, and images among them.

    For an image, which is the same frame t times, the copy gives the result of the original. For a clip its tokens are those
    of the central frames as images: no part of it depends on time yet.

    Args:
        model: any `ViT`. Its weights are copied.
        tubelet: frames per token, that of the recipe's `patchpack.Video`.
        max_times: the most tubelets along time.

    Returns:
        The same kind of model, with `inflate_kernel` of its kernel and `TemporalPositions` around its positions. All else is
        unchanged.

    Raises:
        ConfigError: the model already takes clips, or a number is below 1.
    """
    if isinstance(model.positions, TemporalPositions) or model.embed.tubelet != 1:
        raise ConfigError("the model already takes clips: pass for_video a model of images")
    copy = deepcopy(model)
    embed, weight = copy.embed, copy.embed.linear.weight
    inflated = inflate_kernel(weight.detach(), tubelet)
    linear = nn.Linear(inflated.shape[1], inflated.shape[0], bias=embed.linear.bias is not None).to(weight)
    with torch.no_grad():
        linear.weight.copy_(inflated)
        if embed.linear.bias is not None:
            linear.bias.copy_(embed.linear.bias)
    embed.linear, embed.tubelet = linear, tubelet
    width = inflated.shape[0]
    copy.positions = TemporalPositions(copy.positions, width=width, max_times=max_times).to(weight)
    return copy
