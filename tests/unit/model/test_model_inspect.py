"""What is seen inside a model, on cases that are known."""

from __future__ import annotations

import pytest
import torch

from helpers.by_hand import pack
from patchpack.errors import ShapeError
from patchpack.model import ViT
from patchpack.model.inspect import MinibatchCKA, attention_distance, pca_colours, position_similarity
from patchpack.model.positions import FactorizedPositions
from patchpack.model.waves import SinusoidalPositions


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_colours_follow_the_directions_of_most_variance() -> None:
    x = torch.zeros(101, 5)
    x[:, 3] = torch.linspace(-10, 10, 101)
    colours = pca_colours(x)
    assert colours.dtype == torch.uint8
    assert colours[:, 0].tolist() in (sorted(colours[:, 0].tolist()), sorted(colours[:, 0].tolist(), reverse=True))
    assert (colours[:, 0].min(), colours[:, 0].max()) == (0, 255)
    assert (colours[:, 1:] == 127).all()  # no second component


@pytest.mark.parametrize("count", [0, 1, 2])
def test_colours_of_next_to_nothing(count: int) -> None:
    assert pca_colours(torch.ones(count, 4)).tolist() == [[127] * 3] * count


def model(**parts: object) -> ViT:
    torch.manual_seed(0)
    return ViT(patch_size=2, width=8, depth=2, heads=2, **parts).eval()


@pytest.mark.parametrize("parts", [{}, {"class_token": True, "registers": 1, "pool": "class"}])
def test_a_head_that_looks_everywhere_alike_looks_as_far_as_patches_are_apart(parts: dict[str, object]) -> None:
    net = model(**parts)
    for block in net.blocks:
        torch.nn.init.zeros_(block.qkv.weight)
    images = [((2, 3), randn(6, 12).float()), ((1, 1), randn(1, 12).float()), ((4, 1), randn(4, 12).float())]
    places = [torch.cartesian_prod(torch.arange(r), torch.arange(c)).view(-1, 2).float() for (r, c), _ in images]
    means = torch.cat([torch.cdist(p, p).mean(1) for p in places])
    before = [block.attend for block in net.blocks]
    found = attention_distance(net, pack([images[:2], images[2:]], spare=2))
    torch.testing.assert_close(found, torch.full((2, 2), float(means.mean()) * 2))
    assert [block.attend for block in net.blocks] == before


def test_attention_distance_wants_a_ragged_model() -> None:
    with pytest.raises(ShapeError, match="static=False"):
        attention_distance(model(static=True), pack([[((1, 1), torch.zeros(1, 12))]]))


def test_near_positions_are_alike() -> None:
    table = position_similarity(SinusoidalPositions(width=64), 4, 5)
    assert table.shape == (4, 5, 4, 5)
    torch.testing.assert_close(table[1, 2, 1, 2], torch.tensor(1.0))
    assert table[1, 2, 1, 2] > table[1, 2, 1, 3] > table[1, 2, 1, 4]
    learned = FactorizedPositions(width=8, max_len=3)
    expected = torch.cosine_similarity(learned.rows[0] + learned.cols[1], learned.rows[2] + learned.cols[0], dim=0)
    torch.testing.assert_close(position_similarity(learned, 3, 3)[0, 1, 2, 0], expected)


def unbiased_hsic(k: torch.Tensor, m: torch.Tensor) -> float:
    """The mean over all four different images of the U-statistic, by its definition."""
    n, total, count = len(k), 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]))
                        count += 1
    return total / count


def test_cka_is_the_definition_and_sums_over_batches() -> None:
    x, y = randn(12, 3), randn(12, 5, seed=1) + randn(12, 3) @ randn(3, 5, seed=2)
    cka, sums = MinibatchCKA(), [0.0, 0.0, 0.0]
    for part in (slice(0, 7), slice(7, 12)):
        cka.update(x[part], y[part])
        k, m = x[part] @ x[part].T, y[part] @ y[part].T
        sums = [s + unbiased_hsic(*pair) for s, pair in zip(sums, ((k, m), (k, k), (m, m)), strict=True)]
    assert cka.value == pytest.approx(sums[0] / (sums[1] * sums[2]) ** 0.5)


def test_cka_does_not_see_rotation_and_scale() -> None:
    x = randn(40, 6)
    rotation = torch.linalg.qr(randn(6, 6, seed=3))[0]
    cka, other = MinibatchCKA(), MinibatchCKA()
    cka.update(x, 3 * x @ rotation + 5)
    other.update(randn(400, 6), randn(400, 6, seed=4))
    assert cka.value == pytest.approx(1)
    assert abs(other.value) < 0.1


def test_cka_refuses_too_few() -> None:
    with pytest.raises(ShapeError, match=r"same n >= 4 images, got \[3, 2\] and \[3, 2\]"):
        MinibatchCKA().update(torch.zeros(3, 2), torch.zeros(3, 2))
