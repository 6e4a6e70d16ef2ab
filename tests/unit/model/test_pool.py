"""Tokens to one vector per image, by hand: what the model adds to an image is no patch of it."""

from __future__ import annotations

import torch

from patchpack.model.block import BlockStyle
from patchpack.model.layout import Layout, with_prefix
from patchpack.model.pool import AttentionPool, ClassToken, MeanPool
from patchpack.model.static import StaticLayout

SEGMENTS = torch.tensor([[1, 1, 2, 0], [2, 2, 2, 0]])  # the second row's first image could not be read
USED = torch.tensor([[True, True, False], [False, True, False]])
# three slots, each with a class token and a register behind the row
LONGER = [[1, 1, 2, 0, 1, 1, 2, 2, 0, 0], [2, 2, 2, 0, 0, 0, 2, 2, 0, 0]]
VALUES = torch.tensor([[1.0, 3, 5, 99, 10, 20, 30, 40, 99, 99], [1, 2, 6, 99, 99, 99, 50, 60, 99, 99]])
KINDS = (Layout, StaticLayout)


def pooled(pool: torch.nn.Module, kind: type[Layout | StaticLayout]) -> list[list[float]]:
    """One number per slot."""
    layout = kind.of(torch.tensor(LONGER), 3)
    return layout.to_slots(pool(layout.to_ragged(VALUES[..., None]), layout, 2))[..., 0].tolist()  # type: ignore[arg-type]


def test_only_slots_with_an_image_get_tokens_of_the_model() -> None:
    assert with_prefix(SEGMENTS, USED, 2).tolist() == LONGER


def test_the_mean_is_over_patches() -> None:
    for kind in KINDS:
        assert pooled(MeanPool(), kind) == [[2, 5, 0], [0, 3, 0]]


def test_the_class_token_is_the_first_of_its_slot() -> None:
    for kind in KINDS:
        assert pooled(ClassToken(), kind) == [[10, 30, 0], [0, 50, 0]]


def test_attention_pooling_looks_at_patches() -> None:
    """With keys of 0 all patches weigh the same; the MLP adds nothing."""
    pool = AttentionPool(width=1, heads=1, mlp_dim=1, style=BlockStyle(bias=False))
    with torch.no_grad():
        pool.kv.weight.copy_(torch.tensor([[0.0], [1.0]]))
        pool.out.weight.fill_(1)
        pool.mlp[2].weight.zero_()
        for kind in KINDS:
            assert torch.tensor(pooled(pool, kind)).allclose(torch.tensor([[2.0, 5, 0], [0, 3, 0]]))
