"""A small training loop for the demo and the benchmarks: AdamW, warm-up, cosine learning rate, and gradient clipping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from patchpack.batch.packed import PackedBatch
from patchpack.errors import ConfigError
from patchpack.model.loss import cross_entropy
from patchpack.model.vit import ViT


class Batches(Protocol):
    """The batches that `fit` trains on: a `patchpack.Loader`, or any other object that can be iterated once per epoch."""

    def set_epoch(self, epoch: int) -> None: ...

    def __iter__(self) -> Iterator[PackedBatch]: ...


class Step(NamedTuple):
    """One optimizer step: its epoch, its batch, the loss before the step, and the seconds since the last step."""

    epoch: int
    batch: PackedBatch
    loss: float
    seconds: float


def label_loss(model: ViT, batch: PackedBatch) -> Tensor:
    """Return the mean cross-entropy over the labelled images of a batch."""
    return cross_entropy(model(batch), batch.targets)


def fit(
    model: ViT,
    batches: Batches,
    *,
    epochs: int,
    steps_per_epoch: int | None = None,
    peak_lr: float = 2e-3,
    warm_up: float = 0.1,
    final: float = 0.01,
    weight_decay: float = 0.05,
    clip: float = 1.0,
    loss: Callable[[Any, PackedBatch], Tensor] = label_loss,
) -> Iterator[Step]:
    """Train a model and yield a `Step` after every step, so that the caller can print, measure, save, or stop.

    Args:
        model: the model. It is in training mode from the first step on.
        batches: the batches, on the model's device. The method ``set_epoch`` of this object is called before each epoch.
        epochs: number of passes over the batches, >= 1.
        steps_per_epoch: number of batches in an epoch, if it is known. The learning rate then changes with every step. Default
            None: the learning rate changes with every epoch.
        peak_lr: learning rate after warm-up, > 0. Default 0.002.
        warm_up: fraction of the training in which the learning rate grows linearly from 0, in [0, 1). Default 0.1.
        final: learning rate at the end, as a fraction of the peak. Between peak and end the rate follows half a cosine. Default
            0.01.
        weight_decay: AdamW's weight decay of matrices and tables. Scales and biases have no decay. Default 0.05.
        clip: largest norm of the gradients. Larger gradients are scaled down. Default 1.
        loss: function ``(model, batch) → scalar``. `patchpack.model.distill` makes such a function from a teacher. Default
            `label_loss`.

    Raises:
        ConfigError: a number is out of its range.
    """
    if epochs < 1 or not 0 <= warm_up < 1 or peak_lr <= 0:
        raise ConfigError(f"expected epochs >= 1, warm_up in [0, 1) and peak_lr > 0, got {epochs}, {warm_up} and {peak_lr}")
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=peak_lr)
    start = time.perf_counter()
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        model.train()
        for i, batch in enumerate(batches):
            part = 1.0 if steps_per_epoch is None else min(1.0, (i + 1) / steps_per_epoch)
            done = (epoch + part) / epochs
            for group in optimizer.param_groups:
                group["lr"] = peak_lr * rate(done, warm_up=warm_up, final=final)
            value = loss(model, batch)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            now = time.perf_counter()
            yield Step(epoch, batch, value.item(), now - start)
            start = now


def rate(done: float, *, warm_up: float, final: float) -> float:
    """Return the learning rate at a point of the training, as a fraction of the peak rate.

    The rate grows linearly, then follows half a cosine.

    Args:
        done: fraction of the training that is done, in (0, 1].
        warm_up: fraction of the training in which the rate grows linearly from 0.
        final: rate at the end, as a fraction of the peak.
    """
    if done < warm_up:
        return done / warm_up
    return max(final, 0.5 + 0.5 * math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, list[nn.Parameter] | float]]:
    """Return two groups of parameters for an optimizer.

    The first group holds matrices and tables, and has weight decay. The second group holds scales and biases, which have one
    axis, and has no weight decay.
    """
    split: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in model.parameters():
        split[parameter.ndim < 2].append(parameter)
    return [{"params": split[0], "weight_decay": weight_decay}, {"params": split[1], "weight_decay": 0.0}]


@torch.no_grad()
def accuracy(model: nn.Module, batches: Batches) -> float:
    """Return the fraction of images whose largest logit belongs to the image's class.

    The model makes one pass over the batches in evaluation mode. Afterwards the model is in its previous mode again.
    """
    training = model.training
    model.eval()
    right = total = 0
    for batch in batches:
        right += int((model(batch).argmax(-1) == batch.targets)[batch.slot_mask].sum())
        total += int(batch.slot_mask.sum())
    model.train(training)
    return right / max(1, total)
