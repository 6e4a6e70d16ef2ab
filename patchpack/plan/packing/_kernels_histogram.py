"""Compiled kernels that pack a histogram of lengths. They use only arrays and integers. They neither allocate nor raise.

A kind is a pair of a length and a number of slots. Items of one kind are interchangeable. Rows with the same contents form a
group, which is a range of row numbers. Therefore the time depends on the number of kinds, not of items. The room of a row is
the number of tokens that it can still take. A plan is a list of steps, int64 ``[4, steps]``: first row, number of rows, kind,
and the number of items of this kind that each of these rows gets.
"""

from __future__ import annotations

import numpy as np

from patchpack._arrays import Int64Array, LineArray, UInt64Array
from patchpack._jit import njit

_MANY, _BLOCK = 8, 256  # fewest rows of a pattern that are dealt part by part, and number of rows dealt at once

# ------------------------------------------------------------------------------------------------------ items and kinds


@njit
def count(keys: Int64Array, one: Int64Array, two: Int64Array, three: Int64Array, four: Int64Array) -> None:
    """Count how often each key occurs. The result is the sum of four tables, each int64 ``[largest key + 1]``.

    Keys are counted in the four tables in turn.

    Four tables are faster than one, because neighbouring keys are often equal, and an addition waits for the previous addition
    to the same entry. The same table may be passed four times.
    """
    whole = len(keys) - len(keys) % 4
    for i in range(0, whole, 4):
        one[keys[i]] += 1
        two[keys[i + 1]] += 1
        three[keys[i + 2]] += 1
        four[keys[i + 3]] += 1
    for i in range(whole, len(keys)):
        one[keys[i]] += 1


@njit
def group(keys: Int64Array, ends: UInt64Array, order: LineArray) -> None:
    """Write the numbers of the items to `order`, ``[n]``, sorted by key. Items of one key stay in arrival order.

    `ends` is uint64 ``[largest key + 1]``. Before the call it has the start of each key in `order`, after the call the end.
    `ends` is unsigned because numba checks signed indices for negative numbers.
    """
    one = np.uint64(1)
    for i in range(len(keys)):
        key = np.uint64(keys[i])
        end = ends[key]
        order[end] = i
        ends[key] = end + one


@njit
def shuffle(ends: Int64Array, words: Int64Array, order: LineArray) -> None:
    """Permute the items of each kind by the method of Fisher and Yates. `words` holds random bits, int64 ``[n]``, >= 0."""
    start = 0
    for kind in range(len(ends)):
        for i in range(ends[kind] - 1, start, -1):
            j = start + words[i] % (i - start + 1)
            order[i], order[j] = order[j], order[i]
        start = ends[kind]


@njit
def deal(
    offsets: Int64Array,
    kinds: Int64Array,
    repeats: Int64Array,
    rows: Int64Array,
    places: Int64Array,
    order: LineArray,
    items: Int64Array,
    row_offsets: Int64Array,
) -> None:
    """Assign items to the rows of a list of patterns. Items of one kind are taken in the order of `order`.

    ``rows[p]`` rows have pattern p. The parts of pattern p are ``offsets[p]:offsets[p + 1]``. A part is a kind in `kinds`, with
    the number of its items in `repeats`. `places`, int64 ``[kinds]``, has the start of each kind in `order` before the call,
    and the end after the call. The results are written to `items`, int64 ``[n]``, and `row_offsets`, int64 ``[rows + 1]``.
    """
    filled, row = 0, 0
    row_offsets[0] = 0
    for p in range(len(rows)):
        first, last = offsets[p], offsets[p + 1]
        if rows[p] >= _MANY and last - first <= min(rows[p], _BLOCK):  # because parts are compared with each other
            filled = _deal_many(kinds[first:last], repeats[first:last], rows[p], places, order, items, filled)
            width = (filled - row_offsets[row]) // rows[p]
            for _ in range(rows[p]):
                row += 1
                row_offsets[row] = row_offsets[row - 1] + width
            continue
        for _ in range(rows[p]):
            for part in range(first, last):
                start = places[kinds[part]]
                for j in range(repeats[part]):
                    items[filled + j] = order[start + j]
                filled += repeats[part]
                places[kinds[part]] = start + repeats[part]
            row += 1
            row_offsets[row] = filled


