"""The arms that `bench.model.navit` compares: six recipes, and everything that they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

import patchpack as pp
from bench.model import fashion
from patchpack.model import NaViT
from patchpack.types import Grid

CROPS = pp.normalize.MeanStd((0.442,) * 3, (0.353,) * 3)  # grey levels inside the crops of the training pictures


class Setting(NamedTuple):
    """The values that are tuned."""

    lr: float
    tokens: int  # per batch


@dataclass(frozen=True)
class Protocol:
    """The settings that all arms share."""

    width: int = 48
    depth: int = 3
    heads: int = 2
    mlp_ratio: float = 2
    seconds: float = 420  # of training, by the clock of `train`, at most
    enough: float = 0.88  # validation accuracy at which a run may end
    settings: tuple[Setting, ...] = (Setting(2e-3, 784),)  # if there are several, each is tried for a quarter of the length
    seeds: tuple[int, ...] = (0, 1, 2)
    warm_up: int = 100  # steps
    weight_decay: float = 0.05
    compiled: bool = True  # whether the model is compiled for fixed shapes
    position_scale: float = 4  # factor for the model's initial positions: larger ones are learnt sooner, in every arm
    points: tuple[float, ...] = field(default=tuple(round(1.3**-k, 4) for k in range(7, -1, -1)))  # evaluation times / seconds

    def model(self, *, static: bool) -> NaViT:
        """Return a model whose weights are drawn from torch's generator."""
        model = NaViT(
            patch_size=4, width=self.width, depth=self.depth, heads=self.heads, mlp_ratio=self.mlp_ratio, max_len=49,
            num_classes=fashion.NUM_CLASSES, static=static,
        )  # fmt: skip
        with torch.no_grad():
            for table in (model.positions.rows, model.positions.cols):
                table.mul_(self.position_scale)
        return model


@dataclass(frozen=True)
class Lattice:
    """A position scheme: the cell of a `cells` x `cells` lattice over the whole image that contains the middle of a patch.

    The row is ``(2 i + 1) * cells // (2 rows)`` for patch row i, and columns likewise: int32 ``[rows * cols, 2]``. For 28 x 28
    pixels the result equals the grid positions. In an image of another size, a row number means the same height in the object.
    A short training has no time to learn this relation.
    """

    cells: int = 7

    def __call__(self, grid: Grid) -> npt.NDArray[np.int32]:
        """See `patchpack.positions.PositionScheme`."""
        rows, cols = ((2 * np.arange(n) + 1) * self.cells // (2 * n) for n in grid)
        return np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int32)


class Run(NamedTuple):
    """One training. `phase` is "tune" (a quarter of the length) or "final"."""

    phase: str
    arm: str
    setting: Setting
    seed: int


def arms() -> dict[str, pp.Recipe]:
    """Return the recipes of the arms, by name."""
    common: dict[str, Any] = {"patch_size": 4, "normalize": CROPS, "positions": Lattice()}
    native, drawn = pp.resize.Native(49, edge="pad"), pp.resize.NaViT((16, 24), eval_resolution=22)
    one = {"seq_len": 49, "max_images": 1, "packer": pp.packing.NextFit(), **common}  # no lookahead is needed
    return {
        "square": pp.Recipe(resize=pp.resize.Square(28), **one),
        "padded": pp.Recipe(resize=native, **one),
        "packed": pp.Recipe(resize=native, seq_len=98, max_images=12, **common),
        "area": pp.Recipe(resize=pp.resize.NaViT(22), seq_len=98, max_images=12, **common),
        "resolution": pp.Recipe(resize=drawn, seq_len=64, max_images=10, **common),
        "drop": pp.Recipe(resize=drawn, drop=pp.drop.Beta(0.3, 0.9), seq_len=64, max_images=16, **common),
    }
