"""Lists of lengths on which packers are compared, made from real image sizes."""

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
    """Return the (width, height) of real images, ``[n, 2]``: from COCO for ``coco``, otherwise from ImageNet."""
    with np.load(DATA / FILES["coco" if name == "coco" else "imagenet"]) as file:
        wh = file["wh"].astype(np.int64)
        return wh[file["index"]] if "index" in file else wh


def histogram(name: str) -> npt.NDArray[np.int64]:
    """Return the number of sequences of each length, from 0 on, in the list ``wikipedia_512`` or ``squad11_384``."""
    with np.load(DATA / f"{name}.npz") as file:
        return np.concatenate([[0], file["count"].astype(np.int64)])


def make(name: str, n: int, seq_len: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return the token counts of n images at patch size 16. Each count is in 1 … seq_len.

    * ``navit``: ImageNet's shapes with sides from U(128, 512) and the aspect kept. Tokens are dropped at a rate from
      Beta(2, 2). Lengths are small and spread smoothly.
    * ``imagenet``: native grids. Sizes are drawn with replacement, and each side is multiplied by exp(N(0, 0.05)).
    * ``coco``: native grids of unchanged sizes. Only 277 different lengths occur.
    * ``lognormal``: areas of exp(N(log 512 tokens, 1)), with a long tail. This list needs no file.

    A native grid of more than seq_len patches becomes the Pix2Struct grid of at most seq_len patches.
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
