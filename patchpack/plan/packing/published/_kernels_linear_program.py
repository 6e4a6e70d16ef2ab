"""Compiled kernels of the linear program. They use only arrays and integers. They neither allocate nor raise."""

from __future__ import annotations

from patchpack._arrays import BoolArray, Int64Array
from patchpack._jit import njit


@njit
def price(
    sizes: Int64Array,
    copies: Int64Array,
    endless: BoolArray,
    values: Int64Array,
    step: int,
    best: Int64Array,
    old: Int64Array,
    take: BoolArray,
    last: Int64Array,
) -> None:
    """Find the most valuable row by dynamic programming over tokens and slots, and store the choices of every step (pass).

    Pass s offers ``copies[s]`` pieces, of which a row takes all or none. Each piece has ``sizes[s]`` tokens and the value
    ``values[s]``. If ``endless[s]`` is True, ``copies[s]`` is 1, and a row takes any number of pieces. A piece takes `step`
    slots: 1, or 0 if slots are unlimited. With 0, the tables need only the line of 0 slots.

    Three arrays are written. `best` is int64 ``[slots + 1, seq_len + 1]``, zeros before the call. ``best[e, c]`` becomes the
    largest value of a row of at most e slots and c tokens. `take` is bool ``[passes, slots + 1, seq_len + 1]``.
    ``take[s, e, c]`` becomes True if the best row of the passes up to s uses pass s. `last` is int64 ``[passes]``. ``last[s]``
    becomes the value of the best row whose last pass is s, or −1 if pass s does not fit a row. `old`, int64 ``[seq_len + 1]``,
    is working memory.
    """
    slots, seq_len = best.shape[0] - 1, best.shape[1] - 1
    for s in range(len(sizes)):
        tokens, worth, lines = sizes[s] * copies[s], values[s] * copies[s], step * copies[s]
        last[s] = -1
        if tokens > seq_len or lines > slots:
            take[s] = False
            continue
        if not endless[s]:
            last[s] = best[slots - lines, seq_len - tokens] + worth
        for k in range(slots + 1):
            e = k if endless[s] else slots - k  # copies one by one build on entries already changed; copies together must not
            line, chosen = best[e], take[s, e]
            if e < lines:
                chosen[:] = False
                continue
            chosen[:tokens] = False
            if endless[s]:
                below = best[e - lines]
                for c in range(tokens, seq_len + 1):
                    better = below[c - tokens] + worth > line[c]
                    chosen[c] = better
                    if better:
                        line[c] = below[c - tokens] + worth
            else:
                old[:] = best[e - lines]
                for c in range(tokens, seq_len + 1):
                    value = old[c - tokens] + worth
                    chosen[c] = value > line[c]
                    line[c] = max(line[c], value)
        if endless[s]:
            last[s] = best[slots - lines, seq_len - tokens] + worth


@njit
def trace(
    sizes: Int64Array,
    copies: Int64Array,
    endless: BoolArray,
    index: Int64Array,
    step: int,
    take: BoolArray,
    end: int,
    column: Int64Array,
) -> None:
    """Add the number of pieces of each kind in a row to `column`, int64 ``[kinds]``.

    The row is the best row whose last pass is `end`. If `end` is −1, the row is the best row of all. `index` has the kind of
    each pass.
    """
    e, c = take.shape[1] - 1, take.shape[2] - 1
    s = len(sizes) - 1
    if end >= 0:
        column[index[end]] += copies[end]
        e -= step * copies[end]
        c -= sizes[end] * copies[end]
        s = end if endless[end] else end - 1
    while s >= 0:
        if take[s, e, c]:
            column[index[s]] += copies[s]
            e -= step * copies[s]
            c -= sizes[s] * copies[s]
            if not endless[s]:
                s -= 1
        else:
            s -= 1
