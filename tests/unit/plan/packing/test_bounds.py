"""How few rows are possible: bounds worked out by hand, what the linear program adds, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import lists
from patchpack.errors import ConfigError
from patchpack.plan.packing import lower_bound

CASES = {
    # lengths, seq_len, max_images -> bound
    "nothing": ([], 10, None, 0),
    "one": ([1], 10, None, 1),
    "tokens, exactly": ([5, 5, 5, 5], 10, None, 2),
    "tokens, rounded up": ([5, 5, 5, 6], 10, None, 3),
    "slots": ([1, 1, 1, 1, 1], 10, 2, 3),
    "slots that nobody meets": ([5, 5, 5, 5], 10, 9, 2),
    "one slot": ([1, 2, 3], 10, 1, 3),
    "over half alone": ([6, 6, 6], 10, None, 3),
    "half can pair": ([5, 5, 5], 10, None, 2),
    "half of an odd length": ([6, 6, 5, 5], 11, None, 2),
    "L2: what does not fit beside the large ones": ([7, 7, 4, 4], 10, None, 3),
    "L2: exactly fits beside the large ones": ([7, 7, 3, 3], 10, None, 2),
    "L2: a = 3 is best": ([8, 7, 7, 4, 3], 10, None, 4),
    "L2: rounds up": ([9, 5, 5, 5], 10, None, 3),
    "full rows": ([10, 10, 1], 10, None, 3),
    "seq_len 1": ([1, 1], 1, None, 2),
}


@pytest.mark.parametrize(("lengths", "seq_len", "cap", "bound"), CASES.values(), ids=CASES)
def test_named_cases(lengths, seq_len, cap, bound) -> None:
    result = lower_bound(lengths, seq_len, cap)
    assert result == bound
    assert type(result) is int


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
    pytest.importorskip("highspy")
    assert lower_bound(lengths, seq_len, cap) == simple
    assert lower_bound(lengths, seq_len, cap, lp=True) == bound


def test_an_unfinished_program_gives_what_it_has() -> None:
    pytest.importorskip("highspy")
    lengths = [9] * 54 + [15] * 15 + [20] * 24 + [22] * 57
    assert lower_bound(lengths, 49, lp=True, time_limit=1e-9) == 50


def test_a_program_too_large_for_memory_is_left_out() -> None:
    pytest.importorskip("highspy")
    assert lower_bound(np.arange(1, 1 << 10), 1 << 20, 900, lp=True) == 2


def test_totals_over_any_integer() -> None:
    seq_len = 1 << 20
    assert lower_bound(np.full(3 << 10, seq_len - 1), seq_len) == 3 << 10


def test_the_bound_on_coco() -> None:
    """A comb: by its tokens alone it could fill every row; by the linear program 97.9 % of them (`limits.md` section 2)."""
    pytest.importorskip("highspy")
    lengths = lists.make("coco", 20_000, 4096)
    tokens = lower_bound(lengths, 4096)
    bound = lower_bound(lengths, 4096, lp=True)
    assert lengths.sum() / (4096 * tokens) > 0.9995
    assert 0.975 < lengths.sum() / (4096 * bound) < 0.983


REFUSED = {
    "zero": (([3, 0], 10), {}, r"lengths must be in 1 … seq_len=10, got lengths\[1\] = 0"),
    "over seq_len": (([3, 11], 10), {}, r"lengths\[1\] = 11 .* raise seq_len"),
    "floats": (([3.0], 10), {}, "integers, got float64"),
    "seq_len 0": (([3], 0), {}, "seq_len must be an integer .* got 0"),
    "max_images 0": (([3], 10, 0), {}, "max_images must be an integer .* got 0"),
    "max_images true": (([3], 10, True), {}, "max_images must be an integer .* got True"),
    "no time": (([3], 10), {"time_limit": 0}, "time_limit must be a positive number of seconds, got 0"),
    "time not a number": (([3], 10), {"time_limit": float("nan")}, "time_limit must be .* got nan"),
    "time as text": (([3], 10), {"time_limit": "60"}, "time_limit must be .* got '60'"),
    "time true": (([3], 10), {"time_limit": True}, "time_limit must be .* got True"),
}


@pytest.mark.parametrize(("arguments", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_bound_is_named(arguments, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        lower_bound(*arguments, **options)


def test_a_missing_solver_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    assert lower_bound([3], 10) == 1
    with pytest.raises(ConfigError, match=r"needs highspy.*pip install 'patchpack\[solver\]'"):
        lower_bound([3], 10, lp=True)
