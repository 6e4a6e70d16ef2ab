"""The conversion of a model of images to a model of clips.

A tubelet is a patch of several frames. The image kernel is used for a tubelet's central frame. A learned position in time,
which starts at zero, is added to each token. Attention does not change: a clip is one segment, and all tokens of a clip attend
to each other. This is the central frame initialisation of ViViT (2103.15691), which NaViT (2307.06304) uses too.
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
    """The sum of positions in space and in time: ``spatial(row, col) + table[time]``.

    The table starts at zero, so before training every time has the positions of an image. Images have time 0, which is learned
    like all other times.

    Args:
        spatial: a module of `patchpack.model.positions` or `waves`, or a custom module of positions. None if the model has
            rotary positions only.
        width: values per token.
        max_times: number of entries in the table, the largest number of tubelets along time (`patchpack.Video.max_times`).

    Raises:
        ConfigError: the table would have no entries.
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
        """Return one vector per token, ``[T, width]``.

        Args:
            position_ids: ``[T, 1 + A]``, ids of each token: the time, then A ids for `spatial`.
            grids: ``[T, 2]``, (rows, cols) of the image of each token.
        """
        moment = F.embedding(position_ids[:, 0].long(), self.table)
        return moment if self.spatial is None else moment + self.spatial(position_ids[:, 1:], grids)

    def check(self, grid_sizes: Tensor) -> None:
        """Check grids with the method `check` of `spatial`, if there is one."""
        if (check := getattr(self.spatial, "check", None)) is not None:
            check(grid_sizes)

    def check_times(self, times: Tensor | None) -> None:
        """Raise `ShapeError` for a batch that was made without `video`, and for a clip longer than the table.

        While compiling, the length of clips is not checked.

        Raises:
            ShapeError: the batch does not fit. The error gives the setting that the recipe should have.
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
    """Copy an image model, and change the copy so that it takes batches of clips, of images, or of both.

    An image counts as a clip of equal frames. For an image, the copy gives the result of the original model. For a clip, the
    first block gets, for each tubelet, the token that the original model makes of the tubelet's central frame. This is so only
    before training, when no weight depends on time.

    Args:
        model: any `ViT`. The weights are copied.
        tubelet: number of frames per token, as in the recipe's `patchpack.Video`.
        max_times: the largest number of tubelets along time.

    Returns:
        A model of the same class as `model`. The patch kernel is made by `inflate_kernel`. The positions are
        `TemporalPositions` around the original positions. Everything else is unchanged.

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
