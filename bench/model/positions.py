"""Which positions extrapolate?

One small model is trained with every kind of positions, and tested on grids not seen in training.

    python -m bench.model.positions [--data FOLDER] [--out positions.jsonl] [--minutes N] [--plot docs/images/positions.png]

The pictures are Fashion-MNIST, cropped to the object (`bench.model.fashion` says how to install it) and stretched to grids of
patches of 2 pixels. Such a small patch says little, so a model must know where the patch was. In training a picture gets one of
15 grids, with 3 to 8 patches per side and 12 to 24 patches in total, whatever the picture's own shape. So no class has a shape
of its own, and the conditions of the test differ in geometry only:

* ``trained``: the grids of training, with other pictures;
* ``combinations``: 5 to 8 patches per side, so at least 25 patches. Every row and every column was seen, but never together;
* ``sizes``: 9 to 12 patches per side: rows and columns that no training picture had.

The model is a NaViT of width 64 with 2 blocks (no biases, query-key norm, attention pooling). It is trained for one pass over a
part of the training pictures. A seed decides the initial weights, the pictures, their order and their grids, equally for every
kind of positions. Each run is one line of ``--out``. Runs that have a line are not repeated. ``--minutes`` stops the program
before the next run. At the end the program prints a table of all lines and, with ``--plot``, draws a figure. Everything runs on
one thread. A run takes about half a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import patchpack as pp
from bench import results
from bench.model import fashion
from patchpack.model import ViT, cross_entropy
from patchpack.model.block import BlockStyle
from patchpack.model.interpolate import CONVENTIONS
from patchpack.model.positions import FactorizedPositions, GridPositions, JointPositions, RasterPositions
from patchpack.model.waves import FourierPositions, SinusoidalPositions

PATCH_SIZE, WIDTH, DEPTH, HEADS, MAX_LEN = 2, 64, 2, 4, 12
SEQ_LEN = 256

Grids = tuple[tuple[int, int], ...]


def grids_of(low: int, high: int, *, most: int = 1 << 20) -> Grids:
    """Return all grids (rows, cols) with sides from `low` to `high`, at least 12 patches and at most `most` patches."""
    sides = range(low, high + 1)
    return tuple((rows, cols) for rows in sides for cols in sides if 12 <= rows * cols <= most)


TRAINED = grids_of(3, 8, most=24)
CONDITIONS = {"trained": TRAINED, "combinations": grids_of(5, 8), "sizes": grids_of(9, 12)}
TITLES = {
    "trained": "grids as in training\n3–8 per side, 12–24 patches",
    "combinations": "unseen combinations\n5–8 per side, 25–64 patches",
    "sizes": "unseen sizes\n9–12 per side, 81–144 patches",
}


@dataclass(frozen=True)
class OneOf:
    """A resize policy that gives every image one of some grids, all equally likely, whatever the image's shape."""

    grids: Grids
    draws = 1

    def bound(self, patch_size: int) -> int:
        """Return the number of patches of the largest grid."""
        return max(rows * cols for rows, cols in self.grids)

    def __call__(self, sizes: Any, patch_size: int, u: Any = None) -> Any:
        """Return int32 ``[n, 2]``, see `ResizePolicy`."""
        return np.array(self.grids, dtype=np.int32)[(u[:, 0] * len(self.grids)).astype(np.int64)]


class Kind(NamedTuple):
    """One kind of positions: the ids that the model reads, the module that adds to tokens, and the base of RoPE for queries and
    keys.
    """

    group: str
    scheme: pp.positions.PositionScheme
    make: Callable[[], nn.Module] | None
    rope: float | None = None


