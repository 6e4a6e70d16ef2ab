"""The number of examples that hypothesis tries for a property, in every tier of tests.

`HYPOTHESIS_PROFILE` names a profile: fast (10 examples, the default), ci (40) or deep (2,000). fast and ci draw the same
examples in every run, so a run that failed fails again. deep draws new examples. A cheap or important property asks for a
multiple.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import settings

Test = TypeVar("Test", bound=Callable[..., None])

settings.register_profile("fast", max_examples=10, deadline=None, derandomize=True)
settings.register_profile("ci", max_examples=40, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def examples(weight: float = 1.0) -> int:
    """Return the number of examples for a property of this weight: ``max(1, round(weight * examples of the profile))``."""
    return max(1, round(weight * settings.default.max_examples))


def weight(factor: float) -> Callable[[Test], Test]:
    """Return a decorator that gives a property `factor` times the examples of the profile."""
    return settings(max_examples=examples(factor))
