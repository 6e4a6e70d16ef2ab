"""Which positions extrapolate? One small model, every kind of positions, on grids that training never showed.

    python -m bench.model.positions [--data FOLDER] [--out positions.jsonl] [--minutes N] [--plot docs/images/positions.png]

Fashion-MNIST cropped to its object (`bench.model.fashion` says how to install it), stretched to grids of patches of 2 pixels. A
patch that small says little, so a model must know where it was. In training a picture gets one of 15 grids, 3 to 8 patches per
side and 12 to 24 in all, whatever its own shape: no class has a shape of its own, and only geometry differs between the
conditions:

* ``trained``: the same grids, other pictures;
* ``combinations``: 5 to 8 per side, so at least 25 patches: every row and every column was seen, never together;
* ``sizes``: 9 to 12 per side: rows and columns that no training picture had.

The model is a NaViT of width 64 (biases off, query-key norm, attention pooling), 2 blocks, trained for one pass over a part of
the training pictures; a seed decides its start, the pictures, their order and their grids, the same for every kind. Each run is
one line of ``--out``; runs that are there are not repeated, and ``--minutes`` ends a call before the next run. Then a table of
what is there and, with ``--plot``, a figure. One thread; a run takes about half a minute.
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
    """All (rows, cols) from `low` to `high` with at least 12 and at most `most` patches."""
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
    """A resize policy: every image gets one of these grids, all equally likely, whatever its shape."""

    grids: Grids
    draws = 1

    def bound(self, patch_size: int) -> int:
        """Patches of the largest."""
        return max(rows * cols for rows, cols in self.grids)

    def __call__(self, sizes: Any, patch_size: int, u: Any = None) -> Any:
        """int32 ``[n, 2]``, see `ResizePolicy`."""
        return np.array(self.grids, dtype=np.int32)[(u[:, 0] * len(self.grids)).astype(np.int64)]


class Kind(NamedTuple):
    """One kind of positions: what ids it reads, what is added to tokens, and what turns queries and keys."""

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
    """What is the same in all runs of a table.

    Attributes:
        train: pictures that a run is trained on, once each.
        test: pictures of the test file, under each condition.
        rows: of 256 tokens per step.
        rate: largest learning rate: 30 steps up, then falling linearly to 0.
    """

    train: int = 22_000
    test: int = 1_500
    rows: int = 4
    rate: float = 3e-3


def recipe(grids: Grids, kind: Kind, settings: Settings, seed: int = 0) -> pp.Recipe:
    """The input side: nothing but the ids of positions depends on the kind."""
    return pp.Recipe(
        resize=OneOf(grids), positions=kind.scheme, patch_size=PATCH_SIZE, seq_len=SEQ_LEN, max_images=24,
        rows_per_batch=settings.rows, seed=seed,
    )  # fmt: skip


def build(kind: Kind, seed: int) -> ViT:
    """The model; all but its positions starts the same for every kind."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        positions = kind.make() if kind.make else None
        torch.manual_seed(seed)
        return ViT(
            patch_size=PATCH_SIZE, width=WIDTH, depth=DEPTH, heads=HEADS, num_classes=fashion.NUM_CLASSES,
            positions=positions, rope=kind.rope, style=BlockStyle(bias=False, qk_norm=True),
        )  # fmt: skip


def train(model: ViT, crops: fashion.Crops, kind: Kind, seed: int, settings: Settings) -> float:
    """One pass; the mean loss of its last tenth."""
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
    """Share of pictures whose class is named; their grids are the same for every kind and seed."""
    model.eval()
    right = total = 0
    for batch in pp.load(crops, recipe(grids, kind, settings), sizes=crops.sizes):
        named = model(batch).argmax(-1) == batch.targets
        right, total = right + int(named[batch.slot_mask].sum()), total + int(batch.slot_mask.sum())
    assert total == len(crops)
    return right / total


def run(name: str, seed: int, data: fashion.Splits, settings: Settings) -> dict[str, Any]:
    """Train and ask one model: a line of the results."""
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
    """(kind, seed) of the runs to come, all kinds with one seed before the next seed."""
    done = {(line["kind"], line["seed"]) for line in lines}
    yield from ((name, seed) for seed in range(seeds) for name in names if (name, seed) not in done)


def summary(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Kind → condition → mean, least and greatest accuracy over seeds, in percent."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name in KINDS:
        of = [100 * np.array(list(line["accuracy"].values())) for line in lines if line["kind"] == name]
        if of:
            stats = zip(CONDITIONS, np.mean(of, axis=0), np.min(of, axis=0), np.max(of, axis=0), strict=True)
            found[name] = {condition: (float(mean), float(low), float(high)) for condition, mean, low, high in stats}
    return found


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean accuracy in percent and the range of the seeds."""
    text = [f"| positions | parameters | {' | '.join(CONDITIONS)} |", "|---" * (2 + len(CONDITIONS)) + "|"]
    for name, by in summary(lines).items():
        own = next(line["parameters of positions"] for line in lines if line["kind"] == name)
        cells = [f"{mean:.1f} ({low:.1f}–{high:.1f})" for mean, low, high in by.values()]
        text.append(f"| {name} | {own:,} | {' | '.join(cells)} |")
    return "\n".join(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, as long as there is time; print the table; draw."""
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
