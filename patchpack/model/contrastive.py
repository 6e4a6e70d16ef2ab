"""Contrastive losses over the slots of a batch: image features against what belongs to them, a caption's features for instance.

All ``N = B · E`` slots take part in a shape that never changes, empty ones masked out (NaViT 2307.06304 §2.2), so the N × N
table of logits is mostly about slots that hold nothing. It is never made: rows of it are, `chunk` at a time, and made again for
the gradient.
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
    """CLIP's loss (2103.00020 §2.3): each image finds its own among all others of the batch, and each of those its image.

    Args:
        images, others: float ``[B, E, d]``, aligned by slot; both are normalised here to length 1.
        mask: bool ``[B, E]``, slots that hold a pair, as a batch's `slot_mask`.
        scale: what similarities are multiplied by, the inverse temperature; may be learned.
        chunk: rows of logits at a time: memory is ``chunk · B · E`` numbers, forward and backward.

    Returns:
        A scalar, the mean over pairs of ``(logsumexp_j s_ij + logsumexp_j s_ji) / 2 − s_ii`` with
        ``s_ij = scale · ⟨image_i, other_j⟩``. 0 with zero gradients where there is no pair; never a gradient in an empty slot.

    Raises:
        ShapeError: features or mask of other slots.
        ConfigError: a chunk below 1.
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
    """SigLIP's loss (2303.15343 §3.2): every pair of an image and an other is a question of its own, do they belong together?

    Args:
        images, others, mask, scale, chunk: see `softmax_contrastive`.
        bias: added to every scaled similarity; may be learned.

    Returns:
        A scalar, ``−(1 / pairs) · Σ_ij log σ(z_ij · (scale · ⟨image_i, other_j⟩ + bias))`` over full slots, z = 1 on the
        diagonal and −1 off it. 0 with zero gradients where there is no pair; never a gradient in an empty slot.

    Raises:
        ShapeError: features or mask of other slots.
        ConfigError: a chunk below 1.
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
    """Features ``[N, d]`` of length 1, and bool ``[N]``; what stands in empty slots is replaced by zeros."""
    if images.ndim != 3 or images.shape != others.shape or images.shape[:2] != mask.shape:
        raise ShapeError(
            f"features must both be [B, E, d] and the mask [B, E], got {list(images.shape)}, {list(others.shape)} and "
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
    """What `part` gives; it is computed again for its gradient, and nothing of it is kept until then."""
    return checkpoint(part, *arguments, use_reentrant=False)


def _mean(each: Tensor, real: Tensor) -> Tensor:
    return torch.where(real, each, 0.0).sum() / real.sum().clamp(min=1)
