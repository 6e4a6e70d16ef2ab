"""The choice of the options of `Lookahead` for a list of lengths: how many items wait, and whether prices help."""

from __future__ import annotations

import numpy as np

from patchpack.plan._integers import Int64
from patchpack.plan.packing.lookahead import LEAST_WAITING, MOST_WAITING, Lookahead, pack_stream
from patchpack.plan.packing.prices import learn_prices

_POOL = 8  # number of rows' worth of images that wait in the packer
_LOOSE = 1.005  # prices are tried if rows exceed this multiple of the lower bound
_LESSONS = (2048, 4096, 8192)  # numbers of lengths from which prices are learnt; the best of these prices are kept


def choose_lookahead(lengths: Int64, *, seq_len: int, max_images: int) -> Lookahead:
    """Return the options that pack a sample of lengths into the fewest rows.

    First, a pool of as many waiting images as eight rows hold is tried, at least 64 and at most 4096. If this pool needs more
    rows than ``1.005 * max(sum / seq_len, n / max_images)``, prices (see `learn_prices`) are learnt from three parts of the
    sample and tried too. The best of these four choices is returned.

    Args:
        lengths: int64 ``[n]``, each in ``1 … seq_len``. Some thousand lengths in no particular order suffice.
        seq_len: tokens per row.
        max_images: slots per row.

    Returns:
        `Lookahead`. The same lengths give the same options.
    """
    if not len(lengths) or max_images == 1:
        return Lookahead(1)
    images = min(max_images, seq_len / float(lengths.mean()))
    waiting = int(min(max(LEAST_WAITING, _POOL * images), MOST_WAITING))
    best = Lookahead(waiting)

    def rows(options: Lookahead) -> int:
        return pack_stream(lengths, seq_len=seq_len, max_images=max_images, packer=options).num_rows

    fewest = rows(best)
    # the last rows of a short sample stay partly empty with any packer
    if fewest <= _LOOSE * max(lengths.sum() / seq_len, len(lengths) / max_images) + _POOL:
        return best
    for count in _LESSONS:
        spaced = lengths[np.linspace(0, len(lengths) - 1, min(count, len(lengths))).astype(np.int64)]
        prices = learn_prices(spaced, seq_len=seq_len)
        if prices is not None and (found := rows(options := Lookahead(waiting, None, prices))) < fewest:
            best, fewest = options, found
    return best
