"""Angles of rotary positions, by hand: rows first, then columns."""

from __future__ import annotations

import torch

from patchpack.model.rope import Rope2d, rotate


def test_the_first_half_of_the_pairs_turns_with_the_row() -> None:
    rope = Rope2d(head_width=8, base=100.0)  # two pairs per axis, of 1 and of 1 / 10 per patch
    angles = rope(torch.tensor([[0, 0], [3, 0], [0, 5], [3, 5]]))
    expected = torch.tensor([[0, 0, 0, 0], [3, 0.3, 0, 0], [0, 0, 5, 0.5], [3, 0.3, 5, 0.5]])
    assert angles.allclose(expected)


def test_a_pair_is_a_value_and_the_one_half_a_head_further() -> None:
    x = torch.tensor([[[1.0, 2, 3, 4]]])
    quarter = torch.tensor([[torch.pi / 2, 0.0]])
    assert rotate(x, quarter).allclose(torch.tensor([[[-3.0, 2, 1, 4]]]), atol=1e-6)
