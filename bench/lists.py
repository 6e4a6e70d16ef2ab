"""The lists of lengths that packers are compared on, made from real image sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchpack.plan.policies.resize import Pix2Struct

DATA = Path(__file__).resolve().parents[1] / "tests" / "golden" / "data"
FILES = {"imagenet": "imagenet1k_sample_1000.npz", "coco": "coco2014_trainvalno5k_117263.npz"}
NAMES = ("navit", "imagenet", "coco", "lognormal")
_P = 16


def sizes(name: str) -> npt.NDArray[np.int64]:
    """(width, height) of real images, ``[n, 2]``: of COCO for ``coco``, else of ImageNet."""
    with np.load(DATA / FILES["coco" if name == "coco" else "imagenet"]) as file:
        wh = file["wh"].astype(np.int64)
        return wh[file["index"]] if "index" in file else wh


def histogram(name: str) -> npt.NDArray[np.int64]:
    """Number of sequences of each length from 0 on, as `numpy.bincount` counts: ``wikipedia_512`` or ``squad11_384``."""
    with np.load(DATA / f"{name}.npz") as file:
        return np.concatenate([[0], file["count"].astype(np.int64)])


def make(name: str, n: int, seq_len: int, seed: int = 0) -> npt.NDArray[np.int64]:
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
    wh = sizes(name).astype(np.float64)
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
