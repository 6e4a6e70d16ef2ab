"""Compiled kernels that pack items into rows. They use only arrays and integers. They neither allocate nor raise."""

from __future__ import annotations

from patchpack._arrays import Int64Array
from patchpack._jit import njit


@njit
def first_fit(
    lengths: Int64Array,
    slots: Int64Array,
    seq_len: int,
    max_images: int,
    tree: Int64Array,
    free: Int64Array,
    row_of: Int64Array,
) -> int:
    """Assign a row to each length by first-fit, and return the number of rows.

    The room of a row is the number of tokens that it can still take.

    Args:
        lengths: int64 ``[n]``, >= 0, tokens of each item.
        slots: int64 ``[n]``, slots of each item.
        seq_len: tokens per row.
        max_images: slots per row.
        tree: int64 ``[2 * leaves]``, filled with `seq_len`: a binary tree of maxima over the rooms of the rows. A row without a
            free slot has room −1.
        free: int64 ``[2 * leaves]``, filled with `max_images`: a binary tree of maxima over the free slots of the rows.
        row_of: int64 ``[n]``, output: the row of each item.
    """
    leaves = len(tree) // 2
    rows = 0
    for i in range(len(lengths)):
        length, width = lengths[i], slots[i]
        node = 1
        # Find the leftmost leaf with enough room and slots. A row that is not open has all of both. A node may pass although
        # no row below it does: one row has the room, another the slots. The search then goes on to the next node to the right.
        # This never happens if every item takes one slot.
        while True:
            if tree[node] < length or free[node] < width:
                while node & 1:
                    node //= 2
                node += 1
            elif node < leaves:
                node *= 2
            else:
                break
        row = node - leaves
        row_of[i] = row
        rows = max(rows, row + 1)
        free[node] -= width
        tree[node] = tree[node] - length if free[node] else -1
        node //= 2
        while node >= 1:
            tree[node] = max(tree[2 * node], tree[2 * node + 1])
            free[node] = max(free[2 * node], free[2 * node + 1])
            node //= 2
    return rows


@njit
def next_fit(lengths: Int64Array, slots: Int64Array, seq_len: int, max_images: int, row_of: Int64Array) -> int:
    """Assign a row to each length, with only the newest row open at any time, and return the number of rows."""
    row, room, free = -1, -1, 0
    for i in range(len(lengths)):
        if lengths[i] > room or slots[i] > free:
            row, room, free = row + 1, seq_len, max_images
        row_of[i] = row
        room -= lengths[i]
        free -= slots[i]
    return row + 1


@njit
def best_fit(
    lengths: Int64Array,
    slots: Int64Array,
    max_images: int,
    top: Int64Array,
    below: Int64Array,
    free: Int64Array,
    row_of: Int64Array,
) -> int:
    """Assign a row to each length by best-fit, and return the number of rows.

    The room of a row is the number of tokens that it can still take. Rows of equal room form a stack. The row that was changed
    last is on top.

    Args:
        lengths: int64 ``[n]``, tokens of each item.
        slots: int64 ``[n]``, slots of each item.
        max_images: slots per row.
        top: int64 ``[seq_len + 1]``, filled with −1: the top row of the stack of each room.
        below: int64 ``[n]``, working memory, the row below each row in its stack.
        free: int64 ``[n]``, working memory, the free slots of each row.
        row_of: int64 ``[n]``, output: the row of each item.
    """
    rows = 0
    seq_len = len(top) - 1
    for i in range(len(lengths)):
        room, row, over = lengths[i], -1, -1
        while room <= seq_len:
            row, over = top[room], -1
            while row >= 0 and free[row] < slots[i]:
                row, over = below[row], row
            if row >= 0:
                break
            room += 1
        if row < 0:
            row, room = rows, seq_len
            rows += 1
            free[row] = max_images
        elif over < 0:
            top[room] = below[row]
        else:
            below[over] = below[row]
        row_of[i] = row
        free[row] -= slots[i]
        if free[row]:
            rest = room - lengths[i]
            below[row] = top[rest]
            top[rest] = row
    return rows
