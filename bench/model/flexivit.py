"""What does one model for all patch sizes cost? FlexiViT (2212.08013) beside a model for each size.

    OMP_NUM_THREADS=1 python -m bench.model.flexivit [--data FOLDER] [--out flexivit.jsonl] [--minutes 9] [--plot FILE.png]

Fashion-MNIST cropped to its object (`bench.model.fashion` says how to install it), resized to 24 x 24, in patches of 4, 6, 8
and 12 pixels: 36, 16, 9 and 4 tokens. All models are the same small transformer:

* ``patch P``: trained at one patch size. At another its kernel is PI-resized (``plain``: resized like a picture) and its table
  of positions interpolated, with nothing learnt for it;
* ``labels``: flexible, one patch size per step, drawn by `pp.recipes.flexivit`;
* ``KL``: the same, but half of its loss is the divergence from what ``patch 12`` of its seed, the teacher, makes of the same
  pixels;
* ``start + KL``: and it starts from the teacher's weights.

Cost is counted in tokens, plus what a step takes beside them (`STEP`), so that equal cost is nearly equal CPU time and runs
repeat themselves; CPU seconds are in the lines. The four fixed models get equal time. A flexible model replaces all four and
gets the time of the four together, its teacher's included; ``labels, time of one`` gets what each of the fixed ones gets. Large
patches are cheap and drawn more often, so that every size gets a quarter of the time, the time that its own model gets.

Pictures are painted once by the loader and kept as tensors, cut again per size by `repatch`; they never change, so the teacher
is asked once for each. Settings were tuned on validation pictures (``--split validation``), but for two that followed a first
table of test pictures, one seed of it: how often a size is drawn, and a stored kernel of 8 pixels rather than 12 or 4.

Each run is one line of ``--out``; runs that are there are not repeated, and ``--minutes`` ends a call before the next run.
Teachers' weights are kept beside it. Then a table of what is there and, with ``--plot``, a figure. One thread.
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
STEP = 900  # tokens that take as long as what a step costs beside its tokens, measured


class Arm(NamedTuple):
    """How a model is trained: at which patch sizes, for how many times a fixed model's time, and what a teacher does."""

    sizes: tuple[int, ...]
    share: int = 1
    kl: bool = False
    start: bool = False


FIXED = {f"patch {p}": p for p in SIZES}
TEACHER = "patch 12"  # the best of them for equal time
DRAWN = (4,) * 2 + (6,) * 3 + (8,) * 4 + (12,) * 5  # as often as it takes for all sizes to get nearly the same time
FLEXIBLE = {
    "labels, time of one": Arm(DRAWN),
    "labels": Arm(DRAWN, 4),
    "KL": Arm(DRAWN, 3, kl=True),
    "start + KL": Arm(DRAWN, 3, kl=True, start=True),
}
ARMS = {name: Arm((p,)) for name, p in FIXED.items()} | FLEXIBLE


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is the same in all runs of a table.

    Attributes:
        width, depth, mlp_dim, heads: of the transformer.
        kernel: stored by a flexible model, pixels per side.
        grid: of a flexible model's table of positions.
        position_scale: times the table's initial values: louder positions are learnt sooner, in every arm.
        budget: of a fixed model's training, in tokens and `STEP`.
        rows: images per step.
        rate: largest learning rate.
        start_rate: largest learning rate of a student that starts from its teacher.
        label_weight: share of the labels' loss beside the teacher's.
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
    """One picture per row; with several sizes, one is drawn per step."""
    return pp.recipes.flexivit(size=SIDE, patch_size=patch_sizes, rows_per_batch=rows, normalize=CROPS, seed=seed)


def painted(crops: fashion.Crops, patch_sizes: Sequence[int] = SIZES) -> Pictures:
    """Painted once, in the smallest patches, and cut again for the others."""
    parts = list(pp.load(crops, recipe_of((min(patch_sizes),), rows=500), sizes=crops.sizes))
    return {p: _joined([repatch(part, p) for part in parts]) for p in patch_sizes}


def rows_of(batch: pp.PackedBatch, numbers: Tensor) -> pp.PackedBatch:
    """These rows, in this order."""
    tensors = {name: value[numbers] for name, value in _by_row(batch)}
    return batch._replace(**tensors, keys=[batch.keys[i] for i in numbers.tolist()])


def _joined(parts: Sequence[pp.PackedBatch]) -> pp.PackedBatch:
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name, _ in _by_row(parts[0])}
    return parts[0]._replace(**tensors, keys=[keys for part in parts for keys in part.keys], info=BatchInfo())


def _by_row(batch: pp.PackedBatch) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in batch._asdict().items() if isinstance(value, Tensor) and name != "norm")


class Drawn:
    """Batches of pictures kept in memory: what `fit` and `accuracy` take.

    Args:
        pictures: of every patch size of the recipe.
        recipe: rows per batch, and the patch size of each step.
        steps: of one epoch, over as many reshuffled passes as that takes; None for one pass in order.
    """

    def __init__(self, pictures: Pictures, recipe: pp.Recipe, *, steps: int | None = None) -> None:
        self._pictures, self._recipe, self._steps = pictures, recipe, steps
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which order, and which patch sizes."""
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
    """A teacher whose answers to pictures that do not change are looked up by their keys; it is a `ViT` to `distillation`."""

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
        """Logits ``[B, 1, classes]``."""
        return torch.stack([self._answers[keys[0]] for keys in batch.keys])


def build(arm: str, settings: Settings, seed: int) -> ViT:
    """A model of this arm, before training. A fixed one stores the kernel and the table of its own patch size."""
    p = FIXED.get(arm)
    # without antialias a patch a third as long as the stored kernel has every third of its weights, and no other has those
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
    """The model of an arm, and what it took."""
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
    """Accuracy at each size, if `plain` also with the kernel resized like a picture, and ms of CPU time per image."""
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
    """CPU time per image: the least of a few forward passes."""
    model.eval()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        model(batch)
        times.append(time.process_time() - start)
    return round(1e3 * min(times) / len(batch.keys), 5)


class Work:
    """The pictures, painted when the first run wants them, and the teachers of all seeds.

    Args:
        folder: of the IDX files.
        split: what models are asked about, "validation" or "test".
        beside: the file of results; weights are kept next to it.
    """

    def __init__(self, folder: Path, split: str, beside: Path, settings: Settings) -> None:
        self._folder, self.split, self._beside, self.settings = folder, split, beside, settings

    @cached_property
    def _data(self) -> fashion.Splits:
        return fashion.splits(self._folder)

    @cached_property
    def train(self) -> Pictures:
        """What models are trained on."""
        return painted(self._data.train)

    @cached_property
    def asked(self) -> Pictures:
        """What models are asked about."""
        return painted(getattr(self._data, self.split))

    def teacher(self, seed: int) -> ViT:
        """As it was kept; trained again where its weights are lost or of other settings."""
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
    """Train one model and ask it: a line of the results."""
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
    """(arm, seed) of the runs to come, all arms with one seed before the next seed."""
    done = {(line["arm"], line["seed"]) for line in lines}
    return [(arm, seed) for seed in range(seeds) for arm in arms if (arm, seed) not in done]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, as long as there is time; print the tables; draw."""
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
