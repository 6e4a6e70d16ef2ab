"""Resizing as matrices: every rule beside torch, the published one beside scipy, and what all of them keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patchpack.errors import ConfigError
from patchpack.model.interpolate import CONVENTIONS, Interpolation, resize_grid

RULES = [
    Interpolation(kernel=kernel, align_corners=corners, antialias=antialias)
    for kernel in ("bilinear", "bicubic")
    for corners, antialias in ((False, False), (True, False), (False, True))
]
SHAPES = [((14, 14), (7, 5)), ((14, 14), (16, 24)), ((7, 7), (20, 3)), ((2, 5), (1, 11)), ((1, 1), (4, 6)), ((3, 4), (3, 4))]

rules = pytest.mark.parametrize("how", RULES, ids=repr)
shapes = pytest.mark.parametrize(("source", "target"), SHAPES, ids=str)


def table_of(rows: int, cols: int, width: int = 3) -> Tensor:
    return torch.randn(rows, cols, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@rules
@shapes
def test_every_rule_is_torch_s(how: Interpolation, source: tuple[int, int], target: tuple[int, int]) -> None:
    table = table_of(*source)
    peer = F.interpolate(
        table.permute(2, 0, 1)[None], size=target, mode=how.kernel, align_corners=how.align_corners, antialias=how.antialias
    )[0].permute(1, 2, 0)
    torch.testing.assert_close(resize_grid(table, *target, how), peer, rtol=1e-12, atol=1e-12)


@shapes
def test_big_vision_s_is_scipy_zoom(source: tuple[int, int], target: tuple[int, int]) -> None:
    from scipy import ndimage  # here, because it takes a second to import

    table = table_of(*source)
    zoom = [new / old for new, old in zip(target, source, strict=True)]
    peer = ndimage.zoom(table.numpy(), (*zoom, 1), order=1)
    resized = resize_grid(table, *target, CONVENTIONS["big_vision vit"])
    np.testing.assert_allclose(resized.numpy(), peer, rtol=0, atol=1e-14)


@rules
@shapes
def test_every_line_of_a_matrix_sums_to_one(how: Interpolation, source: tuple[int, int], target: tuple[int, int]) -> None:
    for old, new in zip(source, target, strict=True):
        matrix = how.matrix(old, new)
        assert matrix.shape == (new, old)
        torch.testing.assert_close(matrix.sum(1), torch.ones(new, dtype=torch.float64), rtol=0, atol=1e-14)
    constant = torch.full((*source, 2), 5.0, dtype=torch.float64)
    torch.testing.assert_close(resize_grid(constant, *target, how), torch.full((*target, 2), 5.0, dtype=torch.float64))


@rules
@pytest.mark.parametrize("length", [1, 2, 7, 14])
def test_the_same_length_leaves_a_table_as_it_is(how: Interpolation, length: int) -> None:
    assert torch.equal(how.matrix(length, length), torch.eye(length, dtype=torch.float64))
    table = table_of(length, length).float()
    assert torch.equal(resize_grid(table, length, length, how), table)


@rules
def test_weights_of_many_lengths_at_once_are_lines_of_matrices(how: Interpolation) -> None:
    index, length = torch.tensor([0, 3, 11, 0, 6]), torch.tensor([1, 4, 12, 20, 7])
    lines = torch.stack([how.matrix(7, int(n))[int(i)] for i, n in zip(index, length, strict=True)])
    torch.testing.assert_close(how.weights(index, length, 7), lines.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(how.weights(index.double(), length, 7), lines, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", CONVENTIONS.values(), ids=CONVENTIONS)
def test_196_positions_become_4096(how: Interpolation) -> None:
    """ViT's fine-tuning at another resolution: 224 to 1024 pixels in patches of 16; the 2-D arrangement stays."""
    rows, cols = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    resized = resize_grid(torch.stack([rows, cols], dim=-1).double(), 64, 64, how)
    assert resized.shape == (64, 64, 2)
    assert resized.flatten(0, 1).shape[0] == 4096
    torch.testing.assert_close(resized[:, :, 0], resized[:, :, 1].T)
    torch.testing.assert_close(resized[:, :, 0], resized[:, :1, 0].expand(64, 64))
    assert (resized[8:56, 0, 0].diff() > 0).all()
    corner = 0.0 if how.align_corners else pytest.approx(0.0, abs=0.25)
    assert resized[0, 0, 0].item() == corner
    assert resized[31:33, 0, 0].mean().item() == pytest.approx(6.5)


def test_rules_are_not_interchangeable() -> None:
    """14 to 7 with and without antialias: up to 0.8 apart on unit-normal tables, a position's own size."""
    table = torch.randn(14, 14, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with_, without = (resize_grid(table, 7, 7, CONVENTIONS[name]) for name in ("flexivit", "paddleocr_vl"))
    assert (with_ - without).abs().max() > 0.5


def test_a_rule_that_nobody_defines_is_refused() -> None:
    with pytest.raises(ConfigError, match="antialias=True needs align_corners=False"):
        Interpolation(align_corners=True, antialias=True)
    with pytest.raises(ConfigError, match="kernel must be 'bilinear' or 'bicubic', got 'nearest'"):
        Interpolation(kernel="nearest")
