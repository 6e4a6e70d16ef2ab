"""Rows planned on a histogram of lengths. Equal items are interchangeable, so the work depends only on the kinds of items.

Krell et al. (2107.02027) pack histograms. `decreasing` in `_kernels_histogram` is their LPFHP (best-fit-decreasing) and their
SPFHP (worst-fit), and both at once for `spread`, which is our own method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import Int64, require_int

HistogramMethod = Literal["spread", "best_fit_decreasing", "spfhp", "lpfhp", "nnlshp"]
HISTOGRAM_METHODS = ("spread", "best_fit_decreasing", "spfhp", "lpfhp", "nnlshp")

_SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
_NNLSHP_DEPTH, _NNLSHP_SEQ_LEN = 3, 1024


class Patterns(NamedTuple):
    """Rows with the same contents, counted once: ``rows[p]`` rows have pattern p.

    The parts of pattern p are ``offsets[p]:offsets[p + 1]``. Each part puts ``repeats`` items of one length into the row.

    Attributes:
        lengths: int64 ``[parts]``, length of the items of each part.
        repeats: int64 ``[parts]``, number of items of each part, >= 1.
        offsets: int64 ``[patterns + 1]``, begin and end of each pattern's parts.
        rows: int64 ``[patterns]``, number of rows of each pattern, >= 1.
    """

    lengths: Int64
    repeats: Int64
    offsets: Int64
    rows: Int64

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self.rows.sum())

    def pattern(self, p: int) -> list[int]:
        """Return the lengths of the items in each row of pattern p."""
        parts = slice(self.offsets[p], self.offsets[p + 1])
        return [int(n) for n in np.repeat(self.lengths[parts], self.repeats[parts])]


class Kinds(NamedTuple):
    """The kinds of items, the longest first: ``counts[k]`` items of ``lengths[k]`` tokens and ``slots[k]`` slots.

    All are int64 ``[kinds]``, counts >= 1.
    """

    lengths: Int64
    slots: Int64
    counts: Int64


def pack_histogram(
    counts: Sequence[int] | npt.NDArray[Any], *, seq_len: int, max_images: int | None = None, method: HistogramMethod = "spread"
) -> Patterns:
    """Pack a histogram of lengths into rows, in a time that does not depend on the number of items.

    Args:
        counts: integers ``[at least 1]``. ``counts[n]`` items have n tokens, as `numpy.bincount` counts. No item may have 0
            tokens or more than seq_len. All items together have at most 2**63 − 1 tokens.
        seq_len: tokens per row.
        max_images: items per row. Default None, no limit.
        method: a method of `pack_lengths` that works on the histogram. Default "spread".

    Returns:
        `Patterns`. The number of items of each length equals that of counts.

    Raises:
        ConfigError: counts are negative, not integers, or of lengths that fit no row, totals are beyond 2**63 − 1, a cap is
            below 1, the method is unknown, or scipy is missing for nnlshp.

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
    """Return patterns whose ``lengths`` are indices of kinds, in the order in which the rows were opened.

    Args:
        kinds: the kinds of items.
        seq_len: tokens per row.
        max_slots: slots per row.
        method: one of `HISTOGRAM_METHODS`.
    """
    if not len(kinds.lengths):
        return Patterns(*(np.zeros(n, dtype=np.int64) for n in (0, 0, 1, 0)))
    if method == "nnlshp":
        return _nnlshp(kinds, seq_len, max_slots)
    if method == "spread":
        steps = _spread(kinds, seq_len, max_slots)
    elif method == "spfhp":
        steps = _decreasing(kinds, seq_len, max_slots, worst=len(kinds.lengths))
    elif method in ("best_fit_decreasing", "lpfhp"):
        steps = _decreasing(kinds, seq_len, max_slots)
    else:
        raise ConfigError(f"method must be one of {', '.join(HISTOGRAM_METHODS)}, got {method!r}")
    return _patterns(steps)


