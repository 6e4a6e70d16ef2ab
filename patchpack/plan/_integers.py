"""Exact integer arithmetic over arrays, because floats could be off by one. The module also has checks of options."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError

Int64 = npt.NDArray[np.int64]


def isqrt(x: npt.ArrayLike) -> Int64:
    """Return ``floor(sqrt(x))`` for each x in ``0 … 2**62``, exactly."""
    x = np.asarray(x, dtype=np.int64)
    root = np.sqrt(x.astype(np.float64)).astype(np.int64)
    root -= root * root > x
    root += (root + 1) * (root + 1) <= x
    return np.asarray(root, dtype=np.int64)


def ceil_div(a: npt.ArrayLike, b: npt.ArrayLike) -> Int64:
    """Return ``ceil(a / b)`` for integers `a` and `b`, b > 0."""
    return np.asarray(-(-np.asarray(a, dtype=np.int64) // np.asarray(b, dtype=np.int64)))


def columns(sizes: npt.ArrayLike) -> tuple[Int64, Int64]:
    """Return the two columns of an integer table ``[n, 2]`` (heights and widths, or rows and cols) as int64 arrays ``[n]``."""
    table = np.asarray(sizes, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def grid_of(rows: npt.ArrayLike, cols: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Return `rows` and `cols`, each ``[n]``, as the two columns of an int32 table ``[n, 2]``."""
    return np.stack([rows, cols], axis=1).astype(np.int32)


def require_int(name: str, value: object, low: int, high: int) -> None:
    """Raise `ConfigError` unless `value` is an integer in `low` … `high`. A bool or a float is not an integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ConfigError(f"{name} must be an integer in {low} … {high}, got {value!r}")


def require_number(name: str, value: object) -> None:
    """Raise `ConfigError` unless `value` is an integer or a float. A bool is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ConfigError(f"{name} must be a number, got {value!r}")


def set_tuples(options: object, *names: str) -> None:
    """Replace lists by tuples in the named fields of a frozen dataclass, because YAML files give lists."""
    for name in names:
        value = getattr(options, name)
        if isinstance(value, list):
            object.__setattr__(options, name, tuple(value))


def require_bool(name: str, value: object) -> None:
    """Raise `ConfigError` unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{name} must be True or False, got {value!r}")


def require_epoch(epoch: object) -> None:
    """Raise `ConfigError` unless `epoch` is an integer in 0 … 2**32 − 1, the range of `patchpack.rng.uniforms`."""
    require_int("epoch", epoch, 0, (1 << 32) - 1)


def require_limits(**limits: int | None) -> None:
    """Raise `ConfigError` unless each argument is None or an integer of at least 1."""
    for name, value in limits.items():
        if value is not None:
            require_int(name, value, 1, 1 << 50)
