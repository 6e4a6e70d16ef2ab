"""Lower bounds on the number of rows: from sums, from pairs that cannot share a row, and from a linear program over all rows.

The bounds hold for any packing. The linear program (Gilmore and Gomory 1961) has a variable for each possible row, and is
solved by column generation. A search that is stopped early gives a bound too, because any values (prices) of the lengths give a
bound on the number of rows (Farley 1990).
"""

from __future__ import annotations

import time
from typing import cast

import numpy as np

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, require_int
from patchpack.plan.packing.lengths import Lengths, require_lengths
from patchpack.plan.packing.published.linear_program import ColumnGeneration, affordable, require_solver


def lower_bound(
    lengths: Lengths,
    seq_len: int,
    max_images: int | None = None,
    *,
    lp: bool = False,
    time_limit: float = 60.0,
) -> int:
    """Return a lower bound on the number of rows that any packing of these lengths needs.

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``.
        seq_len: tokens per row.
        max_images: items per row. Default None, no limit.
        lp: True also solves the linear program over all possible rows, which needs ``patchpack[solver]``. The program is
            skipped if distinct lengths times slots times tokens are over 2**27, because it would need too much memory. Default
            False.
        time_limit: most seconds for the linear program, > 0. After this time, the bound that is proven by then is used. Default
            60.

    Returns:
        ``max(ceil(sum / seq_len), ceil(n / max_images), L2)``, where L2 is the bound of Martello and Toth (Discrete Applied
        Mathematics 28, 1990, section 3). With `lp` the maximum includes the linear program's bound, rounded up. The result is 0
        for an empty list.

    Raises:
        ConfigError: a length is not an integer in ``1 … seq_len``, `max_images` is below 1, the time limit is not a positive
            number, or `lp` is set without the solver.

    Example:
        >>> lower_bound([6, 6, 6], 10)
        3
    """
    sizes, counts = np.unique(require_lengths(lengths, seq_len), return_counts=True)
    if max_images is not None:
        require_int("max_images", max_images, 1, 1 << 30)
    require_seconds(time_limit)
    bound = simple_bound(sizes, counts, seq_len, max_images)
    if lp:
        require_solver()
    if lp and bound and affordable(sizes, seq_len, max_images):
        program = ColumnGeneration(sizes, counts, seq_len, max_images)
        program.run(time.monotonic() + time_limit, seed=0)
        bound = max(bound, program.bound)
    return bound


def simple_bound(sizes: Int64, counts: Int64, seq_len: int, max_images: int | None) -> int:
    """Return the largest of three bounds: tokens / `seq_len`, items / `max_images`, and L2 (see `martello_toth`).

    Args:
        sizes: int64 ``[kinds]``, the distinct lengths, increasing.
        counts: int64 ``[kinds]``, items of each length, >= 1.
        seq_len: tokens per row.
        max_images: items per row, None for no limit.
    """
    if not len(sizes):
        return 0
    tokens, items = sum(map(int.__mul__, sizes.tolist(), counts.tolist())), int(counts.sum())
    bound = max(-(-tokens // seq_len), martello_toth(sizes, counts, seq_len))
    return bound if max_images is None else max(bound, -(-items // max_images))


def martello_toth(sizes: Int64, counts: Int64, seq_len: int) -> int:
    """Return the lower bound L2 of Martello and Toth on the number of rows.

    For each threshold t in ``0 … seq_len / 2``, count the rows that the items of t or more tokens need. L2 is the largest
    count.

    Let J1 be the lengths over ``seq_len − t``, J2 the other lengths over ``seq_len / 2``, and J3 the lengths from t to
    ``seq_len / 2``. Then the count is ``|J1| + |J2| + max(0, ceil((sum J3 − (|J2| seq_len − sum J2)) / seq_len))``. Every item
    of J1 and J2 has a separate row. No item of J1 fits into a row with an item of J3. Items of J3 for which the rows of J2 have
    no room need further rows.

    Args:
        sizes: int64 ``[kinds]``, the distinct lengths, increasing.
        counts: int64 ``[kinds]``, items of each length, >= 1.
        seq_len: tokens per row.
    """
    number = np.zeros(seq_len + 2, dtype=np.int64)
    number[sizes + 1] = counts
    tokens = np.cumsum(number * np.arange(-1, seq_len + 1))  # tokens[v]: number of tokens of all lengths below v
    number = np.cumsum(number)
    half = seq_len // 2
    a = np.arange(half + 1)
    large = number[-1] - number[half + 1]
    room = (number[seq_len + 1 - a] - number[half + 1]) * seq_len - (tokens[seq_len + 1 - a] - tokens[half + 1])
    short = tokens[half + 1] - tokens[a] - room
    return int(large + max(0, (-(-short // seq_len)).max()))


def require_seconds(time_limit: object) -> None:
    """Raise `ConfigError` unless `time_limit` is a positive number."""
    number = isinstance(time_limit, (int, float, np.integer, np.floating)) and not isinstance(time_limit, bool)
    if not number or not cast(float, time_limit) > 0:
        raise ConfigError(f"time_limit must be a positive number of seconds, got {time_limit!r}")
