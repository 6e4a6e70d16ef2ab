"""What does one model for all patch sizes cost? FlexiViT (2212.08013) beside a separate model for each size.

    OMP_NUM_THREADS=1 python -m bench.model.flexivit [--data FOLDER] [--out flexivit.jsonl] [--minutes 9] [--plot FILE.png]

The pictures are Fashion-MNIST, cropped to the object (`bench.model.fashion` says how to install it) and resized to 24 x 24
pixels. They are cut into patches of 4, 6, 8 and 12 pixels: 36, 16, 9 and 4 tokens. All models are the same small transformer,
trained in different ways (arms):

* ``patch P``: a fixed model, trained at one patch size. At other sizes its kernel is PI-resized, or resized like a picture for
  the figures called ``plain``. Its table of positions is interpolated. Nothing is learnt for the other sizes.
* ``labels``: a flexible model with one patch size per step, drawn by `pp.recipes.flexivit`.
* ``KL``: as ``labels``, but half of the loss is the divergence from the teacher's output for the same pixels. The teacher is
  ``patch 12`` with the same seed.
* ``start + KL``: as ``KL``, but training starts from the teacher's weights.

Cost is counted in tokens, plus `STEP` tokens for the constant work of a step. So equal cost means nearly equal CPU time, and
runs can be repeated exactly. The results also hold CPU seconds. The four fixed models get equal time. A flexible model replaces
all four and gets the time of the four together, its teacher's time included. ``labels, time of one`` is a flexible model with
the time of a single fixed model. Large patches are cheap and drawn more often. Every size therefore gets a quarter of the time,
as much as its own fixed model gets.

The loader paints pictures once. They are kept as tensors, and `repatch` cuts them into patches of each size. They never change,
so the teacher sees each picture once. Settings were tuned on validation pictures (``--split validation``). Two settings were
changed after a first table of test pictures with one seed: how often each size is drawn, and a stored kernel of 8 pixels rather
than 12 or 4.

Each run is one line of ``--out``. Runs that have a line are not repeated. ``--minutes`` stops the program before the next run.
Teachers' weights are saved beside ``--out``. At the end the program prints a table of all lines and, with ``--plot``, draws a
figure. Everything runs on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import patchpack as pp
from bench import results
from bench.model import fashion
from bench.model import flexivit_table as tables
from patchpack.batch_info import BatchInfo
from patchpack.model import ViT, presets
from patchpack.model.distill import distillation, start_from
from patchpack.model.interpolate import Interpolation
from patchpack.model.repatch import repatch
from patchpack.model.trainer import accuracy, fit, label_loss

SIDE, SIZES = 24, (4, 6, 8, 12)
TOKENS = {p: (SIDE // p) ** 2 for p in SIZES}
CROPS = pp.normalize.MeanStd((0.442,) * 3, (0.353,) * 3)  # grey levels inside the crops of the training pictures
STEP = 900  # number of tokens that take as long as the constant work of a step, measured


class Arm(NamedTuple):
    """One way to train a model: the patch sizes, the time as a multiple of a fixed model's time, and the role of a teacher."""

    sizes: tuple[int, ...]
    share: int = 1
    kl: bool = False
    start: bool = False