_TABLES, _WAVES, _FRACTIONS = "learned tables", "waves", "fractions of the image"
_PLAIN, _SHARE = pp.positions.Absolute(), pp.positions.Fractional(centered=True)
_factorized = partial(FactorizedPositions, width=WIDTH, max_len=MAX_LEN)
_fractional = partial(_factorized, fractional=True)
KINDS = {
    "none": Kind("none", _PLAIN, None),
    "1-D, raster order": Kind(_TABLES, _PLAIN, partial(RasterPositions, width=WIDTH, max_tokens=MAX_LEN**2)),
    "8×8, resized": Kind(_TABLES, _PLAIN, partial(GridPositions, width=WIDTH, grid=(8, 8), how=CONVENTIONS["siglip2"])),
    "joint": Kind(_TABLES, _PLAIN, partial(JointPositions, width=WIDTH, max_len=MAX_LEN)),
    "factorized, sum": Kind(_TABLES, _PLAIN, _factorized),
    "factorized, product": Kind(_TABLES, _PLAIN, partial(_factorized, combine="product")),
    "factorized, stack": Kind(_TABLES, _PLAIN, partial(_factorized, combine="stack")),
    "sinusoidal": Kind(_WAVES, _PLAIN, partial(SinusoidalPositions, width=WIDTH)),
    "Fourier": Kind(_WAVES, _PLAIN, partial(FourierPositions, width=WIDTH)),
    "RoPE": Kind(_WAVES, _PLAIN, None, rope=10_000.0),
    "fractional, sum": Kind(_FRACTIONS, _SHARE, _fractional),
    "fractional, sum, aspect kept": Kind(_FRACTIONS, pp.positions.Fractional(keep_aspect=True, centered=True), _fractional),
    "fractional, product": Kind(_FRACTIONS, _SHARE, partial(_fractional, combine="product")),
    "fractional, stack": Kind(_FRACTIONS, _SHARE, partial(_fractional, combine="stack")),
    "fractional, sinusoidal": Kind(
        _FRACTIONS, _SHARE, partial(SinusoidalPositions, width=WIDTH, max_len=MAX_LEN, fractional=True)
    ),
    "fractional, Fourier": Kind(_FRACTIONS, _SHARE, partial(FourierPositions, width=WIDTH, fractional=True)),
}
GROUPS = {name: kind.group for name, kind in KINDS.items()}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that all runs of a table share.

    Attributes:
        train: number of pictures that a run is trained on, once each.
        test: number of pictures of the test file under each condition.
        rows: rows of 256 tokens per step.
        rate: largest learning rate. It rises for 30 steps and then falls linearly to 0.
    """

    train: int = 22_000
    test: int = 1_500
    rows: int = 4
    rate: float = 3e-3


def recipe(grids: Grids, kind: Kind, settings: Settings, seed: int = 0) -> pp.Recipe:
    """Return the recipe. Only the position ids depend on the kind."""
    return pp.Recipe(
        resize=OneOf(grids), positions=kind.scheme, patch_size=PATCH_SIZE, seq_len=SEQ_LEN, max_images=24,
        rows_per_batch=settings.rows, seed=seed,
    )  # fmt: skip


def build(kind: Kind, seed: int) -> ViT:
    """Return the model before training. All weights except those of the positions are the same for every kind."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        positions = kind.make() if kind.make else None
        torch.manual_seed(seed)
        return ViT(
            patch_size=PATCH_SIZE, width=WIDTH, depth=DEPTH, heads=HEADS, num_classes=fashion.NUM_CLASSES,
            positions=positions, rope=kind.rope, style=BlockStyle(bias=False, qk_norm=True),
        )  # fmt: skip


