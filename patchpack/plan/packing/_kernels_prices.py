"""The compiled kernel that finds the row of the highest value, if each length has a value. It neither allocates nor raises."""

from __future__ import annotations

from patchpack._arrays import Float64Array, Int64Array
from patchpack._jit import njit


@njit
def best_row(lengths: Int64Array, values: Float64Array, best: Float64Array, last: Int64Array, row: Int64Array) -> float:
    """Return the highest value of a row, and write this row to `row`. The method is Gilmore and Gomory's knapsack (1961).

    A row may hold any number of copies of each length.

    Args:
        lengths: int64 ``[m]``, rising.
        values: float64 ``[m]``, the value of each length.
        best: float64 ``[seq_len + 1]``, working memory.
        last: int64 ``[seq_len + 1]``, working memory.
        row: int64 ``[m]``, output: number of copies of each length in the row.
    """
    best[0] = 0.0
    room = len(best) - 1
    for s in range(1, room + 1):
        best[s], last[s] = best[s - 1], -1
        for k in range(len(lengths)):
            if lengths[k] > s:
                break
            if best[s - lengths[k]] + values[k] > best[s]:
                best[s], last[s] = best[s - lengths[k]] + values[k], k
    for k in range(len(lengths)):
        row[k] = 0
    while room > 0:
        if last[room] < 0:
            room -= 1
        else:
            row[last[room]] += 1
            room -= lengths[last[room]]
    return best[-1]  # type: ignore[no-any-return]  # an element of an array
