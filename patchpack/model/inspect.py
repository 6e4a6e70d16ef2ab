"""Tools to inspect a model: features as colours, distances of attention, similarity of positions, and alignment of features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ShapeError
from patchpack.model.layout import Layout
from patchpack.model.vit import ViT


def pca_colours(features: Tensor) -> Tensor:
    """Return the first three principal components of features, as red, green and blue.

    Args:
        features: float ``[T, d]``, all features that share one colour scale, for instance those of several images.

    Returns:
        uint8 ``[T, 3]``: the components, the one with the largest variance first. Each component is stretched so that its 1st
        and 99th percentile are 0 and 255. The sign of a component is chosen so that the largest absolute value is bright. If
        there are fewer than three components, each missing one is middle grey.
    """
    x = features.detach().float()
    x = x - x.mean(0) if len(x) else x
    colours = torch.full((len(x), 3), 127.0, device=x.device)
    if len(x) < 2:
        return colours.to(torch.uint8)
    _, scales, directions = torch.linalg.svd(x, full_matrices=False)
    for i in range(min(3, len(scales))):
        if scales[i] <= 1e-6 * scales[0] or not scales[0]:
            break
        line = x @ directions[i]
        line = line * torch.sign(line[line.abs().argmax()])
        low, high = (torch.quantile(line[: 1 << 24], q) for q in (0.01, 0.99))  # the most that quantile takes
        colours[:, i] = ((line - low) / (high - low).clamp(min=1e-12) * 255).clamp(0, 255)
    return colours.round().to(torch.uint8)


@torch.no_grad()
def attention_distance(model: ViT, batch: PackedBatch) -> Tensor:
    """Measure how far each head attends (ViT 2010.11929, figure 7), in pixels of the resized images.

    Args:
        model: a model with ``static=False``. Its blocks run on one image at a time.
        batch: a batch with integer (row, col) positions.

    Returns:
        float ``[depth, heads]``: the mean over all patches i of ``patch_size · Σ_j a_ij ‖p_i − p_j‖ / Σ_j a_ij``. The sums are
        over the patches j of the same image. Here a is the head's attention, and p is (row, col). Class and register tokens are
        left out.
    """
    if model.static:
        raise ShapeError("attention_distance needs a model made with static=False")
    ids = batch.position_ids.float()
    found: list[Tensor] = []

    def record(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        patch = (layout.tokens % layout.seq_len) < ids.shape[1]
        padded = F.pad(ids, (0, 0, 0, layout.seq_len - ids.shape[1]))
        own = layout.to_ragged(padded)
        outs, total = [], q.new_zeros(q.shape[1])
        for start, stop in zip(layout.cu_seqlens[:-1].tolist(), layout.cu_seqlens[1:].tolist(), strict=True):
            image = slice(start, stop)
            scores = torch.einsum("ihd,jhd->hij", q[image], k[image]) * q.shape[2] ** -0.5
            weights = scores.softmax(-1)
            outs.append(torch.einsum("hij,jhd->ihd", weights, v[image]))
            among = weights[:, patch[image]][:, :, patch[image]]
            far = torch.cdist(own[image][patch[image]], own[image][patch[image]])
            total = total + ((among * far).sum(-1) / among.sum(-1)).sum(-1)
        found.append(total / patch.sum().clamp(min=1) * batch.patch_size)
        return torch.cat(outs) if outs else v

    with _attending(model, record):
        model.features(batch)
    return torch.stack(found)


@torch.no_grad()
def position_similarity(positions: nn.Module, rows: int, cols: int) -> Tensor:
    """Return the cosine similarity of every position of a grid with every other (ViT 2010.11929, figure 7).

    Args:
        positions: a module of `patchpack.model.positions` or `waves` for integer (row, col).
        rows: rows of the grid.
        cols: columns of the grid.

    Returns:
        float ``[rows, cols, rows, cols]`` in [−1, 1].
    """
    ids = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).view(-1, 2).int()
    like = next(iter([*positions.parameters(), *positions.buffers()]), ids)
    vectors = F.normalize(
        positions(ids.to(like.device), torch.tensor([[rows, cols]], device=like.device).expand_as(ids)), dim=1
    )
    return (vectors @ vectors.T).view(rows, cols, rows, cols)


class MinibatchCKA:
    """Linear centred kernel alignment of two kinds of features of the same images, batch by batch (2010.15327 §2).

    The alignment is ``Σ HSIC₁(K, L) / √(Σ HSIC₁(K, K) · Σ HSIC₁(L, L))``. The sums are over batches. For the features X and Y
    of a batch, ``K = X Xᵀ`` and ``L = Y Yᵀ``. HSIC₁ is the unbiased estimator. In expectation the sums do not depend on how
    images are batched. The FlexiViT paper compares patch sizes with this alignment (2212.08013, figure 8).

    Example:
        >>> cka, x = MinibatchCKA(), torch.randn(8, 5)
        >>> cka.update(x, 3 * x)
        >>> round(cka.value, 6)
        1.0
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add a batch: features ``[n, d]`` and ``[n, e]`` of the same n images, n >= 4.

        Raises:
            ShapeError: there are fewer than 4 images, or `x` and `y` have different numbers of images.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 4:
            raise ShapeError(f"expected [n, d] and [n, e] of the same n >= 4 images, got {list(x.shape)} and {list(y.shape)}")
        k, l_ = (_without_diagonal(f.detach().double() @ f.detach().double().T) for f in (x, y))
        self._sums += torch.stack([_hsic(k, l_), _hsic(k, k), _hsic(l_, l_)]).cpu()

    @property
    def value(self) -> float:
        """Alignment: 1 for features that differ by rotation and scale, about 0 for unrelated features, NaN without a batch."""
        both, one, other = self._sums.tolist()
        return float(both / (one * other) ** 0.5) if one * other > 0 else float("nan")


def _without_diagonal(gram: Tensor) -> Tensor:
    return gram - torch.diag(gram.diagonal())


def _hsic(k: Tensor, m: Tensor) -> Tensor:
    """Return HSIC₁, the unbiased estimator, for two Gram matrices whose diagonals are zero."""
    n = len(k)
    cross = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) * m.sum(0)).sum()
    hsic: Tensor = ((k * m).sum() + cross) / (n * (n - 3))
    return hsic


@contextmanager
def _attending(model: ViT, attend: object) -> Iterator[None]:
    """Make all blocks attend with another function inside the ``with`` block."""
    before = [block.attend for block in model.blocks]
    try:
        for block in model.blocks:
            block.attend = attend  # type: ignore[assignment]
        yield
    finally:
        for block, old in zip(model.blocks, before, strict=True):
            block.attend = old