FIXED = {f"patch {p}": p for p in SIZES}
TEACHER = "patch 12"  # the best fixed model for equal time
DRAWN = (4,) * 2 + (6,) * 3 + (8,) * 4 + (12,) * 5  # so often that all sizes get nearly the same time
FLEXIBLE = {
    "labels, time of one": Arm(DRAWN),
    "labels": Arm(DRAWN, 4),
    "KL": Arm(DRAWN, 3, kl=True),
    "start + KL": Arm(DRAWN, 3, kl=True, start=True),
}
ARMS = {name: Arm((p,)) for name, p in FIXED.items()} | FLEXIBLE


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that all runs of a table share.

    Attributes:
        width, depth, mlp_dim, heads: shape of the transformer.
        kernel: pixels per side of the patch kernel that a flexible model stores.
        grid: rows and columns of a flexible model's table of positions.
        position_scale: factor for the table's initial values. Larger positions are learnt sooner, in every arm.
        budget: cost of training a fixed model, in tokens, with `STEP` tokens for each step.
        rows: images per step.
        rate: largest learning rate.
        start_rate: largest learning rate of a student that starts from its teacher.
        label_weight: weight of the loss on labels. The loss on the teacher's output has the rest.
    """

    width: int = 48
    depth: int = 2
    mlp_dim: int = 96
    heads: int = 2
    kernel: int = 8
    grid: int = 6
    position_scale: float = 4.0
    budget: int = 1_600_000
    rows: int = 64
    rate: float = 4e-3
    start_rate: float = 3e-3
    label_weight: float = 0.5


Pictures = dict[int, pp.PackedBatch]
"""A split as one batch per patch size."""


def recipe_of(patch_sizes: tuple[int, ...], rows: int, seed: int = 0) -> pp.Recipe:
    """Return a recipe with one picture per row. With several patch sizes, one is drawn per step."""
    return pp.recipes.flexivit(size=SIDE, patch_size=patch_sizes, rows_per_batch=rows, normalize=CROPS, seed=seed)


def painted(crops: fashion.Crops, patch_sizes: Sequence[int] = SIZES) -> Pictures:
    """Paint pictures once, in the smallest patches, and cut them into patches of the other sizes."""
    parts = list(pp.load(crops, recipe_of((min(patch_sizes),), rows=500), sizes=crops.sizes))
    return {p: _joined([repatch(part, p) for part in parts]) for p in patch_sizes}


def rows_of(batch: pp.PackedBatch, numbers: Tensor) -> pp.PackedBatch:
    """Return a batch of some rows, in the order of `numbers`."""
    tensors = {name: value[numbers] for name, value in _by_row(batch)}
    return batch._replace(**tensors, keys=[batch.keys[i] for i in numbers.tolist()])


def _joined(parts: Sequence[pp.PackedBatch]) -> pp.PackedBatch:
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name, _ in _by_row(parts[0])}
    return parts[0]._replace(**tensors, keys=[keys for part in parts for keys in part.keys], info=BatchInfo())


def _by_row(batch: pp.PackedBatch) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in batch._asdict().items() if isinstance(value, Tensor) and name != "norm")


class Drawn:
    """Batches of pictures in memory, for `fit` and `accuracy`.

    Args:
        pictures: the pictures in every patch size of the recipe.
        recipe: recipe with the rows per batch and the patch size of each step.
        steps: steps of one epoch, over as many reshuffled passes as needed. None: one pass in order.
    """

    def __init__(self, pictures: Pictures, recipe: pp.Recipe, *, steps: int | None = None) -> None:
        self._pictures, self._recipe, self._steps = pictures, recipe, steps
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which the order and the patch sizes depend."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[pp.PackedBatch]:
        for step, numbers in enumerate(self._order().split(self._recipe.rows_per_batch)):
            yield rows_of(self._pictures[self._recipe.patch_size_at(self._epoch, step)], numbers)

    def _order(self) -> Tensor:
        count = len(next(iter(self._pictures.values())).keys)
        if self._steps is None:
            return torch.arange(count)
        wanted = self._steps * self._recipe.rows_per_batch
        generator = torch.Generator().manual_seed(self._recipe.seed + (self._epoch << 32))
        passes = [torch.randperm(count, generator=generator) for _ in range(-(-wanted // count))]
        return torch.cat(passes)[:wanted]


class Remembered(nn.Module):
    """A teacher whose outputs for unchanging pictures are stored by key. `distillation` takes it as a `ViT`."""

    def __init__(self, teacher: ViT, pictures: Pictures) -> None:
        super().__init__()
        self.patch_size = teacher.patch_size
        batches = Drawn({self.patch_size: pictures[self.patch_size]}, recipe_of((self.patch_size,), rows=256))
        teacher.eval()
        with torch.no_grad():
            self._answers = {
                keys[0]: logits for batch in batches for keys, logits in zip(batch.keys, teacher(batch), strict=True)
            }

    def forward(self, batch: pp.PackedBatch) -> Tensor:
        """Return logits ``[B, 1, classes]``."""
        return torch.stack([self._answers[keys[0]] for keys in batch.keys])


def build(arm: str, settings: Settings, seed: int) -> ViT:
    """Return a model of an arm, before training. A fixed model stores the kernel and position table of its own patch size."""
    p = FIXED.get(arm)
    # without antialias, a patch a third as long as the stored kernel uses only every third weight, which no other patch uses
    own = {} if p else {"how": Interpolation(antialias=True)}
    size = presets.Size(settings.width, settings.depth, settings.mlp_dim, settings.heads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = presets.flexivit(
            size, num_classes=fashion.NUM_CLASSES, kernel_size=p or settings.kernel,
            grid=SIDE // p if p else settings.grid, class_token=False, pool="mean", **own,
        )  # fmt: skip
        with torch.no_grad():
            model.positions.table.mul_(settings.position_scale)
        return model


def train(name: str, pictures: Pictures, settings: Settings, seed: int, teacher: ViT | None) -> tuple[ViT, dict[str, Any]]:
    """Train the model of an arm. Return the model, its loss, and the steps, tokens and CPU seconds that it took."""
    arm, model, loss, rate = ARMS[name], build(name, settings, seed), label_loss, settings.rate
    start = time.process_time()
    if arm.start:
        start_from(model, teacher)
        rate = settings.start_rate
    if arm.kl:
        loss = distillation(Remembered(teacher, pictures), label_weight=settings.label_weight)
    asked = time.process_time()
    per_step = settings.rows * sum(TOKENS[p] for p in arm.sizes) / len(arm.sizes) + STEP
    steps = max(1, round(arm.share * settings.budget / per_step))
    batches = Drawn(pictures, recipe_of(arm.sizes, settings.rows, seed), steps=steps)
    losses, tokens = [], 0
    for step in fit(model, batches, epochs=1, steps_per_epoch=steps, peak_lr=rate, loss=loss):
        losses.append(step.loss)
        tokens += step.batch.segment_ids.numel()
    seconds = {"teacher's answers": round(asked - start, 1), "training": round(time.process_time() - asked, 1)}
    last = float(np.mean(losses[-max(1, steps // 10) :]))
    return model, {"steps": steps, "tokens": tokens, "loss": round(last, 4), "cpu s": seconds}


def ask(model: ViT, pictures: Pictures, *, plain: bool, rows: int = 250) -> dict[str, Any]:
    """Return accuracy and ms of CPU time per image at each patch size.

    If `plain`, also return accuracy with plainly resized kernels.
    """
    answers: dict[str, Any] = {"accuracy": {}, "plain": {}, "ms per image": {}}
    for p in SIZES:
        batches = Drawn({p: pictures[p]}, recipe_of((p,), rows))
        answers["accuracy"][str(p)] = accuracy(model, batches)
        answers["ms per image"][str(p)] = milliseconds(model, next(iter(batches)))
        if plain and p != model.patch_size:
            model.embed.flexible = "plain"
            answers["plain"][str(p)] = accuracy(model, batches)
            model.embed.flexible = "pi"
    return answers


@torch.no_grad()
def milliseconds(model: ViT, batch: pp.PackedBatch, repeats: int = 5) -> float:
    """Return the CPU time per image: the lowest of a few forward passes."""
    model.eval()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        model(batch)
        times.append(time.process_time() - start)
    return round(1e3 * min(times) / len(batch.keys), 5)


class Work:
    """The pictures, painted when the first run needs them, and the teachers of all seeds.

    Args:
        folder: folder of the IDX files.
        split: split on which models are evaluated, "validation" or "test".
        beside: file of results. Weights are saved in the same folder.
        settings: settings of the runs.
    """

    def __init__(self, folder: Path, split: str, beside: Path, settings: Settings) -> None:
        self._folder, self.split, self._beside, self.settings = folder, split, beside, settings

    @cached_property
    def _data(self) -> fashion.Splits:
        return fashion.splits(self._folder)

    @cached_property
    def train(self) -> Pictures:
        """The pictures for training."""
        return painted(self._data.train)

    @cached_property
    def asked(self) -> Pictures:
        """The pictures for evaluation."""
        return painted(getattr(self._data, self.split))

    def teacher(self, seed: int) -> ViT:
        """Load the teacher of a seed. Train it again if its weights are lost or were made with other settings."""
        path = self._path(seed)
        kept = torch.load(path) if path.exists() else {}
        if kept.get("settings") != asdict(self.settings):
            model, _ = train(TEACHER, self.train, self.settings, seed, None)
            self.keep(model, seed)
            return model
        model = build(TEACHER, self.settings, seed)
        model.load_state_dict(kept["weights"])
        return model

    def keep(self, teacher: ViT, seed: int) -> None:
        """Write a teacher's weights."""
        torch.save({"settings": asdict(self.settings), "weights": teacher.state_dict()}, self._path(seed))

    def _path(self, seed: int) -> Path:
        return self._beside.with_name(f"{self._beside.stem}-teacher-{seed}.pt")


