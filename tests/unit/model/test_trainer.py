"""The trainer, the same images in other patches, and a student that starts from its teacher."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import patchpack as pp
from patchpack.errors import ConfigError, ShapeError
from patchpack.model import ViT, presets
from patchpack.model.distill import distillation, start_from
from patchpack.model.presets import Size
from patchpack.model.repatch import repatch
from patchpack.model.trainer import accuracy, fit, label_loss, parameter_groups, rate

TINY = Size(width=16, depth=2, mlp_dim=32, heads=2)
SHAPES = [(24, 24), (24, 48), (48, 24), (24, 24), (72, 24)]


class Batches:
    """One batch of five images of four shapes, in patches of a size."""

    def __init__(self, patch_size: int) -> None:
        random = np.random.default_rng(0)
        samples = [pp.Sample(f"{i}", random.integers(0, 256, (*shape, 3), dtype=np.uint8), i) for i, shape in enumerate(SHAPES)]
        recipe = pp.recipes.navit(
            resize=pp.resize.Native(1728 // patch_size**2),
            drop=pp.drop.NoDrop(),
            patch_size=patch_size,
            seq_len=2880 // patch_size**2,
            rows_per_batch=2,
        )
        self.epochs: list[int] = []
        (self.batch,) = pp.load(samples, recipe)

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[pp.PackedBatch]:
        return iter([self.batch])


def flexible(kernel_size: int = 8, grid: int = 4) -> ViT:
    torch.manual_seed(0)
    return presets.flexivit(TINY, num_classes=5, kernel_size=kernel_size, grid=grid)


# ------------------------------------------------------------------------------------------------------- repatch


@pytest.mark.parametrize(("old", "new"), [(4, 12), (12, 4), (8, 6), (6, 8), (8, 8)])
def test_repatched_is_what_the_loader_would_have_cut(old: int, new: int) -> None:
    batch, expected = (Batches(p).batch for p in (old, new))
    again = repatch(batch, new)
    images, others = ({image.key: image for image in pp.unpack(one)} for one in (again, expected))
    assert again.patch_size == new
    assert images.keys() == others.keys()
    for key, image in images.items():
        for name in ("patches", "position_ids"):
            assert torch.equal(getattr(image, name), getattr(others[key], name)), name
        assert (image.grid, image.target) == (others[key].grid, others[key].target)
    assert [image.row for image in pp.unpack(again)] == [image.row for image in pp.unpack(batch)]
    pp.validate(again)


def test_repatch_there_and_back() -> None:
    batch = Batches(4).batch
    back = repatch(repatch(batch, 8), 4)
    for image, other in zip(pp.unpack(batch), pp.unpack(back), strict=True):
        assert torch.equal(image.patches, other.patches)


def test_what_cannot_be_cut_again_is_refused() -> None:
    with pytest.raises(ShapeError, match="an image of 24 × 24 pixels cannot be cut into whole patches of 16"):
        repatch(Batches(8).batch, 16)
    batch = Batches(8).batch
    first = (batch.segment_ids == 1).nonzero()[0]
    batch.segment_ids[first[0], first[1]] = 0
    with pytest.raises(ShapeError, match=r"tokens, but cutting it into other patches needs all of them"):
        repatch(batch, 4)


# ------------------------------------------------------------------------------------------------------- distillation


def test_a_student_starts_as_its_teacher() -> None:
    """With the teacher's kernel and table it answers the same; with a larger kernel too, at the teacher's patch size."""
    teacher, batch = (
        presets.vit(TINY, 8, num_classes=5, image_size=32, how=presets.CONVENTIONS["flexivit"]).eval(),
        Batches(8).batch,
    )
    student = flexible(8).eval()
    start_from(student, teacher)
    torch.testing.assert_close(student(batch), teacher(batch))
    larger = flexible(16).eval()
    start_from(larger, teacher)
    kernel = larger.embed.linear.weight.view(-1, 16, 16, 3)
    patch = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    grown = F.interpolate(patch, (16, 16), mode="bilinear").permute(0, 2, 3, 1)
    token = torch.einsum("nyxc,oyxc->o", grown, kernel.double())
    small = torch.einsum("ncyx,oyxc->o", patch, teacher.embed.linear.weight.view(-1, 8, 8, 3).double())
    torch.testing.assert_close(token, small, rtol=1e-4, atol=1e-5)


def test_a_student_of_other_parts_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"differ in positions\.rows"):
        start_from(presets.navit(TINY, 8, num_classes=5), presets.vit(TINY, 8, num_classes=5))


def test_distillation_is_the_divergence_per_image() -> None:
    teacher, student, batches = flexible(8), flexible(8), Batches(4)
    torch.nn.init.normal_(teacher.head.weight)
    value = distillation(teacher, temperature=2.0)(student, batches.batch)
    with torch.no_grad():
        wanted = teacher(repatch(batches.batch, 8))[batches.batch.slot_mask] / 2
        found = student(batches.batch)[batches.batch.slot_mask] / 2
    p = wanted.softmax(-1)
    expected = (p * (p.log() - found.log_softmax(-1))).sum(-1).mean() * 4
    torch.testing.assert_close(value.detach(), expected)
    both = distillation(teacher, temperature=2.0, label_weight=0.25)(student, batches.batch)
    torch.testing.assert_close(both, 0.75 * value + 0.25 * label_loss(student, batches.batch))
    value.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_comes_to_agree_with_its_teacher() -> None:
    teacher, student, batches = flexible(8), flexible(8), Batches(4)
    torch.nn.init.normal_(teacher.head.weight)
    torch.nn.init.normal_(student.head.weight)
    steps = list(fit(student, batches, epochs=60, loss=distillation(teacher)))
    assert steps[-1].loss < 0.1 * steps[0].loss


@pytest.mark.parametrize("numbers", [{"temperature": 0.0}, {"label_weight": 1.5}])
def test_distillation_refuses(numbers: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="temperature must be > 0 and label_weight in"):
        distillation(flexible(), **numbers)


# ------------------------------------------------------------------------------------------------------- training


def test_training_fits_and_is_measured() -> None:
    model, batches = flexible(), Batches(8)
    steps = list(fit(model, batches, epochs=60))
    assert batches.epochs == list(range(60))
    assert [step.epoch for step in steps] == list(range(60))
    assert steps[-1].loss < 0.1
    assert model.training
    assert accuracy(model, batches) == 1
    assert model.training


def test_the_rate_grows_and_falls() -> None:
    rates = [rate(i / 100, warm_up=0.1, final=0.01) for i in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1
    assert rates[54] == pytest.approx(0.5)
    assert rates[-1] == 0.01
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_scales_and_biases_do_not_decay() -> None:
    model = flexible()
    with_decay, without = parameter_groups(model, 0.3)
    assert with_decay["weight_decay"] == 0.3
    assert {id(p) for p in with_decay["params"]} == {id(p) for p in model.parameters() if p.ndim > 1}
    assert without["weight_decay"] == 0
    assert len(with_decay["params"]) + len(without["params"]) == len(list(model.parameters()))


def test_training_refuses() -> None:
    with pytest.raises(ConfigError, match="expected epochs >= 1"):
        next(fit(flexible(), Batches(8), epochs=0))
