"""Classification losses per image. A packed row holds any number of images, so the mean must not be over rows."""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from patchpack.batch._types import Targets
from patchpack.errors import ConfigError, ShapeError

NO_TARGET = -100
Reduction = Literal["mean", "sum"]


def cross_entropy(logits: Tensor, targets: Targets, *, reduction: Reduction = "mean") -> Tensor:
    """Return the mean or the sum of cross-entropy over labelled images, however they are packed.

    Args:
        logits: float ``[B, E, classes]``.
        targets: int64 ``[B, E]``, class indices, −100 in slots without a labelled image.
        reduction: ``"mean"`` (the default) or ``"sum"``, over the labelled images of this batch. If one step has several
            batches (ranks, accumulation), use the sum (see `patchpack.global_images`).

    Returns:
        A scalar: the sum of ``−log softmax(logits)[target]`` over labelled slots. With ``"mean"`` this sum is divided by the
            number of labelled slots. Without any labelled image the loss is 0 with zero gradients, so an empty batch at the end
            of an epoch is a step like any other.

    Raises:
        ShapeError: logits and targets do not describe the same slots.
        ConfigError: the reduction is unknown.
    """
    _require(reduction)
    labels = cast("Tensor", targets)  # other kinds of targets have losses of their own
    if logits.ndim != 3 or logits.shape[:2] != labels.shape:
        raise ShapeError(
            f"logits must be [B, E, classes] and targets [B, E], got {list(logits.shape)} and {list(labels.shape)}"
        )
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_TARGET, reduction="sum")
    return total if reduction == "sum" else total / (labels != NO_TARGET).sum().clamp(min=1)


def sigmoid_cross_entropy(logits: Tensor, targets: Targets, *, reduction: Reduction = "mean") -> Tensor:
    """Return the binary cross-entropy summed over classes, as a mean or sum over labelled images. It is NaViT's loss on JFT.

    Args:
        logits: float ``[B, E, classes]``.
        targets: int64 ``[B, E]`` with one class per image, and −100 in slots without a labelled image. Or float ``[B, E,
            classes]`` in [0, 1] with any number of classes per image, and NaN in slots without a labelled image.
        reduction: ``"mean"`` (the default) or ``"sum"``, over the labelled images of this batch.

    Returns:
        A scalar: the sum of ``−t log σ(x) − (1 − t) log σ(−x)`` over labelled slots and classes, with logit x and target t.
            With ``"mean"`` this sum is divided by the number of labelled slots. Without any labelled image the loss is 0 with
            zero gradients.

    Raises:
        ShapeError: logits and targets do not describe the same slots.
        ConfigError: the reduction is unknown.
    """
    _require(reduction)
    labels = cast("Tensor", targets)  # other kinds of targets have losses of their own
    if logits.ndim != 3 or labels.shape not in (logits.shape, logits.shape[:2]):
        raise ShapeError(
            f"logits must be [B, E, classes] and targets [B, E] or [B, E, classes], got {list(logits.shape)} and "
            f"{list(labels.shape)}"
        )
    if labels.ndim == 2:
        labelled = labels != NO_TARGET
        wanted = F.one_hot(torch.where(labelled, labels, 0), logits.shape[2]).to(logits.dtype)
    else:
        labelled = ~labels.isnan().any(-1)
        wanted = torch.where(labelled[..., None], labels, 0.0).to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(-1)
    total = torch.where(labelled, each, 0.0).sum()
    return total if reduction == "sum" else total / labelled.sum().clamp(min=1)


def _require(reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
