"""Compiled kernels that choose which waiting items make the next row. They neither allocate nor raise.

The pool of waiting items is int64 ``[4, waiting]``. Its first `count` columns are the waiting items, in arrival order. Its
lines are TOKENS, SLOTS, WORTH (the price of the item in units) and BORN (the number of the item in the stream). The result is
`taken`, bool ``[waiting]``, which is True for the items of the row.
"""

from __future__ import annotations

import numpy as np

from patchpack._arrays import BoolArray, Int32Array, Int64Array, UInt64Array
from patchpack._jit import njit

TOKENS, SLOTS, WORTH, BORN = range(4)
ONE, LAST, ALL = np.uint64(1), np.uint64(63), np.uint64(0xFFFFFFFFFFFFFFFF)
FAR = np.int32(1 << 30)  # more tokens than any row
FEW = 8  # most slots that a completion counts one by one


@njit
def shift_or(base: UInt64Array, source: UInt64Array, n: int, words: int, out: UInt64Array) -> None:
    """Compute ``out = base | source << n`` over the first `words` words of three uint64 bit sets."""
    skip = n >> 6
    up = np.uint64(n & 63)
    for j in range(min(skip, words)):
        out[j] = base[j]
    if skip < words:
        out[skip] = base[skip] | (source[0] << up)
    for j in range(skip + 1, words):  # two shifts, because a shift by 64 is undefined
        out[j] = base[j] | (source[j - skip] << up) | ((source[j - skip - 1] >> ONE) >> (LAST - up))


@njit
def has(bits: UInt64Array, i: int) -> bool:
    """Return True if `i` is in the set `bits`."""
    return (bits[i >> 6] >> np.uint64(i & 63)) & ONE != 0  # type: ignore[no-any-return]  # numba's bool


@njit
def highest(bits: UInt64Array, limit: int) -> int:
    """Return the largest member in ``0 … limit``, or −1 if there is no member."""
    j = limit >> 6
    word = bits[j] & (ALL >> np.uint64(63 - (limit & 63)))
    while word == 0 and j > 0:
        j -= 1
        word = bits[j]
    i = 63
    while i >= 0 and not (word >> np.uint64(i)) & ONE:
        i -= 1
    return 64 * j + i if i >= 0 else -1


@njit
def lowest(bits: UInt64Array, start: int, stop: int) -> int:
    """Return the smallest member in ``start … stop``, or −1 if there is no member."""
    for i in range(start, stop + 1):
        if has(bits, i):
            return i
    return -1


@njit
def slack(tokens: int, max_cut: float) -> int:
    """Return the number of tokens that may be cut off an item of `tokens` tokens (see `protocol.fewest_tokens`)."""
    return min(tokens - 1, int(max_cut * tokens))


@njit
def steps(slots: int, width: int) -> int:
    """Return ``ceil(slots / width)``, or 0 if `width` is 0. A `width` of 0 means that slots are not counted."""
    return (slots + width - 1) // width if width else 0


