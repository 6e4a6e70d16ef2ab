"""Drop policies, which decide how many patches of an image are kept.

One random draw per image decides how many patches are packed. The painter later chooses at random which patches are kept. With
a drop rate ρ, ``max(1, floor(n * (1 − ρ) + 1/2))`` of n patches are kept. This rounds to the nearest integer, so the mean rate
is the requested rate (the NaViT paper states no rounding).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_number
from patchpack.plan.policies import quantile
from patchpack.types import FloatArray, IntArray

VARIANCE_RULE = 0.3  # NaViT appendix: variance of u is 0.3 * mean * (1 − mean)


@runtime_checkable
class DropPolicy(Protocol):
    """A rule that decides from the grid of an image how many of its patches are kept.

    Row i of the result depends on row i of the input alone.
    """

    @property
    def draws(self) -> int:
        """Number of uniform random draws per image, 0 for a policy that does not draw."""
        ...

    def __call__(self, grids: IntArray, u: FloatArray | None, seen: npt.NDArray[np.int64]) -> IntArray:
        """Return the number of kept patches of each image.

        Args:
            grids: int ``[n, 2]``, (rows, cols) of each image's patches, >= 1.
            u: float64 ``[n, draws]``, uniform random draws in [0, 1), or None if `draws` is 0.
            seen: int64 ``[n]``, running number of each image over all epochs, from 0.

        Returns:
            int32 ``[n]``, number of kept patches, ``1 … rows * cols``.
        """
        ...


@dataclass(frozen=True)
class NoDrop:
    """A policy that keeps every patch."""

    draws = 0

    def __call__(self, grids: npt.ArrayLike, u: FloatArray | None = None, seen: npt.ArrayLike | None = None) -> IntArray:
        """Return ``rows * cols`` for each grid.

        Args:
            grids: int ``[n, 2]``, (rows, cols) of each image's patches, >= 1.
            u: not used, because this policy does not draw.
            seen: not used.
        """
        return keep(grids, 0.0)


@dataclass(frozen=True)
class Constant:
    """The same drop rate for every image.

    Attributes:
        rate: share of patches removed, in [0, 1).
    """

    rate: float
    draws = 0

    def __post_init__(self) -> None:
        _require_rate("rate", self.rate)

    def __call__(self, grids: npt.ArrayLike, u: FloatArray | None = None, seen: npt.ArrayLike | None = None) -> IntArray:
        """See `DropPolicy`."""
        return keep(grids, self.rate)


@dataclass(frozen=True)
class Beta:
    """A drop rate that is drawn for each image: `max_rate` times a random number with the distribution Beta(a, b).

    With ``m = mean / max_rate``, the parameters are ``a = 7/3 * m`` and ``b = 7/3 * (1 − m)``. So the mean rate is
    `mean`, and Beta(a, b) has the variance ``0.3 * m * (1 − m)``.
    Source: NaViT 2307.06304 section 2.1 and appendix.

    Attributes:
        mean: mean drop rate, in (0, max_rate). Default 0.5.
        max_rate: largest drop rate, in (0, 1]. Default 0.9.
    """

    mean: float = 0.5
    max_rate: float = 0.9
    draws = 1

    def __post_init__(self) -> None:
        require_number("mean", self.mean)
        require_number("max_rate", self.max_rate)
        if not 0 < self.mean < self.max_rate <= 1:
            raise ConfigError(f"expected 0 < mean < max_rate <= 1, got mean={self.mean}, max_rate={self.max_rate}")

    def rates(self, u: FloatArray) -> FloatArray:
        """Return one drop rate for each uniform random draw in `u`, ``[n]``: float64 ``[n]`` in [0, max_rate]."""
        m = self.mean / self.max_rate
        concentration = 1 / VARIANCE_RULE - 1
        return self.max_rate * quantile.beta(u, concentration * m, concentration * (1 - m))

    def __call__(self, grids: npt.ArrayLike, u: FloatArray | None, seen: npt.ArrayLike | None = None) -> IntArray:
        """See `DropPolicy`."""
        return keep(grids, self.rates(_drawn(u)))


@dataclass(frozen=True)
class ByResolution:
    """A drop rate drawn for each image from a normal distribution, whose mean is linear in the number of patches.

    ``mu(n) = low + (high − low) * clip((n − fewest) / (most − fewest), 0, 1)``, rate ~ Normal(mu, std) truncated at two
    standard deviations, clipped to [0, 0.99]. Source: NaViT 2307.06304 section 3, with rates 0.5 ± δ. The 0.02 of the paper is
    taken as the standard deviation.

    Attributes:
        low: mean rate at `fewest` patches, in [0, 1).
        high: mean rate at `most` patches, in [0, 1).
        fewest: number of patches up to which the mean rate is `low`, >= 1.
        most: number of patches from which the mean rate is `high`, above `fewest`.
        std: standard deviation of the rate, >= 0. Default 0.02.
    """

    low: float
    high: float
    fewest: int
    most: int
    std: float = 0.02
    draws = 1

    def __post_init__(self) -> None:
        _require_rate("low", self.low)
        _require_rate("high", self.high)
        for name in ("fewest", "most", "std"):
            require_number(name, getattr(self, name))
        if not (1 <= self.fewest < self.most and self.std >= 0):
            raise ConfigError(
                f"expected 1 <= fewest < most and std >= 0, got fewest={self.fewest}, most={self.most}, std={self.std}"
            )

    def rates(self, num_patches: npt.ArrayLike, u: FloatArray) -> FloatArray:
        """Return the drop rate of each of n images, float64 ``[n]`` in [0, 0.99].

        `num_patches` is the number of patches of each image, ``[n]``. `u` is one uniform random draw for each image, ``[n]``.
        """
        along = np.clip((np.asarray(num_patches, dtype=np.float64) - self.fewest) / (self.most - self.fewest), 0, 1)
        offset = self.std * quantile.truncated_normal(u, 0.0, 1.0, -2.0, 2.0)
        rates: FloatArray = np.clip(self.low + (self.high - self.low) * along + offset, 0.0, 0.99)
        return rates

    def __call__(self, grids: npt.ArrayLike, u: FloatArray | None, seen: npt.ArrayLike | None = None) -> IntArray:
        """See `DropPolicy`."""
        return keep(grids, self.rates(_num_patches(grids), _drawn(u)))


@dataclass(frozen=True)
class Scheduled:
    """A drop rate that changes during training. It depends on the number n of images seen.

    ``rate(n) = low + (high − low) * sigmoid((n − midpoint) / width)``. With a negative `width` the rate falls during training,
    which the paper found to help. Source: NaViT 2307.06304 section 3.

    Attributes:
        midpoint: number of images seen at the middle of the change.
        width: number of images over which the rate changes, not 0. A negative value reverses the direction.
        low: the lower rate, in [0, 1). Default 0.2.
        high: the higher rate, in [0, 1). Default 0.8.
    """

    midpoint: float
    width: float
    low: float = 0.2
    high: float = 0.8
    draws = 0

    def __post_init__(self) -> None:
        _require_rate("low", self.low)
        _require_rate("high", self.high)
        require_number("midpoint", self.midpoint)
        require_number("width", self.width)
        if not (math.isfinite(self.midpoint) and math.isfinite(self.width) and self.width != 0):
            raise ConfigError(
                f"midpoint and width must be numbers of images, and width must not be 0, because the rate changes over it; got "
                f"midpoint={self.midpoint}, "
                f"width={self.width}"
            )

    def rates(self, seen: npt.ArrayLike) -> FloatArray:
        """Return one drop rate for each number of images seen, ``[n]``: float64 ``[n]`` in [low, high]."""
        x = np.clip((np.asarray(seen, dtype=np.float64) - self.midpoint) / self.width, -500, 500)
        rates: FloatArray = self.low + (self.high - self.low) / (1 + np.exp(-x))
        return rates

    def __call__(self, grids: npt.ArrayLike, u: FloatArray | None, seen: npt.ArrayLike) -> IntArray:
        """See `DropPolicy`."""
        return keep(grids, self.rates(seen))


def follows_seen(policy: DropPolicy) -> bool:
    """Return True if the number of kept patches may depend on the number of images seen.

    The result is True for every custom policy.
    """
    return not isinstance(policy, (NoDrop, Constant, Beta, ByResolution))


def keep(grids: npt.ArrayLike, rate: float | FloatArray) -> IntArray:
    """Return the number of kept patches of each grid, int32 ``[n]``: ``max(1, floor(rows * cols * (1 − rate) + 1/2))``."""
    n = _num_patches(grids)
    kept: IntArray = np.clip(np.floor(n * (1.0 - rate) + 0.5), 1, n).astype(np.int32)
    return kept


def _num_patches(grids: npt.ArrayLike) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = np.asarray(grids, dtype=np.int64).reshape(-1, 2).prod(axis=1)
    return counts


def _drawn(u: FloatArray | None) -> FloatArray:
    if u is None:
        raise ConfigError("this drop policy draws one uniform per image: pass u, float64 [n, 1]")
    return u[:, 0]


def _require_rate(name: str, rate: float) -> None:
    require_number(name, rate)
    if not 0 <= rate < 1:
        raise ConfigError(f"{name} must be in [0, 1), got {rate}")
