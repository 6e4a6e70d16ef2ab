"""Cross-entropy per image. A packed row holds any number of images, so the mean must not be over rows."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from patchpack.errors import ConfigError, ShapeError

NO_TARGET = -100


def cross_entropy(logits: Tensor, targets: Tensor, *, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Mean or sum over labelled images, however they are packed.

    Args:
        logits: float ``[B, E, classes]``.
        targets: int64 ``[B, E]``, class indices; −100 in slots without a labelled image.
        reduction: ``"mean"`` over the labelled images of this batch, or their ``"sum"``: what to add up where one step has
            several batches (ranks, accumulation), see `patchpack.global_images`.

    Returns:
        A scalar: the sum of ``−log softmax(logits)[target]`` over labelled slots; for ``"mean"`` divided by their number.
        Without any labelled image it is 0 with zero gradients, so an empty batch at an epoch's end is a step like any other.

    Raises:
        ShapeError: if logits and targets do not describe the same slots.
        ConfigError: for another reduction.
    """
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"reduction is 'mean' or 'sum', got {reduction!r}")
    if logits.ndim != 3 or logits.shape[:2] != targets.shape:
        raise ShapeError(
            f"logits must be [B, E, classes] and targets [B, E], got {list(logits.shape)} and {list(targets.shape)}"
        )
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, reduction="sum")
    return total if reduction == "sum" else total / (targets != NO_TARGET).sum().clamp(min=1)
