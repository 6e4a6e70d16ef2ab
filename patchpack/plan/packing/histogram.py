"""Planning of rows on a histogram of lengths. Equal items are interchangeable, so only the kinds of items cost time.

The kernel `decreasing` in `_kernels_histogram` does best-fit-decreasing, worst-fit, and the mixture of both that our own method
`spread` uses. The packers of Krell et al. are in `patchpack.plan.packing.published`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, require_int
from patchpack.plan.packing.lengths import Lengths
from patchpack.plan.packing.patterns import Kinds, Patterns, decreasing, patterns_of
from patchpack.plan.packing.published import krell

HistogramMethod = Literal["spread", "best_fit_decreasing", "spfhp", "lpfhp", "nnlshp"]
HISTOGRAM_METHODS = ("spread", "best_fit_decreasing", *krell.METHODS)

_SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)


def pack_histogram(
    counts: Lengths, *, seq_len: int, max_images: int | None = None, method: HistogramMethod = "spread"
) -> Patterns:
    """Pack a histogram of lengths into rows, in a time that does not depend on the number of items.

    Args:
        counts: integers, the number of items of each length: ``counts[n]`` items have n tokens, as in `numpy.bincount`. No item
            may have 0 tokens, or more than `seq_len`. All items together may have at most 2**63 − 1 tokens.
        seq_len: tokens per row.
        max_images: items per row. Default None, no limit.
        method: a method of `pack_lengths` that works on the histogram. Default "spread".

    Returns:
        `Patterns`. They hold ``counts[n]`` items of each length n.

    Raises:
        ConfigError: `counts` are negative or not integers, or an item fits no row, or there are more than 2**63 − 1 tokens. Or
            `seq_len` or `max_images` is below 1, `method` is unknown, or scipy is missing for ``"nnlshp"``.

    Example:
        >>> patterns = pack_histogram([0, 0, 3, 0, 3], seq_len=10)
        >>> [(patterns.pattern(p), int(patterns.rows[p])) for p in range(len(patterns.rows))]
        [([4, 4, 2], 1), ([4, 2, 2], 1)]
    """
    require_int("seq_len", seq_len, 1, 1 << 30)
    if max_images is not None:
        require_int("max_images", max_images, 1, 1 << 30)
    array = _require_counts(counts, seq_len)
    lengths = np.flatnonzero(array)[::-1].astype(np.int64)
    kinds = Kinds(lengths, np.ones_like(lengths), array[lengths])
    patterns = plan(kinds, seq_len, seq_len if max_images is None else min(max_images, seq_len), method)
    return patterns._replace(lengths=lengths[patterns.lengths])


def plan(kinds: Kinds, seq_len: int, max_slots: int, method: str) -> Patterns:
    """Return the rows as patterns, in the order in which the rows were opened.

    The field ``lengths`` of the patterns holds indices of kinds.

    Args:
        kinds: the kinds of items.
        seq_len: tokens per row.
        max_slots: slots per row.
        method: one of `HISTOGRAM_METHODS`.
    """
    if not len(kinds.lengths):
        return Patterns(*(np.zeros(n, dtype=np.int64) for n in (0, 0, 1, 0)))
    if method in krell.METHODS:
        return krell.plan(kinds, seq_len, max_slots, method)
    if method == "spread":
        return patterns_of(_spread(kinds, seq_len, max_slots))
    if method == "best_fit_decreasing":
        return patterns_of(decreasing(kinds, seq_len, max_slots))
    raise ConfigError(f"method must be one of {', '.join(HISTOGRAM_METHODS)}, got {method!r}")


def _spread(kinds: Kinds, seq_len: int, max_slots: int) -> Int64:
    """Return the plan with the fewest rows: best-fit-decreasing, or a plan that opens R rows at once.

    R is at least the lower bound on the number of rows.

    Best-fit-decreasing leaves the short items for the end, where slots run out. In a plan with R rows, the longer items are
    spread over the rows by worst-fit, so that all rows have about equally many tokens and items. Best-fit then fills the rows
    with the shorter items. The split between longer and shorter items, and R, are found by search. Each try takes as long as
    best-fit-decreasing.
    """
    tokens, slots = (sum(map(int.__mul__, each.tolist(), kinds.counts.tolist())) for each in (kinds.lengths, kinds.slots))
    bound = max(-(-tokens // seq_len), -(-slots // max_slots))
    best = decreasing(kinds, seq_len, max_slots)
    enough = bound + bound // 4096
    longer = 1 - np.cumsum(kinds.counts[::-1].astype(np.float64))[::-1] / kinds.counts.sum(dtype=np.float64)
    scores: dict[int, int] = {}
    for split in dict.fromkeys(int(np.searchsorted(longer, 1 - share)) for share in _SHARES):
        if _num_rows(best) <= enough:
            return best
        steps = decreasing(kinds, seq_len, max_slots, worst=split, rows=bound)
        scores[split] = _num_rows(steps)
        best = min(best, steps, key=_num_rows)
    for split in sorted(scores, key=scores.__getitem__)[:4]:
        low, high = bound, _num_rows(best) - 1
        middle = high  # so that a split that cannot improve the best plan costs one try
        while low <= high and _num_rows(best) > enough:
            steps = decreasing(kinds, seq_len, max_slots, worst=split, rows=middle)
            best = min(best, steps, key=_num_rows)
            if _num_rows(steps) <= middle:
                high = min(high, _num_rows(steps)) - 1 - bound // 8192
            elif middle == high:
                break
            else:
                low = middle + 1 + bound // 8192
            middle = (low + high) // 2
    return best


def _num_rows(steps: Int64) -> int:
    return int((steps[0] + steps[1]).max())


def _require_counts(counts: npt.ArrayLike, seq_len: int) -> Int64:
    array = np.asarray(counts)
    whole = array.dtype == object and all(isinstance(c, int) and not isinstance(c, bool) for c in array.flat)
    if array.ndim != 1 or (array.size and not (whole or np.issubdtype(array.dtype, np.integer))):
        raise ConfigError(f"counts must be a flat sequence of integers, got {array.dtype} of shape {array.shape}")
    if (array < 0).any():
        bad = int(np.flatnonzero(array < 0)[0])
        raise ConfigError(
            f"counts must be >= 0, got counts[{bad}] = {array[bad]}: counts[n] is the number of items of n tokens"
        )
    lengths = np.flatnonzero(array)
    outside = lengths[(lengths < 1) | (lengths > seq_len)]
    if outside.size:
        bad = int(outside[0])
        raise ConfigError(f"lengths must be in 1 … seq_len={seq_len}, got counts[{bad}] = {array[bad]}: set it to 0")
    tokens = sum(int(n) * int(array[n]) for n in lengths)
    if tokens >= 1 << 63:
        raise ConfigError(f"counts may have 2**63 − 1 tokens in total, got {tokens}: divide the counts")
    return array.astype(np.int64)
