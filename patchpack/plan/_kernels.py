"""The compiled kernel that chooses the rows of each step. It uses only arrays and integers. It neither allocates nor raises."""

from __future__ import annotations

from patchpack._arrays import Int64Array, UInt8Array
from patchpack._jit import njit


@njit
def steps_from_pool(
    weights: Int64Array,
    arrivals: Int64Array,
    window: int,
    pool: Int64Array,
    spare: Int64Array,
    taken: UInt8Array,
    steps: Int64Array,
) -> None:
    """Choose the rows of each step: the oldest row of a pool, and rows of similar weight. So ranks wait little for each other.

    Args:
        weights: int64 ``[n]``, >= 0, the cost of each row. The sum of any `num_ranks` weights is below 2**53, where `num_ranks`
            is the number of rows per step.
        arrivals: int64 ``[n]``, the numbers of all rows, group after group. The first group has ``window * num_ranks`` rows.
            Each later group has `num_ranks` rows. Within a group, rows are sorted by weight.
        window: number of steps whose rows are in the pool.
        pool: int64 ``[min(n, window * num_ranks)]``, working memory.
        spare: int64 ``[min(n, window * num_ranks)]``, working memory.
        taken: uint8 ``[n]`` of zeros, working memory.
        steps: int64 ``[ceil(n / num_ranks), num_ranks]``, filled with −1, output: the rows of each step.
    """
    n, num_ranks = len(weights), steps.shape[1]
    size = min(n, window * num_ranks)
    pool[:size] = arrivals[:size]
    arrived, step, oldest = size, 0, 0
    while arrived < n:
        while taken[oldest]:
            oldest += 1
        at = 0
        while pool[at] != oldest:
            at += 1
        start = max(0, at - num_ranks + 1)
        total = 0
        for i in range(start, start + num_ranks):
            total += weights[pool[i]]
        best, least = start, 2.0
        for i in range(start, min(at, size - num_ranks) + 1):
            if i > start:
                total += weights[pool[i + num_ranks - 1]] - weights[pool[i - 1]]
            top = weights[pool[i + num_ranks - 1]]
            loss = (num_ranks * top - total) / (num_ranks * top) if top > 0 else 0.0
            if loss < least:
                best, least = i, loss
        for rank in range(num_ranks):
            row = pool[best + rank]
            steps[step, rank] = row
            taken[row] = 1
        step += 1
        more = min(num_ranks, n - arrived)
        i = j = k = 0
        while i < size or j < more:  # merge the remaining rows with the arriving ones
            if i == best:
                i += num_ranks
            elif j == more or (i < size and weights[pool[i]] <= weights[arrivals[arrived + j]]):
                spare[k] = pool[i]
                i += 1
                k += 1
            else:
                spare[k] = arrivals[arrived + j]
                j += 1
                k += 1
        arrived += more
        size = k
        pool, spare = spare, pool
    while size > 0:  # all rows have arrived: take neighbours, heaviest first, so that a step with idle ranks is the lightest
        count = min(size, num_ranks)
        for rank in range(count):
            steps[step, rank] = pool[size - count + rank]
        size -= count
        step += 1
