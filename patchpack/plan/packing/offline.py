"""Packing of a whole list of lengths at once: in arrival order, or planned on the histogram of the lengths."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from patchpack._arrays import IndexArray, Int64Array
from patchpack.errors import ConfigError
from patchpack.plan._integers import require_int
from patchpack.plan.packing import histogram
from patchpack.plan.packing.lengths import Lengths, Packing, require_lengths, require_slots
from patchpack.plan.packing.patterns import Kinds
from patchpack.plan.packing.tight import pack_tight

Method = Literal["first_fit", "next_fit", "best_fit", "spread", "best_fit_decreasing", "spfhp", "lpfhp", "nnlshp", "tight"]


_TABLE, _SMALL_TABLE = 1 << 24, 1 << 15  # most entries of a table of counts, and of a table of which four fit the cache


def pack_lengths(
    lengths: Lengths,
    *,
    seq_len: int,
    max_images: int | None = None,
    method: Method = "spread",
    slots: Lengths | None = None,
    seed: int | None = None,
) -> Packing:
    """Pack variable-length sequences into rows of `seq_len` tokens and at most `max_images` slots.

    Three methods pack in arrival order and keep every row open to the end. The items of a row are in arrival order:

    * ``first_fit`` puts an item into the oldest row with room.
    * ``best_fit`` puts an item into the fullest row with room. Of equally full rows it takes the row that was changed last.
    * ``next_fit`` puts an item into the newest row if it fits, or else into a new row.

    Other methods work on the histogram of the lengths. Their rows are sorted, long items before short items, so shuffle the
    rows before use:

    * ``best_fit_decreasing``: best-fit, longest first. ``lpfhp``, its name in Krell et al. (2107.02027), gives the same rows.
    * ``spfhp``, by Krell et al.: worst-fit, longest first, into the row with most room. Items that fit nowhere open a row each.
    * ``nnlshp``, by Krell et al.: non-negative least squares over patterns of at most three items. It is slow (20 s at seq_len
      512), and needs scipy (``patchpack[solver]``) and a seq_len up to 1024.
    * ``spread``, the default: best-fit-decreasing first. If this needs more rows than the bound
      ``max(sum / seq_len, slots / max_images)``, some sixty other plans are tried, and the best plan is kept. Such a plan opens
      as many rows as the bound, or a few more, at once. It spreads the longer items over these rows by worst-fit, and fills the
      rows with the shorter items by best-fit. There are never more rows than with ``best_fit_decreasing``.

    ``tight`` returns the rows of `pack_tight`. They are near-optimal, but packing takes seconds (up to about a minute) where
    the other methods take milliseconds. The method needs ``patchpack[solver]``. Call `pack_tight` to get the bound and the gap,
    or to set the time limit.

    ``spread`` is the default because decreasing orders leave the short items for the end, where slots run out. The table has
    the bound ``max(sum / seq_len, slots / max_images)`` in % of the number of rows, for four lists of 300,000 items (NaViT with
    drop, ImageNet native, COCO native, log-normal) at seq_len 4096:

    ===================  ======================  ======================  ====================  ======================
    max_images           NaViT 20, 24, none      ImageNet 6, 7, none     COCO 5, none          log-normal 6, 7, none
    ===================  ======================  ======================  ====================  ======================
    spread               99.97   99.98  100.00   98.27   99.32   99.81   93.54   93.60         99.59   99.85  100.00
    best_fit_decreasing  76.96   82.51  100.00   92.50   97.50   99.81   93.07   93.60         79.84   84.44  100.00
    first_fit            96.93   99.65   99.96   97.82   99.38   99.38   95.56   95.56         94.73   97.98   99.67
    ===================  ======================  ======================  ====================  ======================

    The first value of `max_images` is 1.04 times the mean number of items per row, the second 1.25 times. COCO has few
    different lengths, for which greedy orders are poor. (The linear program reaches 97.94 for COCO.)

    Args:
        lengths: integers ``[n]``, each in ``1 … seq_len``.
        seq_len: tokens per row.
        max_images: slots per row. Default None, no limit.
        method: one of the methods above. Default "spread".
        slots: integers ``[n]``, slots that each item takes, in ``1 … max_images``. Default None, one slot per item.
        seed: seed of a permutation of equal items, 0 … 2**64 − 1. Methods in arrival order take no seed. ``tight`` passes the
            seed to `pack_tight`. Default None: equal items are dealt to the rows in arrival order.

    Returns:
        `Packing`. Every index appears once. The same arguments give the same rows.

    Raises:
        ConfigError: a length is not an integer in ``1 … seq_len``, slots are not in ``1 … max_images`` (the message names the
            first), or `max_images` is below 1. Or the method is unknown, or a method in arrival order has a seed. Or scipy is
            missing for ``nnlshp``, or highspy for ``tight``, or one of these two methods has slots other than 1.

    Example:
        >>> packing = pack_lengths([4, 6, 5, 2], seq_len=10)
        >>> [packing.row(r).tolist() for r in range(packing.num_rows)]
        [[1, 0], [2, 3]]
    """
    sizes = require_lengths(lengths, seq_len)
    if max_images is not None:
        require_int("max_images", max_images, 1, 1 << 30)
    widths = None if slots is None else require_slots(slots, len(sizes), max_images)
    if max_images is None:
        widths, cap = None, seq_len  # no row has more items than tokens
    else:
        cap = max_images
    if method in ("first_fit", "best_fit", "next_fit"):
        if seed is not None:
            raise ConfigError(f"{method} packs in arrival order and uses no seed: leave out seed={seed!r}")
        return _in_arrival_order(sizes, widths, seq_len, cap, method)
    if method == "tight":
        if widths is not None and (widths != 1).any():
            raise ConfigError(f"tight packs items of one slot only, got an item of {widths.max()}: use spread or first_fit")
        return pack_tight(sizes, seq_len=seq_len, max_images=max_images, seed=seed or 0).packing
    if method not in histogram.HISTOGRAM_METHODS:
        others = ", ".join((*histogram.HISTOGRAM_METHODS, "tight"))
        raise ConfigError(
            f"method must be first_fit, best_fit or next_fit, in arrival order, or one of {others}, got {method!r}"
        )
    if seed is not None:
        require_int("seed", seed, 0, (1 << 64) - 1)
    return _by_kind(sizes, widths, seq_len, cap, method, seed)


def _in_arrival_order(sizes: Int64Array, widths: Int64Array | None, seq_len: int, cap: int, method: str) -> Packing:
    from patchpack.plan.packing import _kernels  # numba costs 0.15 s to import: only when rows are made

    if widths is None:
        widths = np.ones_like(sizes)
    row_of = np.empty(len(sizes), dtype=np.int64)
    if method == "first_fit":
        leaves = 1 << max(0, len(sizes) - 1).bit_length()
        tree, free = (np.full(2 * leaves, whole, dtype=np.int64) for whole in (seq_len, cap))
        num_rows = _kernels.first_fit(sizes, widths, seq_len, cap, tree, free, row_of)
    elif method == "best_fit":
        top = np.full(seq_len + 1, -1, dtype=np.int64)
        links, free = np.empty_like(row_of), np.empty_like(row_of)
        num_rows = _kernels.best_fit(sizes, widths, cap, top, links, free, row_of)
    else:
        num_rows = _kernels.next_fit(sizes, widths, seq_len, cap, row_of)
    counts = np.bincount(row_of, minlength=num_rows)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Packing(np.argsort(row_of, kind="stable").astype(np.int64), offsets)


def _by_kind(sizes: Int64Array, widths: Int64Array | None, seq_len: int, cap: int, method: str, seed: int | None) -> Packing:
    """Group the items by kind, plan on the kinds, and deal the items to the planned rows."""
    from patchpack.plan.packing import _kernels_histogram as kernels

    keys, values, kinds = _kinds(sizes, widths, seq_len)
    patterns = histogram.plan(kinds, seq_len, cap, method)
    starts = np.concatenate([[0], np.cumsum(kinds.counts)])[:-1].astype(np.int64)
    dtype: npt.DTypeLike = np.int32 if len(sizes) < 1 << 31 else np.int64
    order = np.empty(len(sizes), dtype=dtype)
    ends = np.empty(values.max(initial=-1) + 1, dtype=np.uint64)
    ends[values] = starts
    kernels.group(keys, ends, order)
    if seed is not None:
        words = np.random.PCG64(seed).random_raw(len(sizes)) >> np.uint64(1)  # random bits that numpy keeps between versions
        kernels.shuffle(starts + kinds.counts, words.astype(np.int64), order)
    packing = Packing(np.empty(len(sizes), dtype=np.int64), np.empty(patterns.num_rows + 1, dtype=np.int64))
    kernels.deal(
        patterns.offsets, patterns.lengths, patterns.repeats, patterns.rows, starts, order, packing.items, packing.offsets
    )
    return packing


def _kinds(sizes: Int64Array, widths: Int64Array | None, seq_len: int) -> tuple[Int64Array, IndexArray, Kinds]:
    """Return three values: the key of each item, the key of each kind, and the kinds.

    Kinds are sorted by length, then by slots, both descending.
    """
    from patchpack.plan.packing import _kernels_histogram as kernels

    base = 1 if widths is None else int(widths.max(initial=0)) + 1
    keys = sizes if widths is None else sizes * base + widths
    if (seq_len + 1) * base <= _TABLE:
        entries = (seq_len + 1) * base
        tables = np.zeros((4 if entries <= _SMALL_TABLE else 1, entries), dtype=np.int64)
        kernels.count(keys, *(tables[i % len(tables)] for i in range(4)))
        table = tables.sum(axis=0) if len(tables) > 1 else tables[0]
        values = names = np.flatnonzero(table)[::-1]
        counts = table[values]
    else:  # few items over a wide range: sort them
        values, keys, counts = (each[::-1] for each in np.unique(keys, return_inverse=True, return_counts=True))
        keys, names = keys[::-1].astype(np.int64), np.arange(len(values))[::-1]
    slots = np.ones_like(values) if widths is None else values % base
    kinds = Kinds(*(np.ascontiguousarray(each, dtype=np.int64) for each in (values // base, slots, counts)))
    return keys, names, kinds