@njit
def complete(
    pool: Int64Array, among: Int64Array, m: int, room: int, over: int, cap: int, width: int, even: bool,
    reach: UInt64Array, taken: BoolArray,
) -> int:  # fmt: skip
    """Find the items of the columns ``among[:m]`` that fill a row best, mark them in `taken`, and return their number of slots.

    Bit c of ``reach[k, s]`` is set if some of the oldest k columns have c tokens and s slots together (subset sum). The loop
    ends at the first k at which a choice fills `room`. Among equally full choices, the result is therefore the choice whose
    youngest item is oldest. If these are equal too, the second youngest items decide, and so on. A choice with more tokens is
    better, and among equals a choice with more slots. With `even`, slots count before tokens. Slots are counted in steps of
    `width`, rounded up, and at most `cap` steps may be taken. With width 0 slots are not counted, and cap is 0. If `room`
    cannot be filled, a choice may be up to `over` tokens longer than `room`. The excess must be smaller than the number of
    tokens that would stay empty, and the smallest excess is best.

    `reach` is uint64 ``[>= m + 1, >= cap + 1, >= (room + over) // 64 + 1]``, working memory.
    """
    words = ((room + over) >> 6) + 1
    for s in range(cap + 1):
        for j in range(words):
            reach[0, s, j] = 0
    reach[0, 0, 0] = 1
    k, full = 0, False
    while k < m and not full:
        tokens, step = pool[TOKENS, among[k]], steps(pool[SLOTS, among[k]], width)
        for s in range(cap + 1):
            if s < step:
                for j in range(words):
                    reach[k + 1, s, j] = reach[k, s, j]
            else:
                shift_or(reach[k, s], reach[k, s - step], tokens, words, reach[k + 1, s])
        k += 1
        for s in range(cap if even else 0, cap + 1):
            full = full or has(reach[k, s], room)
    best, layer = -1, 0
    for s in range(cap, -1, -1):
        top = highest(reach[k, s], room)
        if top > best:
            best, layer = top, s
        if even and best >= 0:
            break
    if best < room:
        least = room + min(over + 1, room - best)  # an excess below the number of tokens that would stay empty
        for s in range(layer if even else cap, layer - 1 if even else -1, -1):
            top = lowest(reach[k, s], room + 1, least - 1)
            if top >= 0:
                least, best, layer = top, top, s
    used = 0
    while best > 0:
        while has(reach[k - 1, layer], best):  # column k - 1 is not needed for this sum; reach[0] holds only 0
            k -= 1
        k -= 1
        taken[among[k]] = True
        used += pool[SLOTS, among[k]]
        best -= pool[TOKENS, among[k]]
        layer -= steps(pool[SLOTS, among[k]], width)
    return used