def _spread(kinds: Kinds, seq_len: int, max_slots: int) -> Int64:
    """Return the best of best-fit-decreasing and of plans that open R rows at once, R at least the bound.

    Best-fit-decreasing leaves the short items for the end, where slots run out. Here the longer items are spread over the R
    rows by worst-fit, so that every row has about as many tokens and items as any other. Best-fit then fills the rows with
    the shorter items. The split between longer and shorter items, and R, are searched for. Each try costs as much as
    best-fit-decreasing.
    """
    tokens, slots = (sum(map(int.__mul__, each.tolist(), kinds.counts.tolist())) for each in (kinds.lengths, kinds.slots))
    bound = max(-(-tokens // seq_len), -(-slots // max_slots))
    best = _decreasing(kinds, seq_len, max_slots)
    enough = bound + bound // 4096
    longer = 1 - np.cumsum(kinds.counts[::-1].astype(np.float64))[::-1] / kinds.counts.sum(dtype=np.float64)
    scores: dict[int, int] = {}
    for split in dict.fromkeys(int(np.searchsorted(longer, 1 - share)) for share in _SHARES):
        if _num_rows(best) <= enough:
            return best
        steps = _decreasing(kinds, seq_len, max_slots, worst=split, rows=bound)
        scores[split] = _num_rows(steps)
        best = min(best, steps, key=_num_rows)
    for split in sorted(scores, key=scores.__getitem__)[:4]:
        low, high = bound, _num_rows(best) - 1
        middle = high  # a split that cannot improve the best plan costs one try
        while low <= high and _num_rows(best) > enough:
            steps = _decreasing(kinds, seq_len, max_slots, worst=split, rows=middle)
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


def _decreasing(kinds: Kinds, seq_len: int, max_slots: int, *, worst: int = 0, rows: int = 0) -> Int64:
    """Return the steps of `_kernels_histogram.decreasing`, int64 ``[4, steps]``."""
    from patchpack.plan.packing import _kernels_histogram as kernels  # numba costs 0.15 s to import

    words = (seq_len >> 5) + 1
    groups = np.empty((4, 2 * len(kinds.lengths) + 2), dtype=np.int64)
    capacity = 32 * len(kinds.lengths) + 1024
    while True:
        top = np.full(seq_len + 1, -1, dtype=np.int64)
        fine, coarse = np.zeros(words, dtype=np.int64), np.zeros((words >> 5) + 1, dtype=np.int64)
        steps = np.empty((4, capacity), dtype=np.int64)
        done = kernels.decreasing(*kinds, seq_len, max_slots, worst, rows, top, fine, coarse, groups, steps)
        if done >= 0:
            return steps[:, :done]
        capacity *= 4


def _patterns(steps: Int64) -> Patterns:
    """Return ranges of rows that went through the same steps. Rows that got no item are the last and are left out."""
    from patchpack.plan.packing import _kernels_histogram as kernels

    edges = np.unique(np.concatenate([steps[0], steps[0] + steps[1]]))
    first, last = np.searchsorted(edges, steps[0]), np.searchsorted(edges, steps[0] + steps[1])
    offsets = np.zeros(len(edges), dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    kernels.gather(steps, first, last, offsets, none, none)
    offsets = np.cumsum(offsets)
    kinds, repeats = np.empty(offsets[-1], dtype=np.int64), np.empty(offsets[-1], dtype=np.int64)
    kernels.gather(steps, first, last, offsets.copy(), kinds, repeats)
    return Patterns(kinds, repeats, offsets, np.diff(edges))


def _nnlshp(kinds: Kinds, seq_len: int, max_slots: int) -> Patterns:
    """Pack by non-negative least squares on the histogram (Krell et al., section 4.2).

    The patterns are all sets of up to three lengths that fill a row. The residual of lengths 1 … 8 weighs 0.09.
    Multiplicities are rounded. A pattern for which a length runs out keeps its other items. Items left over get a row each.
    """
    if seq_len > _NNLSHP_SEQ_LEN:
        raise ConfigError(
            f"nnlshp takes seq_len up to {_NNLSHP_SEQ_LEN}, because it has about seq_len**2 / 12 patterns, got {seq_len}: "
            f"use spread or lpfhp"
        )
    if (kinds.slots != 1).any():
        raise ConfigError(f"nnlshp packs items of one slot only, got an item of {kinds.slots.max()}: use spread or lpfhp")
    try:
        from scipy.optimize import nnls  # type: ignore[import-untyped]  # it ships no stubs
    except ImportError as error:
        raise ConfigError("nnlshp needs scipy, which is not installed: pip install scipy") from error
    candidates = _full_rows(seq_len, min(max_slots, _NNLSHP_DEPTH))
    use = np.zeros((seq_len + 1, len(candidates)))
    for p, pattern in enumerate(candidates):
        np.add.at(use[:, p], list(pattern), 1)
    weights = np.where(np.arange(seq_len + 1) <= 8, 0.09, 1.0)
    wanted = np.zeros(seq_len + 1)
    wanted[kinds.lengths] = kinds.counts
    solution, _ = nnls(use * weights[:, None], wanted * weights, maxiter=50 * len(candidates))
    left = dict(zip(kinds.lengths.tolist(), kinds.counts.tolist(), strict=True))
    rows: list[tuple[tuple[int, ...], int]] = []
    for p in np.flatnonzero(solution > 0.5).tolist():
        _take(candidates[p], round(float(solution[p])), left, rows)
    rows += [((length,), items) for length, items in left.items() if items]
    index = {length: kind for kind, length in enumerate(kinds.lengths.tolist())}
    parts = np.array([index[length] for pattern, _ in rows for length in pattern], dtype=np.int64)
    offsets = np.cumsum([0] + [len(pattern) for pattern, _ in rows]).astype(np.int64)
    return Patterns(parts, np.ones_like(parts), offsets, np.array([times for _, times in rows], dtype=np.int64))


def _full_rows(seq_len: int, depth: int) -> list[tuple[int, ...]]:
    """Return every set of at most depth (<= 3) lengths that sums to seq_len, each in descending order."""
    rows: list[tuple[int, ...]] = [(seq_len,)]
    if depth >= 2:
        rows += [(seq_len - a, a) for a in range(1, seq_len // 2 + 1)]
    if depth >= 3:
        rows += [(seq_len - a - b, b, a) for a in range(1, seq_len // 3 + 1) for b in range(a, (seq_len - a) // 2 + 1)]
    return rows


def _take(pattern: tuple[int, ...], times: int, left: dict[int, int], rows: list[tuple[tuple[int, ...], int]]) -> None:
    """Append up to times rows of pattern to rows, without the lengths that have run out, and take them from left."""
    while pattern and times:
        pattern = tuple(n for i, n in enumerate(pattern) if left.get(n, 0) > pattern[:i].count(n))
        if pattern:
            whole = min(times, *(left[n] // pattern.count(n) for n in pattern))
            rows.append((pattern, whole))
            for n in pattern:
                left[n] -= whole
            times -= whole


def _require_counts(counts: Any, seq_len: int) -> Int64:
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
