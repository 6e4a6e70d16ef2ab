"""The lists of lengths that packers are compared on, made from real image sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchpack.plan.resize import Pix2Struct

SIZES = Path(__file__).resolve().parents[2] / "shared" / "data" / "sizes"
FILES = {"imagenet": "imagenet1k_sample_1000.npz", "coco": "coco2014_trainvalno5k_117263.npz"}
NAMES = ("navit", "imagenet", "coco", "lognormal")
_P = 16


def make(name: str, n: int, seq_len: int, seed: int = 0, folder: Path = SIZES) -> npt.NDArray[np.int64]:
    """Token counts of n images at patch 16, each in 1 … seq_len.

    * ``navit``: ImageNet's shapes with sides U(128, 512), aspect kept, tokens dropped at a rate from Beta(2, 2). Small, smooth.
    * ``imagenet``: native grids, sizes drawn with replacement, each side times exp(N(0, 0.05)).
    * ``coco``: native grids, sizes as they are: a comb of 277 lengths.
    * ``lognormal``: areas exp(N(log 512 tokens, 1)), a long tail. Needs no file.

    A native grid over seq_len becomes the Pix2Struct grid of at most seq_len.
    """
    rng = np.random.default_rng(seed)
    if name == "lognormal":
        return np.clip(np.exp(rng.normal(np.log(512), 1.0, n)), 1, seq_len).astype(np.int64)
    wh = np.load(folder / FILES["coco" if name == "coco" else "imagenet"])["wh"].astype(np.float64)
    hw = wh[rng.integers(0, len(wh), n)][:, ::-1]
    if name != "coco":
        hw = np.maximum(1, np.floor(hw * np.exp(rng.normal(0, 0.05, hw.shape))))
    if name == "navit":
        side = rng.uniform(128, 512, (n, 1))
        grid = np.maximum(1, hw * (side / np.sqrt(hw.prod(axis=1, keepdims=True))) // _P)
        kept = np.floor(grid.prod(axis=1) * (1 - rng.beta(2, 2, n)))
        return np.clip(kept, 1, seq_len).astype(np.int64)
    grid = np.maximum(1, hw // _P).astype(np.int64)
    tokens = grid.prod(axis=1)
    over = tokens > seq_len
    tokens[over] = Pix2Struct(seq_len)(hw[over].astype(np.int64), _P, None).astype(np.int64).prod(axis=1)
    return tokens
