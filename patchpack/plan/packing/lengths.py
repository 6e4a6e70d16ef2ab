"""The check of a list of lengths, and the rows into which the list is packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int

Lengths = Sequence[int] | npt.NDArray[np.integer]


class Packing(NamedTuple):
    """Rows as numpy CSR: row r holds ``items[offsets[r]:offsets[r + 1]]``.

    Attributes:
        items: int64 ``[n]``, indices into the lengths. Within a row, items are in arrival order, or in the order that
            `pack_lengths` states.
        offsets: int64 ``[rows + 1]``, begin and end of each row in `items`.
        cuts: int64 ``[n]``, number of tokens to cut off each item, so that its row ends exactly full. The order is that of the
            lengths, not of the rows. Default None, no item is cut.
    """

    items: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    cuts: npt.NDArray[np.int64] | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def row(self, r: int) -> npt.NDArray[np.int64]:
        """Return the indices of the items in row r."""
        return self.items[self.offsets[r] : self.offsets[r + 1]]


def require_lengths(lengths: npt.ArrayLike, seq_len: int) -> npt.NDArray[np.int64]:
    """Return the lengths as int64 ``[n]``.

    Raise `ConfigError` if a length is not in ``1 … seq_len``. The error names the first such length.
    """
    array = np.asarray(lengths)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ConfigError(f"lengths must be a flat sequence of integers, got {array.dtype} of shape {array.shape}")
    require_int("seq_len", seq_len, 1, 1 << 30)
    if array.size and not 1 <= array.min() <= array.max() <= seq_len:
        bad = np.flatnonzero((array < 1) | (array > seq_len))
        raise ConfigError(
            f"lengths must be in 1 … seq_len={seq_len}, got lengths[{bad[0]}] = {array[bad[0]]} ({bad.size} such): "
            f"raise seq_len or shorten them"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def require_slots(slots: npt.ArrayLike, n: int, max_images: int | None) -> npt.NDArray[np.int64]:
    """Return the slots as int64 ``[n]``. If one is not in ``1 … max_images``, raise `ConfigError` with the first such number.

    Args:
        slots: integers, the slots of each item.
        n: number of items.
        max_images: slots per row, None for no limit.
    """
    array = np.asarray(slots)
    if array.shape != (n,) or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ConfigError(f"slots must be {n} integers, one per length, got {array.dtype} of shape {array.shape}")
    high = 1 << 30 if max_images is None else max_images
    bad = np.flatnonzero((array < 1) | (array > high))
    if bad.size:
        raise ConfigError(
            f"slots must be in 1 … max_images={max_images}, got slots[{bad[0]}] = {array[bad[0]]} ({bad.size} such): "
            f"raise max_images or split the item"
        )
    return np.ascontiguousarray(array, dtype=np.int64)
