"""The row of most value under prices per length, compiled on first use. Arrays only; no allocation, no raise."""

from __future__ import annotations

from patchpack._arrays import Float64Array, Int64Array
from patchpack._jit import njit


@njit
def best_row(lengths: Int64Array, values: Float64Array, best: Float64Array, last: Int64Array, row: Int64Array) -> float:
    """Find the highest value of a row of any number of copies, by the knapsack of Gilmore and Gomory (1961).

    lengths: int64 ``[m]``, rising. values: float64 ``[m]``. best: float64 ``[seq_len + 1]``, last: int64 ``[seq_len + 1]``,
    scratch. row: int64 ``[m]``, becomes the copies of each length in the row.
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
