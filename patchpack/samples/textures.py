"""The ten textures of the sample shards, as formulas.

Each formula takes coordinates in periods, float64 ``[H, W]``. It returns how deep each point lies inside the ink, in periods.
The depth is positive inside the ink and negative outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float64]
Generator = np.random.Generator


def _stripes(v: Field, u: Field, rng: Generator) -> Field:
    return rng.uniform(0.2, 0.3) - np.abs(_centred(v))


def _zigzags(v: Field, u: Field, rng: Generator) -> Field:
    # a triangle wave of slope 1; the stripes are narrower across than along v, hence the 0.7
    return 0.7 * _stripes(v + 2 * rng.uniform(0.8, 1.0) * np.abs(_centred(u / 2)), u, rng)


def _checkerboard(v: Field, u: Field, rng: Generator) -> Field:
    near = np.minimum(0.5 - np.abs(_centred(v)), 0.5 - np.abs(_centred(u)))
    return np.where((np.floor(v + 0.5) + np.floor(u + 0.5)) % 2 == 0, near, -near)


def _dots(v: Field, u: Field, rng: Generator) -> Field:
    v, u = _cells(v, u, rng)
    return rng.uniform(0.26, 0.34) - np.hypot(v, u)


def _rings(v: Field, u: Field, rng: Generator) -> Field:
    v, u = _cells(v, u, rng)
    return rng.uniform(0.07, 0.1) - np.abs(np.hypot(v, u) - rng.uniform(0.3, 0.34))


def _triangles(v: Field, u: Field, rng: Generator) -> Field:
    v, u = _cells(v, u, rng)
    inradius = rng.uniform(0.2, 0.24)
    slanted = math.sqrt(0.75) * np.abs(u) - 0.5 * v
    return inradius - np.maximum(v, slanted)


def _crosses(v: Field, u: Field, rng: Generator) -> Field:
    v, u = np.abs(_cells(v, u, rng))
    reach, half_width = rng.uniform(0.36, 0.42), rng.uniform(0.09, 0.13)
    upright = np.minimum(reach - v, half_width - u)
    level = np.minimum(half_width - v, reach - u)
    return np.maximum(upright, level)


def _clouds(v: Field, u: Field, rng: Generator) -> Field:
    # a sum of waves from all sides; not a distance but the ink itself
    total = np.zeros_like(v)
    for angle in rng.uniform(0, np.pi, 9):
        wave = 2 * np.pi * rng.uniform(0.3, 0.7)
        total += np.cos(wave * (v * np.cos(angle) + u * np.sin(angle)) + rng.uniform(0, 2 * np.pi))
    return 0.5 + total / 7


def _centred(v: Field) -> Field:
    """Return the signed distance to the nearest integer, in [-0.5, 0.5]."""
    centred: Field = v - np.rint(v)
    return centred


def _cells(v: Field, u: Field, rng: Generator) -> tuple[Field, Field]:
    """Return coordinates inside a unit cell, counted from a point near its centre.

    Odd rows of cells may be shifted by half a cell.
    """
    row = np.rint(v).astype(np.int64)
    u = u + 0.5 * (row % 2) * rng.integers(2)
    column = np.rint(u).astype(np.int64)
    off = rng.uniform(-0.04, 0.04, (2, 32, 32))[:, row % 32, column % 32]
    return v - row + off[0], u - column + off[1]


class Texture(NamedTuple):
    """The way in which one class is drawn.

    Attributes:
        depth: function that evaluates the texture, one of the functions in this module.
        period: shortest and longest period, as fractions of the square root of the picture's area.
        tilt: largest random rotation to either side, in degrees.
        angle: fixed rotation to either side, in degrees, in addition to `tilt`.
        soft: True if the texture has no sharp edges.
    """

    depth: Callable[[Field, Field, Generator], Field]
    period: tuple[float, float] = (0.24, 0.34)
    tilt: float = 10.0
    angle: float = 0.0
    soft: bool = False


TEXTURES = {
    "horizontal stripes": Texture(_stripes, (0.16, 0.26), tilt=6),
    "vertical stripes": Texture(_stripes, (0.16, 0.26), tilt=6, angle=90),
    "diagonal stripes": Texture(_stripes, (0.16, 0.26), angle=45),
    "checkerboard": Texture(_checkerboard, (0.13, 0.22)),
    "dots": Texture(_dots, (0.2, 0.32)),
    "rings": Texture(_rings),
    "triangles": Texture(_triangles),
    "crosses": Texture(_crosses),
    "zigzags": Texture(_zigzags, (0.18, 0.26)),
    "clouds": Texture(_clouds, soft=True),
}
