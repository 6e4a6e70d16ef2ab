"""Kinds of items, and plans as patterns of rows. Equal items are interchangeable, so only the kinds of items cost time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from patchpack.plan._integers import Int64


class Patterns(NamedTuple):
    """Rows with the same contents, counted once: ``rows[p]`` rows have pattern p.

    The parts of pattern p are ``offsets[p]:offsets[p + 1]``. Each part is a number (``repeats``) of items of one length.

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
    """The kinds of items, longest first: ``counts[k]`` items have ``lengths[k]`` tokens and ``slots[k]`` slots each.

    All three arrays are int64 ``[kinds]``. Counts are >= 1.
    """

    lengths: Int64
    slots: Int64
    counts: Int64


def decreasing(kinds: Kinds, seq_len: int, max_slots: int, *, worst: int = 0, rows: int = 0) -> Int64:
    """Return the steps of `_kernels_histogram.decreasing`, int64 ``[4, steps]``.

    Args:
        kinds: the kinds of items, which are packed in the given order.
        seq_len: tokens per row.
        max_slots: slots per row.
        worst: number of kinds, from the first, that are packed by worst-fit. The others are packed by best-fit. Default 0.
        rows: empty rows that are open from the start. Default 0.
    """
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


def patterns_of(steps: Int64) -> Patterns:
    """Return the patterns that steps make. Rows with the same steps share a pattern, and rows without an item are left out."""
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