def train(model: ViT, crops: fashion.Crops, kind: Kind, seed: int, settings: Settings) -> float:
    """Train for one pass. Return the mean loss of its last tenth."""
    plan = recipe(TRAINED, kind, settings, seed)
    tokens = np.mean([rows * cols for rows, cols in TRAINED]) * len(crops)
    steps = max(1, round(tokens / (settings.rows * SEQ_LEN)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, min((step + 1) / 30, 1 - step / steps)))
    losses = []
    for batch in pp.load(crops, plan, sizes=crops.sizes, shuffle=1):
        loss = cross_entropy(model(batch), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return float(np.mean(losses[-max(1, len(losses) // 10) :]))


@torch.no_grad()
def accuracy(model: ViT, crops: fashion.Crops, grids: Grids, kind: Kind, settings: Settings) -> float:
    """Return the share of pictures whose class is predicted. Their grids are the same for every kind and seed."""
    model.eval()
    right = total = 0
    for batch in pp.load(crops, recipe(grids, kind, settings), sizes=crops.sizes):
        named = model(batch).argmax(-1) == batch.targets
        right, total = right + int(named[batch.slot_mask].sum()), total + int(batch.slot_mask.sum())
    assert total == len(crops)
    return right / total


def run(name: str, seed: int, data: fashion.Splits, settings: Settings) -> dict[str, Any]:
    """Train and evaluate one model. Return a line of the results."""
    start, kind = time.process_time(), KINDS[name]
    picked = np.random.default_rng(seed).permutation(len(data.train))[: settings.train]
    model = build(kind, seed)
    loss = train(model, data.train.subset(picked), kind, seed, settings)
    test = data.test.subset(np.arange(min(settings.test, len(data.test))))
    answers = {name: accuracy(model, test, grids, kind, settings) for name, grids in CONDITIONS.items()}
    own = 0 if model.positions is None else sum(p.numel() for p in model.positions.parameters())
    return {
        "kind": name, "seed": seed, "settings": asdict(settings), "accuracy": answers, "loss": round(loss, 4),
        "parameters of positions": own, "cpu s": round(time.process_time() - start, 1),
    }  # fmt: skip


def missing(lines: Sequence[dict[str, Any]], names: Sequence[str], seeds: int) -> Iterator[tuple[str, int]]:
    """Yield the (kind, seed) of the runs that have no line yet. All kinds with one seed come before the next seed."""
    done = {(line["kind"], line["seed"]) for line in lines}
    yield from ((name, seed) for seed in range(seeds) for name in names if (name, seed) not in done)


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return kind → condition → (mean, lowest, highest) accuracy over seeds, in percent."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name in KINDS:
        of = [100 * np.array(list(line["accuracy"].values())) for line in lines if line["kind"] == name]
        if of:
            stats = zip(CONDITIONS, np.mean(of, axis=0), np.min(of, axis=0), np.max(of, axis=0), strict=True)
            found[name] = {condition: (float(mean), float(low), float(high)) for condition, mean, low, high in stats}
    return found


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table of the mean accuracy in percent and its range over seeds."""
    text = [f"| positions | parameters | {' | '.join(CONDITIONS)} |", "|---" * (2 + len(CONDITIONS)) + "|"]
    for name, by in summary(lines).items():
        own = next(line["parameters of positions"] for line in lines if line["kind"] == name)
        cells = [f"{mean:.1f} ({low:.1f}–{high:.1f})" for mean, low, high in by.values()]
        text.append(f"| {name} | {own:,} | {' | '.join(cells)} |")
    return "\n".join(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the missing runs while there is time. Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=fashion.DATA, help="folder of the IDX files")
    parser.add_argument("--out", type=Path, default=Path("positions.jsonl"), help="JSON lines: one per run, and to go on from")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after so long")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--train", type=int, default=Settings.train, help="training pictures")
    parser.add_argument("--test", type=int, default=Settings.test, help="test pictures")
    parser.add_argument("--plot", type=Path, help="PNG, SVG or PDF")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings, end = Settings(train=options.train, test=options.test), time.monotonic() + 60 * options.minutes
    lines = results.read(options.out, settings=asdict(settings))
    if todo := list(missing(lines, options.kinds, options.seeds)):
        try:
            data = fashion.splits(options.data)
        except (FileNotFoundError, ValueError) as error:
            raise SystemExit(str(error)) from None
        for name, seed in todo:
            if time.monotonic() >= end:
                break
            results.append(options.out, run(name, seed, data, settings))
    lines = results.read(options.out, settings=asdict(settings))
    print(table(lines))
    print(f"\n{len(lines)} runs, {len(list(missing(lines, options.kinds, options.seeds)))} to come")
    if options.plot:
        from bench.model import positions_plot

        positions_plot.draw(summary(lines), GROUPS, TITLES, options.plot)


if __name__ == "__main__":
    main()
