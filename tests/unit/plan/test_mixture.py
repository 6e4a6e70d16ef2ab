"""Schedules of mixtures: exact cases, the shares of any thousand samples, the drift, saved states, and a slow twin."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.naive_mixture import naive_samples, naive_tokens
from patchpack.plan.mixture import BySamples, ByTokens, Schedule, schedule_of, whole_parts

WEIGHTS = st.lists(st.integers(1, 10) | st.integers(1, 1000) | st.integers(1, 10**9), min_size=1, max_size=8)


def run(schedule: Schedule, count: int, tokens: int = 1) -> list[int]:
    chosen = []
    for _ in range(count):
        chosen.append(schedule.choose())
        schedule.took(chosen[-1], tokens)
    return chosen


@pytest.mark.parametrize(
    ("parts", "first"),
    [
        ([1], "00000000"),
        ([1, 1], "01010101"),
        ([7, 2, 1], "0001001002"),
        ([1, 3], "11011101"),
        ([5, 3, 2], "0102010102"),
    ],
)
def test_the_first_choices(parts: list[int], first: str) -> None:
    assert "".join(map(str, run(BySamples(parts), len(first)))) == first


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ([Fraction("0.7"), Fraction("0.2"), Fraction("0.1")], [7, 2, 1]),
        ([Fraction(1, 3), Fraction(1, 6)], [2, 1]),
        ([Fraction(3)], [3]),
    ],
)
def test_weights_become_integers_in_the_same_ratios(weights: list[Fraction], parts: list[int]) -> None:
    assert whole_parts(weights) == parts


def off_in_windows(parts: list[int], order: list[int], window: int) -> float:
    """How far any source is off its share in any window of the order, at most."""
    worst = 0.0
    for source, part in enumerate(parts):
        counts = np.cumsum([0, *(chosen == source for chosen in order)])
        inside = counts[window:] - counts[:-window]
        worst = max(worst, float(np.abs(inside - window * part / sum(parts)).max()))
    return worst


@given(WEIGHTS)
@example([10, 121])
@example([875, 749, 314805, 315, 8])
@example([853, 559, 7, 10, 5])
@example([1, 1, 1])
@example([999999999, 1])
def test_any_thousand_samples_have_each_share_rounded_up_or_down(parts: list[int]) -> None:
    assert off_in_windows(parts, run(BySamples(parts), 3500), 1000) < 1


@given(WEIGHTS)
@example([278817, 22707, 102634])
@example([544, 728, 10, 9])
def test_the_difference_from_the_shares_does_not_grow(parts: list[int]) -> None:
    order = run(BySamples(parts), 4000)
    for source, part in enumerate(parts):
        counts = np.cumsum([chosen == source for chosen in order])
        assert np.abs(counts - np.arange(1, 4001) * part / sum(parts)).max() < 3


@pytest.mark.slow
@pytest.mark.parametrize("parts", [[544, 728, 10, 9], [1, 1, 1], [875, 749, 314805, 315, 8], [3, 5, 7, 11, 13, 17, 19]])
def test_the_difference_does_not_grow_over_a_million(parts: list[int]) -> None:
    order = np.array(run(BySamples(parts), 1_000_000))
    for source, part in enumerate(parts):
        counts = np.cumsum(order == source)
        assert np.abs(counts - np.arange(1, len(order) + 1) * part / sum(parts)).max() < 3


@given(WEIGHTS)
def test_by_samples_is_the_slow_twin(parts: list[int]) -> None:
    assert run(BySamples(parts), 2500) == naive_samples(list(map(Fraction, parts)), 2500)


@given(st.data(), st.lists(st.fractions(Fraction(1, 50), 50, max_denominator=50), min_size=1, max_size=5))
def test_by_tokens_is_the_slow_twin(data: st.DataObject, weights: list[Fraction]) -> None:
    tokens = [data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=5)) for _ in weights]
    schedule, taken, order = schedule_of("tokens", weights), [0] * len(weights), []
    for _ in range(300):
        source = schedule.choose()
        schedule.took(source, tokens[source][taken[source] % len(tokens[source])])
        taken[source] += 1
        order.append(source)
    assert order == naive_tokens(weights, tokens, 300)


@given(WEIGHTS, st.lists(st.integers(1, 500), min_size=1, max_size=400))
def test_no_source_has_more_than_its_share_of_the_tokens_and_one_sample(parts: list[int], tokens: list[int]) -> None:
    schedule, had, most = ByTokens(parts), [0] * len(parts), 0
    for count in tokens:
        source = schedule.choose()
        schedule.took(source, count)
        had[source] += count
        most = max(most, count)
        assert all(h * sum(parts) <= p * sum(had) + most * sum(parts) for h, p in zip(had, parts, strict=True))


@given(WEIGHTS, st.sampled_from(["samples", "tokens"]), st.integers(0, 2100))
def test_a_state_continues_at_any_moment(parts: list[int], by: str, cut: int) -> None:
    weights = list(map(Fraction, parts))
    whole = schedule_of(by, weights)  # type: ignore[arg-type]
    run(whole, cut, 3)
    again = schedule_of(by, weights)  # type: ignore[arg-type]
    again.restore(json.loads(json.dumps(whole.state())))
    assert again.state() == whole.state()
    assert run(again, 1100, 2) == run(whole, 1100, 2)