@njit
def fullest(
    pool: Int64Array, count: int, seq_len: int, max_images: int, near: int, max_cut: float,
    reach: UInt64Array, among: Int64Array, taken: BoolArray,
) -> None:  # fmt: skip
    """Take the oldest items until room for only `near` mean items is left, then take the items that fill the row best.

    If no choice of items fills the row exactly, the row may exceed `seq_len` by the tokens that may be cut off one of its first
    items.

    Slots are counted only if the chosen items would need more slots than are left, or if the pool is short of slots. If the
    pool is short of slots, a choice with more slots is better than a choice with more tokens. So the pool keeps a mixture of
    items with which tokens and slots run out together. If items have more than two slots on average (slots are text tokens, or
    pages), slots are counted in wider steps.
    """
    room, left, tokens, slots, over = seq_len, max_images, 0, 0, 0
    for k in range(count):
        tokens += pool[TOKENS, k]
        slots += pool[SLOTS, k]
        taken[k] = False
    wide = slots > 2 * count
    for k in range(count):
        if k > 0 and (room * count <= near * tokens or (left * count <= near * slots if wide else left <= near)):
            break
        if pool[TOKENS, k] <= room and pool[SLOTS, k] <= left:
            taken[k] = True
            room -= pool[TOKENS, k]
            left -= pool[SLOTS, k]
            over = max(over, slack(pool[TOKENS, k], max_cut))
    m = 0
    for k in range(count):
        if not taken[k] and pool[TOKENS, k] <= room + over and pool[SLOTS, k] <= left:
            among[m] = k
            m += 1
    even = slots * seq_len > tokens * max_images
    most = reach.shape[1] - 1 if wide else FEW
    least = max(1, (left + most - 1) // most) if wide else 1
    width = least if even else 0
    cap = min(left // least, most)
    while complete(pool, among, m, room, over, cap if width else 0, width, even, reach, taken) > left:
        width = least
        for k in range(m):
            taken[among[k]] = False


@njit
def max_value_row(
    pool: Int64Array,
    count: int,
    seq_len: int,
    max_images: int,
    due: bool,
    fewest: Int32Array,
    sizes: Int64Array,
    prices: Int64Array,
    order: Int64Array,
    taken: BoolArray,
) -> bool:
    """Take the row of the highest total price. Return False if its slots do not suffice.

    ``fewest[k, v]`` is the least number of tokens with which the first k items of `order` are worth v or more. This table of a
    knapsack by value is small, because prices are integers and a row is worth at most ``fewest.shape[1] - 1`` units. `order`
    begins with the items whose price most waiting items have (of two such prices, the higher one). Within a price, the oldest
    item comes first. So a row is made of items whose prices are frequent in the pool. The loop ends at the first k that reaches
    the worth of a row. Items that still fit are then added in the order of `order`. With `due` the oldest item is in the row.

    Working memory: `fewest` is int32 ``[>= count + 1, units + 1]``, `sizes` and `prices` are int64 ``[units + 1]``, and `order`
    is int64 ``[>= count]``.
    """
    units = fewest.shape[1] - 1
    room, left = seq_len, max_images
    for v in range(units + 1):
        sizes[v], fewest[0, v] = 0, FAR
    fewest[0, 0] = 0
    for k in range(count):
        taken[k] = False
        sizes[pool[WORTH, k]] += 1
    if due:
        taken[0] = True
        room -= pool[TOKENS, 0]
        left -= pool[SLOTS, 0]
        sizes[pool[WORTH, 0]] -= 1
    m = 0
    for v in range(units, -1, -1):  # insertion into a list that has one entry per price
        if sizes[v] > 0:
            j = m
            while j > 0 and sizes[prices[j - 1]] < sizes[v]:
                prices[j] = prices[j - 1]
                j -= 1
            prices[j] = v
            m += 1
    end = 0
    for j in range(m):  # from here on, sizes[price] is the position of the next item of this price in `order`
        size, sizes[prices[j]] = sizes[prices[j]], end
        end += size
    for k in range(1 if due else 0, count):
        order[sizes[pool[WORTH, k]]] = k
        sizes[pool[WORTH, k]] += 1
    k = 0
    while k < end and fewest[k, units] > room:
        tokens, worth = np.int32(pool[TOKENS, order[k]]), pool[WORTH, order[k]]
        fewest[k + 1, 0] = 0
        for v in range(1, worth):
            fewest[k + 1, v] = min(fewest[k, v], tokens)
        for v in range(max(worth, 1), units + 1):
            fewest[k + 1, v] = min(fewest[k, v], fewest[k, v - worth] + tokens)
        k += 1
    value = units
    while fewest[k, value] > room:
        value -= 1
    while value > 0:
        while fewest[k - 1, value] <= room:
            k -= 1
        k -= 1
        i = order[k]
        taken[i] = True
        room -= pool[TOKENS, i]
        left -= pool[SLOTS, i]
        value -= pool[WORTH, i]
    for k in range(end):
        i = order[k]
        if not taken[i] and pool[TOKENS, i] <= room and pool[SLOTS, i] <= left:
            taken[i] = True
            room -= pool[TOKENS, i]
            left -= pool[SLOTS, i]
    return left >= 0


@njit
def one_more(pool: Int64Array, count: int, seq_len: int, max_images: int, max_cut: float, taken: BoolArray) -> None:
    """Add an item to a row that is not full, so that cutting one item makes the row exactly full.

    The added item is the waiting item with which the fewest tokens are cut. Nothing is added if at least as many tokens would
    be cut as would stay empty.
    """
    room, left, longest = seq_len, max_images, 0
    for k in range(count):
        if taken[k]:
            room -= pool[TOKENS, k]
            left -= pool[SLOTS, k]
            longest = max(longest, pool[TOKENS, k])
    best = -1
    for k in range(count):
        tokens = pool[TOKENS, k]
        if 0 < room < tokens and not taken[k] and pool[SLOTS, k] <= left:
            cut = slack(max(longest, tokens), max_cut)
            if tokens - room <= min(cut, room - 1) and (best < 0 or tokens < pool[TOKENS, best]):
                best = k
    if best >= 0:
        taken[best] = True


@njit
def shorten(pool: Int64Array, count: int, seq_len: int, taken: BoolArray) -> None:
    """Cut the tokens that exceed `seq_len` off the row's longest item (of equals, off the oldest)."""
    tokens, longest = 0, -1
    for k in range(count):
        if taken[k]:
            tokens += pool[TOKENS, k]
            if longest < 0 or pool[TOKENS, k] > pool[TOKENS, longest]:
                longest = k
    if tokens > seq_len:
        pool[TOKENS, longest] -= tokens - seq_len


@njit
def choose(
    pool: Int64Array, count: int, due: bool, seq_len: int, max_images: int, near: int, max_cut: float,
    reach: UInt64Array, fewest: Int32Array, sizes: Int64Array, prices: Int64Array, order: Int64Array, taken: BoolArray,
) -> None:  # fmt: skip
    """Choose the next row: the row of highest price if there are prices and enough slots, else the fullest row.

    The fullest row contains the oldest item. If an item is cut, its TOKENS in the pool are reduced.
    """
    if fewest.shape[1] > 1 and max_value_row(pool, count, seq_len, max_images, due, fewest, sizes, prices, order, taken):
        if max_cut > 0:
            one_more(pool, count, seq_len, max_images, max_cut, taken)
    else:
        fullest(pool, count, seq_len, max_images, near, max_cut, reach, order, taken)
    if max_cut > 0:
        shorten(pool, count, seq_len, taken)


@njit
def remove(pool: Int64Array, count: int, taken: BoolArray) -> int:
    """Remove the taken items from the pool, and return the number of items that stay."""
    m = 0
    for k in range(count):
        if not taken[k]:
            for line in range(pool.shape[0]):
                pool[line, m] = pool[line, k]
            m += 1
    return m


@njit
def stream(
    lengths: Int64Array, slots: Int64Array, table: Int64Array, longest: int, pool: Int64Array, seq_len: int, max_images: int,
    near: int, max_cut: float, items: Int64Array, offsets: Int64Array, cuts: Int64Array, reach: UInt64Array, fewest: Int32Array,
    sizes: Int64Array, prices: Int64Array, order: Int64Array, taken: BoolArray,
) -> int:  # fmt: skip
    """Push all items and flush, and return the number of rows.

    `slots` is int64 ``[n]``. `table` is int64 ``[seq_len + 1]``, the price of each length. The rows are written to `items`,
    int64 ``[n]``, and `offsets`, int64 ``[n + 1]``: row r is ``items[offsets[r]:offsets[r + 1]]``. The number of tokens cut off
    each item is written to `cuts`, int64 ``[n]`` filled with 0. If `max_cut` is 0, `cuts` may be empty.
    """
    n, i, count, rows, out = len(lengths), 0, 0, 0, 0
    offsets[0] = 0
    while i < n or count > 0:
        due = i == n  # all items have arrived: each row contains the oldest item
        if i < n:
            pool[TOKENS, count], pool[SLOTS, count] = lengths[i], slots[i]
            pool[WORTH, count], pool[BORN, count] = table[lengths[i]], i
            count += 1
            due = i - pool[BORN, 0] >= longest
            i += 1
            if count < pool.shape[1] and not due:
                continue
        choose(pool, count, due, seq_len, max_images, near, max_cut, reach, fewest, sizes, prices, order, taken)
        for k in range(count):
            if taken[k]:
                items[out] = pool[BORN, k]
                if len(cuts):
                    cuts[pool[BORN, k]] = lengths[pool[BORN, k]] - pool[TOKENS, k]
                out += 1
        count = remove(pool, count, taken)
        rows += 1
        offsets[rows] = out
    return rows
