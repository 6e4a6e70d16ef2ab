"""Loops over items and rows, compiled on first use. Arrays and integers only; no allocation, no randomness, no raise."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(nogil=True)
def first_fit(lengths: Any, seq_len: int, max_images: int, tree: Any, used: Any, row_of: Any) -> int:
    """Row of each length under first-fit; returns the number of rows.

    tree: int64 ``[2 * leaves]``, a heap of maxima over the rooms of the rows, filled with seq_len; a row at max_images has
    room −1, so lengths are >= 0. used: int64 ``[leaves]`` of zeros.
    """
    leaves = len(tree) // 2
    rows = 0
    for i in range(len(lengths)):
        length = lengths[i]
        node = 1
        while node < leaves:  # the leftmost leaf with room: a row never opened has room seq_len
            node *= 2
            if tree[node] < length:
                node += 1
        row = node - leaves
        row_of[i] = row
        rows = max(rows, row + 1)
        used[row] += 1
        tree[node] = tree[node] - length if used[row] < max_images else -1
        node //= 2
        while node >= 1:
            tree[node] = max(tree[2 * node], tree[2 * node + 1])
            node //= 2
    return rows


@njit(nogil=True)
def next_fit(lengths: Any, seq_len: int, max_images: int, row_of: Any) -> int:
    """Row of each length when only the newest row is open; returns the number of rows."""
    row, room, count = -1, -1, 0
    for i in range(len(lengths)):
        if lengths[i] > room or count == max_images:
            row, room, count = row + 1, seq_len, 0
        row_of[i] = row
        room -= lengths[i]
        count += 1
    return row + 1


@njit(nogil=True)
def best_fit(lengths: Any, max_images: int, top: Any, below: Any, used: Any, row_of: Any) -> int:
    """Row of each length under best-fit; returns the number of rows.

    Rows of equal room form a stack, the one changed last on top. top: int64 ``[seq_len + 1]`` of −1, the stacks;
    below, used: int64 ``[n]``, links and images per row.
    """
    rows = 0
    seq_len = len(top) - 1
    for i in range(len(lengths)):
        room = lengths[i]
        while room <= seq_len and top[room] < 0:
            room += 1
        if room > seq_len:
            row, room = rows, seq_len
            rows += 1
            used[row] = 0
        else:
            row = top[room]
            top[room] = below[row]
        row_of[i] = row
        used[row] += 1
        if used[row] < max_images:
            rest = room - lengths[i]
            below[row] = top[rest]
            top[rest] = row
    return rows
