"""Compiled kernels of near-optimal packing. They use only arrays and integers. They neither allocate nor raise."""

from __future__ import annotations

from patchpack._arrays import Int64Array
from patchpack._jit import njit


@njit
def fill_decreasing(
    sizes: Int64Array,
    counts: Int64Array,
    seq_len: int,
    state: Int64Array,
    turns: int,
    reach: Int64Array,
    used: Int64Array,
    kinds: Int64Array,
    ends: Int64Array,
) -> bool:
    """Fill rows one after the other: the longest waiting item first, then the items that fill the rest of the row best.

    The rest of a row is filled by a bounded subset sum, longest lengths first. The search ends as soon as the sum is exact, so
    short lengths are kept for later rows. A row is repeated while enough items of its lengths are left. Returns True if all
    items are packed. Otherwise `turns` new rows were made, and the caller must call again.

    Args:
        sizes: int64 ``[kinds]``, the distinct lengths, decreasing.
        counts: int64 ``[kinds]``, number of items of each length that are left. All are 0 at the end.
        seq_len: tokens per row.
        state: int64 ``[3]``: number of rows, number of items in these rows, first kind that is left. All are 0 before the first
            call.
        turns: most new rows that this call makes.
        reach: int64 ``[seq_len + 1]``, working memory.
        used: int64 ``[seq_len + 1]``, working memory.
        kinds: int64 ``[items]``, output: kind of each item in row order.
        ends: int64 ``[items]``, output: end of each row.
    """
    rows, filled, first = state
    while first < len(sizes):
        if counts[first] == 0:
            first += 1
            continue
        if turns == 0:
            break
        turns -= 1
        rest = seq_len - sizes[first]
        counts[first] -= 1
        reach[: rest + 1] = -1  # reach: kind with which a sum was first reached; used: number of items of this kind in the sum
        reach[0] = used[0] = top = 0
        for s in range(first, len(sizes)):
            if counts[s] == 0 or sizes[s] > rest:
                continue
            for c in range(sizes[s], rest + 1):
                b = c - sizes[s]
                if reach[c] < 0 and reach[b] >= 0:
                    spent = used[b] if b > 0 and reach[b] == s else 0
                    if spent < counts[s]:
                        reach[c] = s
                        used[c] = spent + 1
                        top = max(top, c)
            if top == rest:
                break
        begin = filled
        kinds[filled] = first
        filled += 1
        while top > 0:
            kinds[filled] = reach[top]
            filled += 1
            counts[reach[top]] -= 1
            top -= sizes[reach[top]]
        ends[rows] = filled
        rows += 1
        items, done = filled - begin, filled - begin
        while done == items:  # repeat the same row
            done = 0
            while done < items and counts[kinds[begin + done]] > 0:
                counts[kinds[begin + done]] -= 1
                done += 1
            if done == items:
                kinds[filled : filled + items] = kinds[begin : begin + items]
                filled += items
                ends[rows] = filled
                rows += 1
        for i in range(done):
            counts[kinds[begin + i]] += 1
    state[0], state[1], state[2] = rows, filled, first
    return bool(first == len(sizes))


@njit
def fill_in_turn(
    queue: Int64Array, seq_len: int, max_images: int, tail: int, state: Int64Array, turns: int,
    after: Int64Array, masks: Int64Array, waiting: Int64Array, items: Int64Array, ends: Int64Array,
) -> bool:  # fmt: skip
    """Fill rows in the order of a queue. The last `tail` tokens of a row are filled as well as the oldest items allow.

    The last items of a row are chosen by a subset sum over the oldest waiting items. If tokens are scarcer than slots, the
    fullest choice is taken. Among equally full choices, the number of items decides: it should be as near as possible to the
    mean number of items per row that the waiting items need. If slots are scarcer, the choice that uses most slots is taken,
    and among equals the fullest choice. Returns True if all items are packed. Otherwise `turns` rows were made, and the caller
    must call again.

    Args:
        queue: int64 ``[n]``, length of each item.
        seq_len: tokens per row.
        max_images: slots per row.
        tail: number of last tokens of a row that the subset sum fills.
        state: int64 ``[3]``: number of rows, number of items in these rows, number of waiting tokens. It starts as 0, 0, and
            the sum of `queue`.
        turns: most new rows that this call makes.
        after: int64 ``[n + 1]``, the item after each item in the queue. ``after[n]`` is the first item. It starts as
            ``1 … n, 0``.
        masks: int64 ``[window + 1, seq_len + 1]``, working memory. Bit e of ``masks[w, c]`` is set if some e of the first w
            waiting items have c tokens together.
        waiting: int64 ``[window]``, working memory.
        items: int64 ``[n]``, output: positions in the queue, in row order.
        ends: int64 ``[n]``, output: end of each row.
    """
    n, window = len(queue), len(waiting)
    rows, filled, tokens = state
    while filled < n and turns > 0:
        turns -= 1
        scarce = (n - filled) * seq_len > tokens * max_images  # slots, not tokens, decide how many more rows are needed
        left = max((tokens + seq_len - 1) // seq_len, (n - filled + max_images - 1) // max_images)
        pace = (n - filled + left - 1) // left
        rest, slots, begin = seq_len, max_images, filled
        while after[n] < n and slots > max(0, max_images - pace + 3):
            size = queue[after[n]]
            if rest - size < (tail if rest < seq_len else 0):
                break
            rest -= size
            slots -= 1
            items[filled] = after[n]
            filled += 1
            after[n] = after[after[n]]
        most = min(slots, 61)  # a mask has 62 bits to use
        masks[0, : rest + 1] = 0
        masks[0, 0] = 1
        goal = most if scarce else min(max(pace - (max_images - slots), 0), most)
        count, seen, node = 0, 0, after[n]
        while not masks[count, rest] >> goal & 1 and count < window and seen < 8 * window and node < n:
            size = queue[node]
            if size <= rest:
                old, new = masks[count], masks[count + 1]
                new[:size] = old[:size]
                for c in range(size, rest + 1):
                    new[c] = old[c] | old[c - size] << 1
                waiting[count] = node
                count += 1
            seen += 1
            node = after[node]
        c, e, away = 0, 0, most + 1
        for room in range(rest + 1):
            sums = masks[count, rest - room]
            for k in range(most + 1):
                if sums >> k & 1 and abs(k - goal) < away:
                    c, e, away = rest - room, k, abs(k - goal)
            if away == 0 or (not scarce and away <= most):
                break
        for w in range(count - 1, -1, -1):
            if not masks[w, c] >> e & 1:
                c -= queue[waiting[w]]
                e -= 1
                waiting[w] = -1 - waiting[w]  # taken
        node, behind = after[n], n
        for w in range(count):
            if waiting[w] < 0:
                while node != -1 - waiting[w]:
                    behind, node = node, after[node]
                items[filled] = node
                filled += 1
                node = after[node]
                after[behind] = node
        for i in range(begin, filled):
            tokens -= queue[items[i]]
        ends[rows] = filled
        rows += 1
    state[0], state[1], state[2] = rows, filled, tokens
    return bool(filled == n)
