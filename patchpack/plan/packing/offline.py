"""A whole list of lengths to rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int


class Packing(NamedTuple):
    """Rows as numpy CSR: row r holds ``items[offsets[r]:offsets[r + 1]]``, in arrival order.

    Attributes:
        items: int64 ``[n]``, indices into the lengths.
        offsets: int64 ``[rows + 1]``.
    """

    items: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    def row(self, r: int) -> npt.NDArray[np.int64]:
        """Indices of the items in row r."""
        return self.items[self.offsets[r] : self.offsets[r + 1]]


Method = Literal["first_fit", "next_fit", "best_fit"]


def pack_lengths(
    lengths: Sequence[int] | npt.NDArray[Any],
    *,
    seq_len: int,
    max_images: int | None = None,
    method: Method = "first_fit",
) -> Packing:
    """Pack variable-length sequences into rows, in arrival order, with every row left open to the end.

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``.
        seq_len: tokens per row.
        max_images: items per row, None for no limit.
        method: ``first_fit`` (oldest row with room), ``best_fit`` (the row left fullest; of equals the one changed last) or
            ``next_fit`` (newest row or a new one).

    Returns:
        `Packing`; every index appears once.

    Raises:
        ConfigError: a length that is not an integer in ``1 … seq_len`` (it names the first), or a cap below 1.

    Example:
        >>> packing = pack_lengths([4, 6, 5, 2], seq_len=10)
        >>> [packing.row(r).tolist() for r in range(packing.num_rows)]
        [[0, 1], [2, 3]]
    """
    from patchpack.plan.packing import _kernels  # numba costs 0.15 s to import: only when rows are made

    sizes = _require_lengths(lengths, seq_len)
    if max_images is not None:
        require_int("max_images", max_images, 1, 1 << 30)
    cap = len(sizes) + 1 if max_images is None else max_images
    row_of = np.empty(len(sizes), dtype=np.int64)
    if method == "first_fit":
        leaves = 1 << max(0, len(sizes) - 1).bit_length()
        tree = np.full(2 * leaves, seq_len, dtype=np.int64)
        num_rows = _kernels.first_fit(sizes, seq_len, cap, tree, np.zeros(leaves, dtype=np.int64), row_of)
    elif method == "best_fit":
        top = np.full(seq_len + 1, -1, dtype=np.int64)
        links, used = np.empty_like(row_of), np.empty_like(row_of)
        num_rows = _kernels.best_fit(sizes, cap, top, links, used, row_of)
    elif method == "next_fit":
        num_rows = _kernels.next_fit(sizes, seq_len, cap, row_of)
    else:
        raise ConfigError(f"unknown method {method!r}: choose first_fit, best_fit or next_fit")
    counts = np.bincount(row_of, minlength=num_rows)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Packing(np.argsort(row_of, kind="stable").astype(np.int64), offsets)


def _require_lengths(lengths: Any, seq_len: int) -> npt.NDArray[np.int64]:
    array = np.asarray(lengths)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ConfigError(f"lengths must be a flat sequence of integers, got {array.dtype} of shape {array.shape}")
    require_int("seq_len", seq_len, 1, 1 << 30)
    bad = np.flatnonzero((array < 1) | (array > seq_len))
    if bad.size:
        raise ConfigError(
            f"lengths[{bad[0]}] = {array[bad[0]]} is not in 1 … seq_len={seq_len} ({bad.size} such lengths): "
            f"raise seq_len or shorten them"
        )
    return array.astype(np.int64)
