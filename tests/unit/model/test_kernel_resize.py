"""PI-resize: what FlexiViT (2212.08013 §3.4) proves of it, and how the other ways to resize a kernel fail."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from patchpack.errors import ConfigError, ShapeError
from patchpack.model.embed import PatchEmbed
from patchpack.model.interpolate import CONVENTIONS, Interpolation, resize_grid
from patchpack.model.kernel import FLEXIVIT, resize_kernel

SIZES = (48, 40, 30, 24, 20, 16, 15, 12, 10, 8, 6, 5)
UPWARD = [(old, new) for old, new in itertools.product(SIZES, SIZES) if old <= new]
OBLONG = [((8, 10), (10, 12)), ((8, 6), (9, 15)), ((8, 6), (15, 9)), ((1, 5), (4, 5)), ((5, 6), (5, 11))]
RULES = {"flexivit": FLEXIVIT, "timm": CONVENTIONS["timm"], "pinned": Interpolation(align_corners=True)}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def resized(patches: Tensor, size: tuple[int, int], how: Interpolation = FLEXIVIT) -> Tensor:
    """Pictures ``[n, h, w]`` of another size: what B does."""
    return resize_grid(patches.permute(1, 2, 0), *size, how).permute(2, 0, 1)


def tokens(patches: Tensor, kernels: Tensor) -> Tensor:
    return torch.einsum("nhw,khw->nk", patches, kernels)


@pytest.mark.parametrize("how", RULES.values(), ids=RULES)
def test_an_enlarged_patch_gives_the_same_token(how: Interpolation) -> None:
    for old, new in UPWARD:
        patches, kernels = normal(6, old, old), normal(4, old, old, seed=1)
        larger = tokens(resized(patches, (new, new), how), resize_kernel(kernels, (new, new), how=how))
        torch.testing.assert_close(larger, tokens(patches, kernels), rtol=1e-9, atol=1e-9, msg=f"{old} → {new}")


@pytest.mark.parametrize(("old", "new"), OBLONG, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 10])
def test_an_oblong_patch_too(old: tuple[int, int], new: tuple[int, int], channels: int) -> None:
    patches, kernels = normal(6, channels, *old), normal(4, channels, *old, seed=1)
    larger = resized(patches.flatten(0, 1), new).view(6, channels, *new)
    answer = torch.einsum("nchw,kchw->nk", larger, resize_kernel(kernels, new))
    torch.testing.assert_close(answer, torch.einsum("nchw,kchw->nk", patches, kernels), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("how", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("old", "new"), [((8, 8), (5, 5)), ((6, 8), (4, 10)), ((5, 6), (8, 9))], ids=str)
def test_it_is_the_pseudo_inverse_of_the_whole_resize(how: Interpolation, old: tuple[int, int], new: tuple[int, int]) -> None:
    """B from its definition, one unit picture after the other; the two axes apart are only a way to compute it."""
    units = torch.eye(old[0] * old[1], dtype=torch.float64).view(-1, *old)
    b = resized(units, new, how).flatten(1).T  # [new pixels, old pixels]
    kernels = normal(4, *old)
    expected = (torch.linalg.pinv(b.T) @ kernels.flatten(1).T).T.view(-1, *new)
    torch.testing.assert_close(resize_kernel(kernels, new, how=how), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("new", [4, 5, 6, 7])
def test_downward_no_other_kernel_is_nearer_for_white_patches(new: int) -> None:
    """``E (⟨Bx, w'⟩ − ⟨x, w⟩)² = |Bᵀ w' − w|²`` for x ~ N(0, I), least at ``pinv(Bᵀ) w``."""
    b = torch.kron(FLEXIVIT.matrix(8, new), FLEXIVIT.matrix(8, new))
    kernel = normal(1, 8, 8)
    best = resize_kernel(kernel, (new, new))

    def error(candidate: Tensor) -> float:
        return float((b.T @ candidate.flatten() - kernel.flatten()).square().sum())

    assert error(best) > 1e-3
    for seed, size in itertools.product(range(20), (1e-3, 1e-1, 1.0)):
        assert error(best + size * normal(1, new, new, seed=seed + 1)) > error(best)
    for method in ("plain", "area", "norm"):
        assert error(resize_kernel(kernel, (new, new), method=method)) > error(best)

    patches = normal(20_000, 8, 8, seed=99)  # and so it is on real draws, not only in expectation
    drawn = (tokens(resized(patches, (new, new)), best) - tokens(patches, kernel)).square().mean()
    assert float(drawn) == pytest.approx(error(best), rel=0.05)


X = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]], dtype=torch.float64)
W = torch.tensor([[[0.5, 0.6], [0.7, 0.8]]], dtype=torch.float64)


def test_two_by_two_to_three_by_hand() -> None:
    larger, kernel = resized(X, (3, 3)), resize_kernel(W, (3, 3))
    assert larger[0].mul(100).round(decimals=9).tolist() == [[10, 15, 20], [20, 25, 30], [30, 35, 40]]
    expected = [[0.1889, 0.2222, 0.2556], [0.2556, 0.2889, 0.3222], [0.3222, 0.3556, 0.3889]]
    assert kernel[0].round(decimals=4).tolist() == expected
    assert tokens(larger, kernel).item() == pytest.approx(0.7, abs=1e-12) == tokens(X, W).item()
    assert tokens(larger, resize_kernel(W, (3, 3), method="plain")).item() == pytest.approx(1.5375)


def test_two_by_two_to_four_by_hand() -> None:
    larger, kernel = resized(X, (4, 4)), resize_kernel(W, (4, 4))
    assert larger[0, 0].round(decimals=9).tolist() == [0.1, 0.125, 0.175, 0.2]
    assert kernel[0, 0].round(decimals=4).tolist() == [0.1025, 0.1125, 0.1325, 0.1425]
    assert tokens(larger, kernel).item() == pytest.approx(0.7, abs=1e-12)
    assert tokens(larger, resize_kernel(W, (4, 4), method="plain")).item() == pytest.approx(2.725)


@pytest.mark.parametrize("size", [4, 8, 16])
def test_a_constant_patch_of_twice_the_size(size: int) -> None:
    """The paper's ¼: its token grows by 4 if the kernel is resized like a picture."""
    kernels, patch = normal(5, size, size), torch.ones(1, 2 * size, 2 * size, dtype=torch.float64)
    before = tokens(patch[:, :size, :size], kernels)
    for method, growth in (("plain", 4.0), ("area", 1.0), ("pi", 1.0)):
        after = tokens(patch, resize_kernel(kernels, (2 * size, 2 * size), method=method))
        torch.testing.assert_close(after, growth * before, rtol=1e-9, atol=1e-9)


def test_norm_keeps_the_norm_of_each_output() -> None:
    kernels = normal(5, 3, 8, 8) * torch.arange(5)[:, None, None, None]  # one of them zero
    same = resize_kernel(kernels, (12, 5), method="norm")
    torch.testing.assert_close(same.flatten(1).norm(dim=1), kernels.flatten(1).norm(dim=1))
    assert not same[0].any()
    plain = resize_kernel(kernels, (12, 5), method="plain")
    ratios = same[1:] / plain[1:]
    torch.testing.assert_close(ratios, ratios[:, :1, :1, :1].expand_as(ratios))


def test_resizes_do_not_chain() -> None:
    """Through 8 pixels nearly everything is lost, so the stored kernel is what is resized, each time."""
    kernel = normal(1, 32, 32)
    back = resize_kernel(resize_kernel(kernel, (8, 8)), (32, 32))
    assert 0.95 < float((back - kernel).norm() / kernel.norm()) < 1.05


@pytest.mark.parametrize("method", ["pi", "plain", "area", "norm"])
def test_the_same_size_is_the_same_kernel(method: str) -> None:
    kernel = normal(2, 3, 8, 6)
    assert resize_kernel(kernel, (8, 6), method=method) is kernel


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_axes_may_stand_anywhere_and_dtypes_stay(dtype: torch.dtype) -> None:
    kernel = normal(2, 3, 8, 6)
    expected = resize_kernel(kernel, (5, 9)).permute(2, 3, 1, 0)  # HWIO, as big_vision stores it
    answer = resize_kernel(kernel.permute(2, 3, 1, 0).to(dtype), (5, 9), dims=(0, 1))
    assert answer.dtype == dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(answer.double(), expected, rtol=tolerance, atol=tolerance)


def test_gradients_reach_the_stored_kernel() -> None:
    embed = PatchEmbed(patch_size=6, width=4, flexible="pi").double()
    identity = torch.tensor([[0.0] * 3, [1.0] * 3])
    for patch_size in (4, 9):
        embed.zero_grad()
        embed(normal(5, patch_size * patch_size * 3), identity, patch_size).square().sum().backward()
        assert embed.linear.weight.grad.shape == (4, 6 * 6 * 3)
        assert embed.linear.weight.grad.any()


def test_an_embedding_of_another_patch_size_is_a_convolution_with_the_resized_kernel() -> None:
    embed = PatchEmbed(patch_size=6, width=4, bias=True, flexible="pi").double()
    image = normal(3, 8, 12)
    patches = image.view(3, 2, 4, 3, 4).permute(1, 3, 2, 4, 0).reshape(6, 48)  # (y, x, channel) inside
    kernel = resize_kernel(embed.linear.weight.view(4, 6, 6, 3).permute(0, 3, 1, 2), (4, 4))
    convolved = torch.conv2d(image[None], kernel, embed.linear.bias, stride=4)[0].flatten(1).T
    torch.testing.assert_close(embed(patches, torch.tensor([[0.0] * 3, [1.0] * 3]), 4), convolved)


def test_what_cannot_be_resized_is_refused() -> None:
    with pytest.raises(ConfigError, match="method must be 'pi', 'plain', 'area' or 'norm', got 'nearest'"):
        resize_kernel(W, (3, 3), method="nearest")
    with pytest.raises(ShapeError, match="at least 1×1 pixels, got 0×3"):
        resize_kernel(W, (0, 3))
