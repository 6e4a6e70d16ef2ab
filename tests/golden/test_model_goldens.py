"""The model's arithmetic beside published code: tables resized to other grids, patch kernels to other patches, sines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import patchpack as pp
from helpers.goldens import load
from patchpack.model.interpolate import CONVENTIONS, Interpolation, resize_grid
from patchpack.model.kernel import FLEXIVIT, resize_kernel
from patchpack.model.positions import FactorizedPositions, GridPositions
from patchpack.model.waves import SinusoidalPositions
from patchpack.types import Grid

ATOL = 1e-6  # the tables are unit-normal float32, and so are the peers' sums
KERNEL = 1e-5  # of the largest weight: the peers invert in float32

BICUBIC, BILINEAR = CONVENTIONS["timm"], CONVENTIONS["siglip2"]


class Case(NamedTuple):
    table: tuple[int, int]
    size: tuple[int, int]
    expected: Tensor


def cases(golden: dict[str, Any], prefix: str) -> Iterator[Case]:
    """What a peer made of its table, size after size."""
    found = 0
    for key, value in golden.items():
        if match := re.fullmatch(rf"{prefix}_(\d+)x(\d+)_to_(\d+)x(\d+)", key):
            found += 1
            old_rows, old_cols, rows, cols = map(int, match.groups())
            yield Case((old_rows, old_cols), (rows, cols), torch.from_numpy(value))
    assert found >= 3


def ids_of(size: tuple[int, int], scheme: pp.positions.PositionScheme | None = None) -> tuple[Tensor, Tensor]:
    ids = torch.from_numpy((scheme or pp.positions.Absolute())(Grid(*size)))
    return ids, torch.tensor(size).expand(len(ids), 2)


def assert_close(answer: Tensor, expected: Tensor, atol: float = ATOL) -> None:
    torch.testing.assert_close(answer.float(), expected, rtol=0, atol=atol)


GRIDS = {
    "FlexiViT": ("posemb_resize_bigvision", "flexi", CONVENTIONS["flexivit"]),
    "NaFlex": ("posemb_resize_bigvision", "naflex", CONVENTIONS["siglip2"]),
    "big_vision's ViT": ("posemb_resize_bigvision", "vit_zoom", CONVENTIONS["big_vision vit"]),
    "timm": ("posemb_resize_timm_hf", "abs_bicubic", BICUBIC),
    "timm, bilinear": ("posemb_resize_timm_hf", "abs_bilinear", BILINEAR),
    "timm's NaFlex": ("posemb_resize_timm_hf", "naflex_learned", BICUBIC),
    "timm's NaFlex, sampled": ("posemb_resize_timm_hf", "naflex_learned_gridsample", Interpolation()),
    "transformers' Siglip2": ("posemb_resize_timm_hf", "siglip2", CONVENTIONS["siglip2"]),
}


@pytest.mark.parametrize(("file", "prefix", "how"), GRIDS.values(), ids=GRIDS)
def test_a_table_for_one_grid_serves_another(file: str, prefix: str, how: Interpolation) -> None:
    golden = load(file)
    for table, size, expected in cases(golden, prefix):
        stored = golden.get(f"{prefix}__param_pos_embed")
        if stored is None:
            stored = golden[f"{prefix.split('_bi')[0]}_table_{table[0]}x{table[1]}"]
        values = torch.from_numpy(stored).view(*table, -1)
        assert_close(resize_grid(values, *size, how), expected)

        positions = GridPositions(grid=table, width=values.shape[-1], how=how)
        with torch.no_grad():
            positions.table.copy_(values)
            assert_close(positions(*ids_of(size)).view_as(expected), expected)


def test_timm_s_aspect_preserving_table_is_the_corner_of_a_square() -> None:
    """No module of ours does that: a `GridPositions` that is told of square grids does."""
    golden = load("posemb_resize_timm_hf")
    positions = GridPositions(grid=(8, 8), width=8, how=BICUBIC)
    with torch.no_grad():
        positions.table.copy_(torch.from_numpy(golden["naflex_learned_ar__param_pos_embed"])[0])
        for _, size, expected in cases(golden, "naflex_learned_ar"):
            ids, grids = ids_of(size)
            assert_close(positions(ids, torch.full_like(grids, max(size))).view_as(expected), expected)


FACTORIZED = {
    "resized": ("naflex_factorized", pp.positions.Fractional(centered=True)),
    "sampled": ("naflex_factorized_gridsample", pp.positions.Fractional(centered=True)),
    "aspect": ("naflex_factorized_ar", pp.positions.Fractional(keep_aspect=True, centered=True)),
}


@pytest.mark.parametrize(("prefix", "scheme"), FACTORIZED.values(), ids=FACTORIZED)
def test_timm_s_factorized_tables_are_fractional_ones(prefix: str, scheme: pp.positions.Fractional) -> None:
    golden = load("posemb_resize_timm_hf")
    positions = FactorizedPositions(width=8, max_len=8, fractional=True)
    with torch.no_grad():
        positions.rows.copy_(torch.from_numpy(golden[f"{prefix}__param_pos_embed_y"])[0])
        positions.cols.copy_(torch.from_numpy(golden[f"{prefix}__param_pos_embed_x"])[0])
        for _, size, expected in cases(golden, prefix):
            assert_close(positions(*ids_of(size, scheme)).view_as(expected), expected)


@pytest.mark.parametrize("size", [(3, 5), (14, 10)], ids=str)
def test_big_vision_s_sines(size: tuple[int, int]) -> None:
    golden = load("naflex_pixels_bigvision")[f"sincos2d_{size[0]}x{size[1]}_w16"]
    assert_close(SinusoidalPositions(width=16, moco=True)(*ids_of(size)), torch.from_numpy(golden))


KERNELS = {
    "big_vision": ("pi_resize_bigvision", "weight{}", (0, 1), FLEXIVIT),
    "timm": ("pi_resize_timm_bicubic_aa", "weight{}_oihw", (2, 3), CONVENTIONS["timm"]),
    "timm, as big_vision": ("pi_resize_timm_bilinear_noaa", "weight{}_oihw", (2, 3), FLEXIVIT),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("file", "weight", "dims", "how"), KERNELS.values(), ids=KERNELS)
def test_a_kernel_for_one_patch_size_serves_another(
    file: str, weight: str, dims: tuple[int, int], how: Interpolation, dtype: torch.dtype
) -> None:
    golden = load(file)
    sizes = [re.fullmatch(r"base(\d+)_to_(\d+)x(\d+)", key) for key in golden]
    assert sum(map(bool, sizes)) == 9
    for match in filter(None, sizes):
        base, height, width = map(int, match.groups())
        expected = torch.from_numpy(golden[match[0]])
        stored = torch.from_numpy(golden[weight.format(base)]).to(dtype)
        answer = resize_kernel(stored, (height, width), how=how, dims=dims)
        assert_close(answer, expected, atol=KERNEL * float(expected.abs().max()))
