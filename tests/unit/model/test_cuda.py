"""The same numbers on a GPU: dense, flex and varlen against the loop on CPU. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

import patchpack as pp
from helpers.by_hand import pack
from patchpack.model import NaViT, ViT, cross_entropy
from patchpack.model.attention import has_varlen

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

GRIDS = [[(2, 3), (1, 1), (6, 2)], [(9, 20)], [], [(2, 3), (4, 5)]]


def batch() -> pp.PackedBatch:
    random = torch.Generator().manual_seed(0)
    return pack([[(grid, torch.randn(grid[0] * grid[1], 12, generator=random)) for grid in row] for row in GRIDS], spare=3)


def model(attention: str, *, static: bool = False) -> ViT:
    torch.manual_seed(0)
    return NaViT(patch_size=2, width=64, depth=2, heads=2, num_classes=4, attention=attention, static=static)


def answers(net: ViT, some: pp.PackedBatch, *, half: bool = False) -> list[torch.Tensor]:
    """Logits and gradients."""
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
        logits = net(some).float()
    targets = torch.where(some.slot_mask, 1, -100)
    gradients = torch.autograd.grad(cross_entropy(logits, targets), list(net.parameters()))
    return [value.detach().cpu() for value in (logits, *gradients)]


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("attention", ["dense", "flex"])
def test_rows_on_a_gpu_give_the_same_numbers(attention: str, static: bool) -> None:
    expected = answers(model("loop"), batch())
    found = answers(model(attention, static=static).cuda(), pp.standardize(batch().to("cuda")))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("attention", ["varlen", "auto"])
def test_the_flash_kernel_gives_the_same_numbers_in_bfloat16(attention: str) -> None:
    """As near to the dense mask in bfloat16 as that is to float32."""
    if not has_varlen():  # asked here, because it imports torch's compiler
        pytest.skip("this torch has no varlen_attn")
    exact = answers(model("loop"), batch())
    near = answers(model("dense").cuda(), pp.standardize(batch().to("cuda")), half=True)
    found = answers(model(attention).cuda(), pp.standardize(batch().to("cuda")), half=True)
    for one, other, truth in zip(found, near, exact, strict=True):
        allowed = 3 * (other - truth).abs().max() + 1e-2 * truth.abs().max() + 1e-6
        assert (one - truth).abs().max() <= allowed


def test_a_batch_without_images_is_a_step_like_any_other() -> None:
    some = pp.standardize(batch().to("cuda"))
    empty = some._replace(segment_ids=some.segment_ids * 0, grid_sizes=some.grid_sizes * 0, slot_mask=some.slot_mask & False)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        logits = model("auto").cuda()(empty)
    assert not logits.any()
