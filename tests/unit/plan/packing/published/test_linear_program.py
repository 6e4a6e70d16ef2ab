"""The linear program over all rows: what it adds to the simple bound, the clock, and its silence."""

from __future__ import annotations

import numpy as np
import pytest

from bench import lists
from patchpack.plan.packing import lower_bound

pytest.importorskip("highspy")

PROGRAMS = {
    # lengths, seq_len, max_images -> without and with the linear program
    "nothing": ([], 10, None, 0, 0),
    "threes leave one": ([3] * 30, 10, None, 9, 10),
    "a third, and no more than there is": ([4, 3, 3, 3, 3], 10, None, 2, 2),
    "a comb": ([2] * 38 + [7] * 6 + [9] * 45, 21, None, 25, 26),
    "a comb of four": ([9] * 54 + [15] * 15 + [20] * 24 + [22] * 57, 49, None, 50, 53),
    "tokens and slots together": ([8] * 6 + [1] * 12, 10, 2, 9, 9),
    "slots bind for the short only": ([4] * 8 + [1] * 8, 10, 3, 6, 6),
    "one slot too few beside the long": ([5] * 10 + [1] * 10, 10, 3, 7, 8),
}


@pytest.mark.parametrize(("lengths", "seq_len", "cap", "simple", "bound"), PROGRAMS.values(), ids=PROGRAMS)
def test_the_linear_program_adds(lengths, seq_len, cap, simple, bound) -> None:
    assert lower_bound(lengths, seq_len, cap) == simple
    assert lower_bound(lengths, seq_len, cap, lp=True) == bound


def test_an_unfinished_program_gives_what_it_has() -> None:
    lengths = [9] * 54 + [15] * 15 + [20] * 24 + [22] * 57
    assert lower_bound(lengths, 49, lp=True, time_limit=1e-9) == 50


def test_a_program_too_large_for_memory_is_left_out() -> None:
    assert lower_bound(np.arange(1, 1 << 10), 1 << 20, 900, lp=True) == 2


def test_the_bound_on_coco() -> None:
    """A comb: by its tokens alone it could fill every row; by the linear program 97.9 % of them (`limits.md` section 2)."""
    lengths = lists.make("coco", 20_000, 4096)
    tokens = lower_bound(lengths, 4096)
    bound = lower_bound(lengths, 4096, lp=True)
    assert lengths.sum() / (4096 * tokens) > 0.9995
    assert 0.975 < lengths.sum() / (4096 * bound) < 0.983


def test_the_solver_prints_nothing(capfd) -> None:
    assert lower_bound([1200] * 30 + [1170] * 20 + [640] * 31, 4096, lp=True) == 22
    assert capfd.readouterr() == ("", "")