def run(arm: str, seed: int, work: Work) -> dict[str, Any]:
    """Train and evaluate one model. Return a line of the results."""
    teacher, pictures = work.teacher(seed) if ARMS[arm].kl else None, work.train
    model, took = train(arm, pictures, work.settings, seed, teacher)
    if arm == TEACHER:
        work.keep(model, seed)
    pictures = work.asked
    start = time.process_time()
    answers = ask(model, pictures, plain=arm in FIXED)
    took["cpu s"]["asking"] = round(time.process_time() - start, 1)
    return {"arm": arm, "seed": seed, "split": work.split, "settings": asdict(work.settings), **answers, **took}


def missing(lines: Sequence[dict[str, Any]], arms: Sequence[str], seeds: int) -> list[tuple[str, int]]:
    """Return the (arm, seed) of the runs that have no line yet. All arms with one seed come before the next seed."""
    done = {(line["arm"], line["seed"]) for line in lines}
    return [(arm, seed) for seed in range(seeds) for arm in arms if (arm, seed) not in done]


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the missing runs while there is time. Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=fashion.DATA, help="folder of the IDX files")
    parser.add_argument("--out", type=Path, default=Path("flexivit.jsonl"), help="JSON lines: one per run, and to go on from")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so long")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="validation: for tuning")
    parser.add_argument("--plot", type=Path, help="PNG, SVG or PDF")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help="see `Settings`")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = Settings(**{name: getattr(options, name) for name in asdict(Settings())})
    end = time.monotonic() + 60 * options.minutes
    work = Work(options.data, options.split, options.out, settings)
    these = {"settings": asdict(settings), "split": options.split}
    for arm, seed in missing(results.read(options.out, **these), options.arms, options.seeds):
        if time.monotonic() >= end:
            break
        try:
            results.append(options.out, run(arm, seed, work))
        except FileNotFoundError as error:
            raise SystemExit(str(error)) from None
    lines = results.read(options.out, **these)
    for text in (
        tables.accuracies(lines, ARMS, SIZES),
        tables.distances(lines, FIXED, FLEXIBLE),
        tables.costs(lines, ARMS, SIZES),
    ):
        print(text, end="\n\n")
    print(f"{len(lines)} runs, {len(missing(lines, options.arms, options.seeds))} to come")
    if options.plot:
        tables.draw(lines, FIXED, list(FLEXIBLE), options.plot)


if __name__ == "__main__":
    main()
