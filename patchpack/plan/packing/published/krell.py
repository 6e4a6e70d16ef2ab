"""The packers of Krell et al. (2107.02027), which pack a histogram of lengths: SPFHP, LPFHP and NNLSHP.

SPFHP is worst-fit and LPFHP is best-fit. Both take the longest items first, so LPFHP gives the rows of ``best_fit_decreasing``.
NNLSHP solves for patterns of at most three items. It needs scipy, which the extra ``solver`` installs.
"""

from __future__ import annotations

import numpy as np

from patchpack.errors import ConfigError
from patchpack.plan.packing.patterns import Kinds, Patterns, decreasing, patterns_of

METHODS = ("spfhp", "lpfhp", "nnlshp")
_NNLSHP_DEPTH, _NNLSHP_SEQ_LEN = 3, 1024


def plan(kinds: Kinds, seq_len: int, max_slots: int, method: str) -> Patterns:
    """Return the rows as patterns, in the order in which the rows were opened.

    The field ``lengths`` of the patterns holds indices of kinds.

    Args:
        kinds: the kinds of items, at least one.
        seq_len: tokens per row.
        max_slots: slots per row.
        method: one of `METHODS`.
    """
    if method == "nnlshp":
        return _nnlshp(kinds, seq_len, max_slots)
    return patterns_of(decreasing(kinds, seq_len, max_slots, worst=len(kinds.lengths) if method == "spfhp" else 0))


def _nnlshp(kinds: Kinds, seq_len: int, max_slots: int) -> Patterns:
    """Pack by non-negative least squares on the histogram (Krell et al., section 4.2).

    The patterns are all sets of up to three lengths that fill a row. The residuals of lengths 1 … 8 have the weight 0.09. The
    number of rows of each pattern is rounded. If the items of a length run out, a pattern keeps its other items. Items left
    over get a row each.
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
        raise ConfigError(f"nnlshp needs scipy, which is not installed ({error}): pip install 'patchpack[solver]'") from error
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
    """Return every set of at most `depth` (<= 3) lengths whose sum is `seq_len`. The lengths of a set are descending."""
    rows: list[tuple[int, ...]] = [(seq_len,)]
    if depth >= 2:
        rows += [(seq_len - a, a) for a in range(1, seq_len // 2 + 1)]
    if depth >= 3:
        rows += [(seq_len - a - b, b, a) for a in range(1, seq_len // 3 + 1) for b in range(a, (seq_len - a) // 2 + 1)]
    return rows


def _take(pattern: tuple[int, ...], times: int, left: dict[int, int], rows: list[tuple[tuple[int, ...], int]]) -> None:
    """Append at most `times` rows of `pattern` to `rows`, and subtract their items from `left`.

    A length that has run out is omitted from the pattern.
    """
    while pattern and times:
        pattern = tuple(n for i, n in enumerate(pattern) if left.get(n, 0) > pattern[:i].count(n))
        if pattern:
            whole = min(times, *(left[n] // pattern.count(n) for n in pattern))
            rows.append((pattern, whole))
            for n in pattern:
                left[n] -= whole
            times -= whole
