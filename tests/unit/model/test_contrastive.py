"""Contrastive losses against the definition on full slots alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from patchpack.errors import ConfigError, ShapeError
from patchpack.model import sigmoid_contrastive, softmax_contrastive

Loss = Callable[..., Tensor]


def softmax_by_definition(x: Tensor, y: Tensor, scale: float) -> Tensor:
    logits = scale * F.normalize(x, dim=1) @ F.normalize(y, dim=1).T
    own = torch.arange(len(x))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def sigmoid_by_definition(x: Tensor, y: Tensor, scale: float) -> Tensor:
    logits = scale * F.normalize(x, dim=1) @ F.normalize(y, dim=1).T - 2.0
    signs = 2 * torch.eye(len(x)) - 1
    return -F.logsigmoid(signs * logits).sum() / len(x)


LOSSES: dict[str, tuple[Loss, Loss]] = {
    "softmax": (softmax_contrastive, softmax_by_definition),
    "sigmoid": (partial(sigmoid_contrastive, bias=-2.0), sigmoid_by_definition),
}
kinds = pytest.mark.parametrize("kind", LOSSES)


@kinds
@given(
    mask=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4),
    chunk=st.integers(1, 13),
    junk=st.sampled_from([0.0, 1e6, torch.nan, torch.inf]),
    seed=st.integers(0, 2**32),
)
def test_only_full_slots_count(mask: list[list[bool]], chunk: int, junk: float, seed: int, kind: str) -> None:
    """The same loss and gradients as on the full slots alone; none in empty ones, whatever stands there."""
    loss, definition = LOSSES[kind]
    full = torch.tensor(mask)
    features = torch.randn(2, *full.shape, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x, y = torch.where(full[None, ..., None], features, junk).requires_grad_().unbind(0)
    x.retain_grad(), y.retain_grad()
    answer = loss(x, y, full, scale=3.0, chunk=chunk)
    answer.backward()
    alone = [value[full].clone().requires_grad_() for value in features]
    if full.any():
        expected = definition(*alone, 3.0)
        expected.backward()
        torch.testing.assert_close(answer, expected)
    else:
        assert answer == 0
    for value, own in zip((x, y), alone, strict=True):
        assert not value.grad[~full].any()
        if full.any():
            torch.testing.assert_close(value.grad[full], own.grad)


@kinds
def test_scale_is_learned(kind: str) -> None:
    scale = torch.tensor(2.0, requires_grad=True)
    x, y = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    LOSSES[kind][0](x, y, torch.ones(2, 3, dtype=torch.bool), scale=scale, chunk=4).backward()
    assert scale.grad is not None
    assert scale.grad != 0


@kinds
def test_no_slots_at_all(kind: str) -> None:
    x = torch.zeros(0, 3, 4, requires_grad=True)
    loss = LOSSES[kind][0](x, x, torch.zeros(0, 3, dtype=torch.bool), scale=1.0)
    loss.backward()
    assert loss == 0


@kinds
def test_the_table_of_logits_is_never_made(kind: str) -> None:
    """No tensor kept for the backward pass is as large as a chunk of it."""
    x, y = torch.randn(2, 8, 16, 4, generator=torch.Generator().manual_seed(0)).requires_grad_().unbind(0)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        LOSSES[kind][0](x, y, torch.ones(8, 16, dtype=torch.bool), scale=1.0, chunk=16)
    assert max(kept) < 16 * 128


@kinds
def test_other_slots_are_refused(kind: str) -> None:
    loss = LOSSES[kind][0]
    x, mask = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"got \[2, 3, 4\], \[2, 2, 4\] and \[2, 3\]"):
        loss(x, x[:, :2], mask, scale=1.0)
    with pytest.raises(ConfigError, match="chunk must be at least 1, got 0"):
        loss(x, x, mask, scale=1.0, chunk=0)
