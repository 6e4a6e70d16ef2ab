"""The packers of Krell et al.: named cases, order of equal items, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from patchpack.errors import ConfigError
from patchpack.plan.packing import Packing, pack_lengths


def rows_of(packing: Packing) -> list[list[int]]:
    return [packing.row(r).tolist() for r in range(packing.num_rows)]


SPFHP = {
    # lengths, seq_len, max_images, slots -> rows
    "nothing": ([], 10, None, None, []),
    "one": ([10], 10, 1, None, [[0]]),
    "longest first": ([4, 6, 5, 2], 10, None, None, [[2, 0], [1, 3]]),
    "least room, most room": ([7, 6, 3], 10, None, None, [[0], [1, 2]]),
    "as many as fit, or a row each": ([3, 3, 3, 3], 10, None, None, [[0], [1], [2], [3]]),
    "as many as fit within the cap": ([2, 2, 2], 10, 2, None, [[0], [1], [2]]),
    "most room, one at a time": ([5, 6, 2, 2], 10, None, None, [[1, 2], [0, 3]]),
    "a full slot count closes": ([5, 1, 1, 1], 10, 2, None, [[0, 1], [2], [3]]),
    "slots decide between equals": ([4, 4, 1], 10, 3, [1, 3, 1], [[1], [0, 2]]),
    "a row too short of slots is passed over": ([7, 6, 3], 10, 3, [2, 1, 2], [[0], [1, 2]]),
    "and stays open": ([7, 5, 2, 1, 1], 10, 5, [1, 3, 1, 2, 1], [[0, 3], [1, 2, 4]]),
}  # fmt: skip


@pytest.mark.parametrize(("lengths", "seq_len", "cap", "slots", "expected"), SPFHP.values(), ids=SPFHP)
def test_spfhp_on_named_cases(lengths, seq_len, cap, slots, expected) -> None:
    packing = pack_lengths(lengths, seq_len=seq_len, max_images=cap, slots=slots, method="spfhp")
    assert sorted(map(sorted, rows_of(packing))) == sorted(map(sorted, expected))


@pytest.mark.parametrize(("lengths", "seq_len", "cap", "slots", "_"), SPFHP.values(), ids=SPFHP)
def test_lpfhp_is_best_fit_decreasing(lengths, seq_len, cap, slots, _) -> None:
    lpfhp, best = (
        pack_lengths(lengths, seq_len=seq_len, max_images=cap, slots=slots, method=method)
        for method in ("lpfhp", "best_fit_decreasing")
    )
    assert rows_of(lpfhp) == rows_of(best)


@pytest.mark.parametrize("num_rows", [1, 7, 8, 256, 257, 600])
def test_rows_alike_get_their_items_in_order_of_arrival(num_rows) -> None:
    """However many there are, and though worst-fit puts the three short ones into a row one at a time."""
    packing = pack_lengths([7] * num_rows + [1] * (3 * num_rows), seq_len=10, method="spfhp")
    short = num_rows + np.arange(3 * num_rows).reshape(num_rows, 3)
    assert packing.offsets.tolist() == list(range(0, 4 * num_rows + 1, 4))
    assert packing.items.reshape(num_rows, 4).tolist() == np.column_stack([np.arange(num_rows), short]).tolist()


REFUSED = {
    "long rows": ({"seq_len": 1025}, r"seq_len up to 1024, .* got 1025"),
    "slots": ({"slots": [2], "max_images": 2}, "items of one slot only, got an item of 2"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_nnlshp_names_what_it_cannot_pack(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        pack_lengths([3], method="nnlshp", **{"seq_len": 10, **options})


def test_nnlshp_says_that_scipy_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ConfigError, match=r"nnlshp needs scipy.*pip install 'patchpack\[solver\]'"):
        pack_lengths([3], seq_len=10, method="nnlshp")


NNLSHP = {
    "full rows of three": ([2, 3, 5] * 4, None, [[2, 3, 5]] * 4),
    "a pattern keeps what there is": ([4, 4], None, [[4, 4]]),
    "and is used on without what ran out": ([12] * 10 + [6] * 3, None, [[6, 12, 12]] * 3 + [[12, 12]] * 2),
    "short residuals weigh little": ([12] * 10, None, [[12, 12]] * 5),
    "what is left gets a row each": ([6, 6, 6, 6], 2, [[6]] * 4),
    "depth 2": ([2, 8, 5, 5], 2, [[2, 8], [5, 5]]),
    "depth 1": ([2, 8], 1, [[2], [8]]),
}  # fmt: skip


@pytest.mark.parametrize(("lengths", "cap", "expected"), NNLSHP.values(), ids=NNLSHP)
def test_nnlshp_on_named_cases(lengths, cap, expected) -> None:
    pytest.importorskip("scipy")
    packing = pack_lengths(lengths, seq_len=30 if 12 in lengths else 10, max_images=cap, method="nnlshp")
    assert sorted(sorted(lengths[i] for i in row) for row in rows_of(packing)) == expected
