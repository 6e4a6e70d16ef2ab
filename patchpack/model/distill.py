"""FlexiViT's distillation (2212.08013 §3.6): a student of any patch size learns from a teacher of one patch size."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError
from patchpack.model.interpolate import Interpolation, resize_grid
from patchpack.model.kernel import resize_kernel
from patchpack.model.loss import cross_entropy
from patchpack.model.positions import GridPositions
from patchpack.model.repatch import repatch
from patchpack.model.vit import ViT


def start_from(student: ViT, teacher: ViT) -> None:
    """Give a student the teacher's weights. The kernel and the table of positions are resized, and the rest is copied.

    The kernel is PI-resized (see `resize_kernel`), and the table is interpolated. A student whose kernel and table have the
    teacher's sizes gives the teacher's results. A student with a larger kernel gives the teacher's tokens for patches that are
    enlarged to the size of the student's kernel. At the teacher's patch size the student's kernel is resized twice, so the
    student's tokens differ a little from the teacher's.

    Raises:
        ConfigError: student and teacher do not have the same weights. The error names the first difference.
    """
    state = dict(teacher.state_dict())
    size = student.patch_size
    stored = state["embed.linear.weight"].view(-1, teacher.patch_size, teacher.patch_size, 3)
    state["embed.linear.weight"] = resize_kernel(stored, (size, size), how=student.embed.how, dims=(1, 2)).flatten(1)
    if isinstance(student.positions, GridPositions) and isinstance(teacher.positions, GridPositions):
        rows, cols, _ = student.positions.table.shape
        how: Interpolation = student.positions.how
        state["positions.table"] = resize_grid(state["positions.table"], rows, cols, how)
    own = student.state_dict()
    for name in [*own, *state]:
        if name not in own or name not in state or own[name].shape != state[name].shape:
            raise ConfigError(f"student and teacher differ in {name}: make both with the same width, depth and parts")
    student.load_state_dict(state)


def distillation(teacher: ViT, *, temperature: float = 1.0, label_weight: float = 0.0) -> Callable[[ViT, PackedBatch], Tensor]:
    """Return a loss ``(student, batch) → scalar``: the mean over images of ``temperature² · KL(teacher ‖ student)``.

    The teacher sees the same pixels in patches of its own size (see `patchpack.model.repatch`), in evaluation mode and
    without a gradient.

    Args:
        teacher: a model of a fixed patch size, or a flexible model, which is used at the size of its stored kernel.
        temperature: divisor of the logits on both sides, > 0. Default 1.
        label_weight: weight in the loss of `cross_entropy` with the labels, in [0, 1]. The distillation has weight
            ``1 − label_weight``. Default 0.

    Raises:
        ConfigError: a number is out of its range.
    """
    if temperature <= 0 or not 0 <= label_weight <= 1:
        raise ConfigError(f"temperature must be > 0 and label_weight in [0, 1], got {temperature} and {label_weight}")
    teacher.eval()

    def loss(student: ViT, batch: PackedBatch) -> Tensor:
        with torch.no_grad():
            wanted = F.log_softmax(teacher(repatch(batch, teacher.patch_size)) / temperature, dim=-1)
        logits = student(batch)
        found = F.log_softmax(logits / temperature, dim=-1)
        each = F.kl_div(found, wanted, log_target=True, reduction="none").sum(-1) * temperature**2
        mean: Tensor = torch.where(batch.slot_mask, each, 0.0).sum() / batch.slot_mask.sum().clamp(min=1)
        if label_weight:
            mean = (1 - label_weight) * mean + label_weight * cross_entropy(logits, batch.targets)
        return mean

    return loss