@njit
def _deal_many(
    kinds: Int64Array, repeats: Int64Array, rows: int, places: Int64Array, order: LineArray, items: Int64Array, filled: int
) -> int:
    """Assign items to many rows of one pattern, in blocks of rows that fit the cache. Return the new value of `filled`."""
    width = 0
    for part in range(len(kinds)):
        width += repeats[part]
    for start_row in range(0, rows, _BLOCK):
        block = min(_BLOCK, rows - start_row)
        out = filled
        for part in range(len(kinds)):
            ahead, step = 0, 0  # number of items of the kind in a row: in parts before this part, and in all parts
            for other in range(len(kinds)):
                if kinds[other] == kinds[part]:
                    step += repeats[other]
                    if other < part:
                        ahead += repeats[other]
            start = places[kinds[part]] + ahead
            for r in range(block):
                for j in range(repeats[part]):
                    items[out + r * width + j] = order[start + r * step + j]
            out += repeats[part]
        for part in range(len(kinds)):
            places[kinds[part]] += block * repeats[part]
        filled += block * width
    return filled


@njit
def gather(
    steps: Int64Array, first: Int64Array, last: Int64Array, offsets: Int64Array, kinds: Int64Array, repeats: Int64Array
) -> None:
    """Convert steps to the parts of patterns. Pattern p gets each step with ``first <= p < last``, in the order of the steps.

    `offsets` is int64 ``[patterns + 1]``. If `kinds` is empty, the function only counts: it adds the number of parts of pattern
    p to ``offsets[p + 1]``. Otherwise it fills `kinds` and `repeats` from ``offsets[p]`` on, and sets ``offsets[p]`` to the end
    of pattern p.
    """
    for step in range(len(first)):
        for p in range(first[step], last[step]):
            if len(kinds) == 0:
                offsets[p + 1] += 1
            else:
                kinds[offsets[p]] = steps[2, step]
                repeats[offsets[p]] = steps[3, step]
                offsets[p] += 1


# ------------------------------------------------------------------------------------------------------------- planning


