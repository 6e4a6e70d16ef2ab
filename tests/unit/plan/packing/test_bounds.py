"""How few rows are possible: bounds worked out by hand, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

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


def test_totals_over_any_integer() -> None:
    seq_len = 1 << 20
    assert lower_bound(np.full(3 << 10, seq_len - 1), seq_len) == 3 << 10


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
