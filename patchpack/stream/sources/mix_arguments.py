"""The arguments of a mix: pairs of a source and a weight, and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import isfinite
from typing import Any

import numpy as np

from patchpack.errors import ConfigError


def pairs_of(sources: Any) -> list[tuple[Any, Any]]:
    """Return the pairs (source, weight) of a mix. Raises `ConfigError` for anything else."""
    if not isinstance(sources, (list, tuple)) or not sources:
        raise ConfigError(f"a mix needs a list of pairs (source, weight), at least one, got {_said(sources)}")
    for number, pair in enumerate(sources):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ConfigError(f"entry {number} of a mix must be a pair (source, weight), got {_said(pair)}")
    return [(source, weight) for source, weight in sources]


def _said(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"


def weight_of(weight: object, name: str) -> Fraction:
    """Return a weight as an exact fraction. Raises `ConfigError` unless the weight of source `name` is a number > 0."""
    numbers = (int, float, Fraction, np.integer, np.floating)
    if isinstance(weight, bool) or not isinstance(weight, numbers) or not isfinite(weight) or not weight > 0:
        raise ConfigError(
            f"the weight of source {name!r} must be a number > 0, got {weight!r}. Leave out a source that is not wanted"
        )
    if isinstance(weight, Fraction):
        return weight
    return Fraction(int(weight)) if isinstance(weight, (int, np.integer)) else Fraction(str(float(weight)))


def names_of(names: Any, count: int) -> list[str]:
    """Return one name for each of `count` sources. Raises `ConfigError` for names that cannot be used."""
    if names is None:
        return [str(number) for number in range(count)]
    if isinstance(names, (str, Mapping)) or not isinstance(names, Sequence) or len(names) != count:
        raise ConfigError(f"names must be a list of one name for each of the {count} sources, got {names!r}")
    for name in names:
        if not isinstance(name, str) or not name or "/" in name:
            raise ConfigError(f"a name of a source must be a str that is not empty and has no '/', got {name!r}")
    if len(set(names)) < count:
        raise ConfigError(f"names of sources must differ, got {list(names)!r}: keys and reports could not tell them apart")
    return list(names)