@njit
def decreasing(
    lengths: Int64Array, slots: Int64Array, counts: Int64Array, seq_len: int, max_slots: int, worst: int, rows: int,
    top: Int64Array, fine: Int64Array, coarse: Int64Array, groups: Int64Array, steps: Int64Array,
) -> int:  # fmt: skip
    """Pack one kind after the other and return the number of steps. The first `worst` kinds use worst-fit, others best-fit.

    Best-fit takes the row with the least room that suffices, and puts as many items of the kind into this row as fit. The
    result equals best-fit item by item. Worst-fit takes the row with the most room for each single item. Items that fit nowhere
    open a row each. Both methods skip rows with too few slots. Among rows of equal room, both take the row that was changed
    last. `rows` is the number of empty rows that are open from the start. The result is −1 if `steps` is too short.

    Working memory: `top` is int64 ``[seq_len + 1]``, filled with −1, the stack of groups of each room. `fine` and `coarse` are
    int64, filled with 0, 32 bits to a word. `fine` has a bit for every room, and `coarse` a bit for every word of `fine`.
    `groups` is int64 ``[4, 2 * kinds + 2]``: first row, number of rows, free slots, and next group in the stack.
    """
    first, size, free, below = groups[0], groups[1], groups[2], groups[3]
    shortest, fewest = seq_len, max_slots
    for kind in range(len(lengths)):
        shortest, fewest = min(shortest, lengths[kind]), min(fewest, slots[kind])
    done, used = 0, 0
    if rows:
        first[0], size[0], free[0] = 0, rows, max_slots
        used = 1
        _push(0, seq_len, top, below, fine, coarse)
    for kind in range(len(lengths)):
        length, width, items = lengths[kind], slots[kind], counts[kind]
        # rooms are tried in one direction: a row just used goes back to rooms tried before, or still to try (worst-fit)
        room = _highest(fine, coarse, seq_len) if kind < worst else _lowest(fine, coarse, length)
        over, g = -1, top[room] if room >= 0 else -1
        while items:
            while room >= length:
                while g >= 0 and free[g] < width:
                    over, g = g, below[g]
                if g >= 0:
                    break
                room = _highest(fine, coarse, room - 1) if kind < worst else _lowest(fine, coarse, room + 1)
                over, g = -1, top[room] if room >= 0 else -1
            if done == steps.shape[1]:
                return -1
            new = room < length
            rest, left = (seq_len, max_slots) if new else (room, free[g])
            repeat = 1 if kind < worst else min(items, rest // length, left // width)
            times = items // repeat
            start = rows
            changed = used
            if new:
                rows += times
                used += 1
            else:
                times = min(times, size[g])
                start = first[g]
                if times < size[g]:
                    first[g] += times
                    size[g] -= times
                    used += 1
                else:
                    changed, g = g, below[g]
                    _remove(changed, over, room, top, below, fine, coarse)
            steps[0, done], steps[1, done], steps[2, done], steps[3, done] = start, times, kind, repeat
            done += 1
            items -= times * repeat
            rest -= repeat * length
            first[changed], size[changed], free[changed] = start, times, left - repeat * width
            if rest >= shortest and free[changed] >= fewest:
                _push(changed, rest, top, below, fine, coarse)
    return done


@njit
def _push(g: int, room: int, top: Int64Array, below: Int64Array, fine: Int64Array, coarse: Int64Array) -> None:
    """Put group `g` on top of the stack of the groups whose rows have this room."""
    below[g] = top[room]
    top[room] = g
    fine[room >> 5] |= 1 << (room & 31)
    coarse[room >> 10] |= 1 << (room >> 5 & 31)


@njit
def _remove(g: int, over: int, room: int, top: Int64Array, below: Int64Array, fine: Int64Array, coarse: Int64Array) -> None:
    """Take group `g` out of the stack of a room. `over` is the group directly above `g`, or −1 if `g` is on top."""
    if over >= 0:
        below[over] = below[g]
    else:
        top[room] = below[g]
        if below[g] < 0:
            fine[room >> 5] &= ~(1 << (room & 31))
            if fine[room >> 5] == 0:
                coarse[room >> 10] &= ~(1 << (room >> 5 & 31))


@njit
def _lowest(fine: Int64Array, coarse: Int64Array, start: int) -> int:
    """Return the lowest room >= `start` that has a bit in `fine`. Return −1 if there is no such room."""
    word = start >> 5
    if word >= len(fine):
        return -1
    bits = fine[word] >> (start & 31) << (start & 31)
    if bits == 0:
        above = (word + 1) >> 5
        if above == len(coarse):
            return -1
        bits = coarse[above] >> ((word + 1) & 31) << ((word + 1) & 31)
        while bits == 0:
            above += 1
            if above == len(coarse):
                return -1
            bits = coarse[above]
        word = (above << 5) + _low_bit(bits)
        bits = fine[word]
    return (word << 5) + _low_bit(bits)


@njit
def _highest(fine: Int64Array, coarse: Int64Array, start: int) -> int:
    """Return the highest room <= `start` that has a bit in `fine`. Return −1 if there is no such room."""
    if start < 0:
        return -1
    word = start >> 5
    bits = fine[word] & ((2 << (start & 31)) - 1)
    if bits == 0:
        above = word >> 5
        bits = coarse[above] & ((1 << (word & 31)) - 1)
        while bits == 0:
            above -= 1
            if above < 0:
                return -1
            bits = coarse[above]
        word = (above << 5) + _high_bit(bits)
        bits = fine[word]
    return (word << 5) + _high_bit(bits)


@njit
def _low_bit(word: int) -> int:
    """Return the index of the lowest set bit of a word in 1 … 2**32 − 1."""
    bit = 0
    for half in (16, 8, 4, 2, 1):
        if word & ((1 << half) - 1) == 0:
            word >>= half
            bit += half
    return bit


@njit
def _high_bit(word: int) -> int:
    """Return the index of the highest set bit of a word in 1 … 2**32 − 1."""
    bit = 0
    for half in (16, 8, 4, 2, 1):
        if word >> half:
            word >>= half
            bit += half
    return bit
