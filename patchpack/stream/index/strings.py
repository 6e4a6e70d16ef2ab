"""The columns of many short byte strings: all lengths, all bytes, and the position where every 64th string begins.

The positions of all strings would take more space than their lengths do. So only every 64th position is stored. Every other
position is the stored position before it plus the sum of at most 63 lengths.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.stream.index.columns import Column, Columns, narrow

STRIDE = 64

I64 = npt.NDArray[np.int64]


class Strings(NamedTuple):
    """The columns of n byte strings.

    Attributes:
        lengths: unsigned ``[n]``.
        starts: unsigned ``[ceil(n / 64)]``, positions in `blob` where the strings 0, 64, 128, … begin.
        blob: uint8, the bytes of all strings, one after another.
    """

    lengths: Column
    starts: Column
    blob: Column

    @classmethod
    def pack(cls, lengths: Column, blob: Column) -> Strings:
        """Return the columns for strings with these lengths and bytes."""
        totals = np.add.reduceat(lengths, np.arange(0, len(lengths), STRIDE), dtype=np.uint64) if len(lengths) else lengths[:0]
        starts = np.concatenate([np.zeros(1, np.uint64), np.cumsum(totals, dtype=np.uint64)])[: len(totals)]
        return cls(narrow(lengths), narrow(starts), blob)

    @classmethod
    def of(cls, columns: Columns, name: str) -> Strings:
        """Return the strings that the columns of a file hold under this name."""
        return cls(*(columns[f"{name}.{part}"] for part in ("lengths", "starts", "bytes")))

    def columns(self, name: str) -> Columns:
        """Return the columns under the names by which a file holds them. `of` reads these columns."""
        return {f"{name}.lengths": self.lengths, f"{name}.starts": self.starts, f"{name}.bytes": self.blob}

    def begins(self, lines: I64) -> I64:
        """Return the positions in `blob` where the strings with the numbers `lines` begin.

        A number is in ``0 … n``. For n, the end of `blob` is returned.

        Raises:
            ValueError: `starts` or `lengths` point outside `blob`.
        """
        n = len(self.lengths)
        at_end = lines == n
        block, inside = np.divmod(np.where(at_end, 0, lines), STRIDE)
        if n:
            before = np.minimum(block[:, None] * STRIDE + np.arange(STRIDE), n - 1)
            lengths = np.where(np.arange(STRIDE) < inside[:, None], self.lengths[before], 0)
            found = self.starts[block].astype(np.int64) + lengths.sum(axis=1, dtype=np.int64)
        else:
            found = np.zeros(len(lines), np.int64)
        found[at_end] = len(self.blob)
        if ((found < 0) | (found > len(self.blob))).any():
            raise ValueError("a string lies outside its column")
        places: I64 = found
        return places

    def take(self, lines: I64) -> list[bytes]:
        """Return the strings with the numbers `lines`, each in ``0 … n - 1``.

        Raises:
            ValueError: `starts` or `lengths` point outside `blob`.
        """
        begins = self.begins(lines)
        stops = begins + self.lengths[lines].astype(np.int64)
        if ((stops < begins) | (stops > len(self.blob))).any():
            raise ValueError("a string lies outside its column")
        blob = self.blob.data
        return [bytes(blob[begin:stop]) for begin, stop in zip(begins.tolist(), stops.tolist(), strict=True)]

    def cut(self, first: int, stop: int) -> tuple[Column, Column]:
        """Return the lengths and bytes of the strings ``first … stop - 1``."""
        begin, end = self.begins(np.array([first, stop], dtype=np.int64)).tolist()
        return self.lengths[first:stop], self.blob[begin:end]
