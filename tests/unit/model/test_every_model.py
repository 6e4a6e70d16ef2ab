"""Packed equals alone for every kind of positions, attention and pooling, in both precisions, outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.by_hand import pack
from patchpack.model import ViT
from patchpack.model.interpolate import CONVENTIONS
from patchpack.model.positions import FactorizedPositions, GridPositions, JointPositions, RasterPositions
from patchpack.model.waves import FourierPositions, SinusoidalPositions

W, MAX_LEN = 8, 6
POSITIONS: dict[str, Callable[[], nn.Module | None]] = {
    "none": lambda: None,
    "rope": lambda: None,
    "raster": lambda: RasterPositions(width=W, max_tokens=MAX_LEN**2),
    "joint": lambda: JointPositions(width=W, max_len=MAX_LEN),
    "pix2struct": lambda: FactorizedPositions(width=W, max_len=MAX_LEN + 1, first=1),
    "sinusoidal": lambda: SinusoidalPositions(width=W),
    "fourier": lambda: FourierPositions(width=W),
    "fractional sinusoidal": lambda: SinusoidalPositions(width=W, fractional=True, max_len=MAX_LEN),
    "fractional fourier": lambda: FourierPositions(width=W, fractional=True),
    **{
        f"grid, {name}": lambda how=CONVENTIONS[name]: GridPositions(grid=(3, 4), width=W, how=how)
        for name in ("timm", "big_vision vit", "torchvision")  # antialias, pinned corners, bicubic
    },
    "grid, aspect": lambda: GridPositions(grid=(3, 3), width=W, how=CONVENTIONS["timm"], preserve_aspect=True),
    **{
        f"{'fractional ' * fractional}{combine}": lambda c=combine, f=fractional: FactorizedPositions(
            width=W, max_len=MAX_LEN, combine=c, fractional=f
        )
        for combine, fractional in product(("sum", "product", "stack"), (False, True))
    },
}
ATTENTION = ("loop", "bucketed", "dense", "static")
POOLS: tuple[dict[str, Any], ...] = (
    {"pool": "map"},
    {"pool": "mean", "registers": 2},
    {"pool": "class", "class_token": True},
    {"pool": "map", "class_token": True, "registers": 1, "norm": "after"},
)
GRIDS = [[(2, 3), (1, 1), (6, 2)], [(1, 1)], [], [(2, 3), (4, 5)]]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, torch.float64) for kind in POSITIONS),
        ("sum", torch.float32),
        *(pytest.param(kind, torch.float32, marks=pytest.mark.slow) for kind in POSITIONS if kind != "sum"),
    ],
    ids=str,
)
def test_packed_equals_alone(kind: str, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    rows = [[(grid, torch.randn(grid[0] * grid[1], 12, generator=random).to(dtype)) for grid in row] for row in GRIDS]
    packing = {"fractional": kind.startswith("fractional")}
    batch = pack(rows, spare=3, **packing)
    weights = torch.randn(*batch.slot_mask.shape, 4, generator=random).to(dtype)
    # every attention with every pooling for one kind; for the others each attention, with a pooling in turn
    pairs = product(ATTENTION, POOLS) if kind == "sum" else zip(ATTENTION, POOLS, strict=True)
    for attention, pool in pairs:
        static = attention == "static"
        torch.manual_seed(0)
        model = ViT(
            patch_size=2, width=W, depth=2, heads=2, num_classes=4, positions=POSITIONS[kind](),
            rope=100.0 if kind == "rope" else None, attention="auto" if static else attention, static=static, **pool,
        ).to(dtype)  # fmt: skip
        parameters = list(model.parameters())
        out = model(batch)
        gradients = torch.autograd.grad((out * weights).sum(), parameters)
        assert not out[~batch.slot_mask].any()
        total = torch.zeros((), dtype=dtype)
        for b, row in enumerate(rows):
            for slot, image in enumerate(row):
                own = model(pack([[image]], **packing))[0, 0]
                close(out[b, slot], own, dtype)
                total = total + (own * weights[b, slot]).sum()
        for gradient, expected in zip(gradients, torch.autograd.grad(total, parameters), strict=True):
            close(gradient, expected, dtype)


def close(one: Tensor, other: Tensor, dtype: torch.dtype) -> None:
    """Within the tolerance, against numbers as large as their largest."""
    scale = max(1.0, float(other.detach().abs().max()))
    torch.testing.assert_close(one, other, rtol=0, atol=TOLERANCE[dtype] * scale)
