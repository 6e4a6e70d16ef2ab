"""Contrastive losses over the slots of a batch: image features against the features of their partners, such as captions.

All ``N = B · E`` slots take part, so shapes never change. Empty slots are masked out (NaViT 2307.06304 §2.2). The N × N table
of logits is large, and most of it belongs to empty slots. So the whole table is never stored: `chunk` rows of the table are
computed at a time, and computed again for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from patchpack.errors import ConfigError, ShapeError


def softmax_contrastive(images: Tensor, others: Tensor, mask: Tensor, *, scale: Tensor | float, chunk: int = 1024) -> Tensor:
    """Return CLIP's loss (2103.00020 §2.3): each image must find its partner among all partners of the batch, and vice versa.

    Args:
        images: float ``[B, E, d]``, features of the images. They are scaled to norm 1 here.
        others: float ``[B, E, d]``, features of the partners: an image and its partner are in the same slot. They are
            scaled to norm 1 here.
        mask: bool ``[B, E]``, True for slots that hold a pair, for example a batch's `slot_mask`.
        scale: factor of the similarities, the inverse temperature. It may be learned.
        chunk: number of rows of logits that are computed at a time, >= 1. Memory is ``chunk · B · E`` numbers, forward and
            backward. Default 1024.

    Returns:
        A scalar, the mean over pairs of ``(logsumexp_j s_ij + logsumexp_j s_ji) / 2 − s_ii`` with
        ``s_ij = scale · ⟨image_i, other_j⟩``. Without any pair the loss is 0 with zero gradients. Empty slots never get a
        gradient.

    Raises:
        ShapeError: features and mask do not describe the same slots.
        ConfigError: `chunk` is below 1.
    """
    x, y, real = _flat(images, others, mask, chunk)
    scaled = x * scale
    lowest = torch.finfo(x.dtype).min

    def part(rows: Tensor, real_rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = rows @ y.T
        along = logits.masked_fill(~real, lowest).logsumexp(1)
        return along, logits.masked_fill(~real_rows[:, None], lowest).logsumexp(0)

    parts = [_again(part, rows, some) for rows, some in _chunks(chunk, scaled, real)]
    if not parts:
        return (x.sum() + y.sum()) * 0
    along, down = torch.cat([a for a, _ in parts]), torch.stack([d for _, d in parts]).logsumexp(0)
    each = (along + down) / 2 - (scaled * y).sum(1)
    return _mean(each, real)


def sigmoid_contrastive(
    images: Tensor, others: Tensor, mask: Tensor, *, scale: Tensor | float, bias: Tensor | float, chunk: int = 1024
) -> Tensor:
    """Return SigLIP's loss (2303.15343 §3.2): one binary decision per image and partner, whether the two belong together.

    Args:
        images: float ``[B, E, d]``, features of the images. They are scaled to norm 1 here.
        others: float ``[B, E, d]``, features of the partners: an image and its partner are in the same slot. They are
            scaled to norm 1 here.
        mask: bool ``[B, E]``, True for slots that hold a pair, for example a batch's `slot_mask`.
        scale: factor of the similarities, the inverse temperature. It may be learned.
        bias: number added to every scaled similarity. It may be learned.
        chunk: number of rows of logits that are computed at a time, >= 1. Memory is ``chunk · B · E`` numbers, forward and
            backward. Default 1024.

    Returns:
        A scalar, ``−(1 / pairs) · Σ_ij log σ(z_ij · (scale · ⟨image_i, other_j⟩ + bias))``. The sum is over full slots. z is 1
        on the diagonal and −1 elsewhere. Without any pair the loss is 0 with zero gradients. Empty slots never get a gradient.

    Raises:
        ShapeError: features and mask do not describe the same slots.
        ConfigError: `chunk` is below 1.
    """
    x, y, real = _flat(images, others, mask, chunk)
    numbers = torch.arange(len(x), device=x.device)

    def part(rows: Tensor, own: Tensor) -> Tensor:
        logits = rows @ y.T * scale + bias
        own_logits = (rows * y.index_select(0, own)).sum(1) * scale + bias
        against: Tensor = F.softplus(logits).masked_fill(~real, 0).sum(1)
        return against - F.softplus(own_logits) + F.softplus(-own_logits)

    parts = [_again(part, rows, own) for rows, own in _chunks(chunk, x, numbers)]
    return _mean(torch.cat(parts), real) if parts else (x.sum() + y.sum()) * 0


def _flat(images: Tensor, others: Tensor, mask: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return both features ``[N, d]``, scaled to norm 1, and the mask, bool ``[N]``. Features of empty slots become zeros."""
    if images.ndim != 3 or images.shape != others.shape or images.shape[:2] != mask.shape:
        raise ShapeError(
            f"both features must be [B, E, d] and the mask [B, E], got {list(images.shape)}, {list(others.shape)} and "
            f"{list(mask.shape)}"
        )
    if chunk < 1:
        raise ConfigError(f"chunk must be at least 1, got {chunk}")
    real = mask.flatten()
    x, y = (F.normalize(torch.where(real[:, None], values.flatten(0, 1), 0.0), dim=1, eps=1e-8) for values in (images, others))
    return x, y, real


def _chunks(chunk: int, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(column, chunk) for column in columns), strict=True)


def _again(part: Callable[..., Any], *arguments: Tensor) -> Any:
    """Return the result of `part`. No intermediate result is stored: `part` is computed again for its gradient."""
    return checkpoint(part, *arguments, use_reentrant=False)


def _mean(each: Tensor, real: Tensor) -> Tensor:
    return torch.where(real, each, 0.0).sum() / real.sum().clamp(min=1)
