"""How many patches stay: the paper's distributions, quantiles against scipy, one rounding rule."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patchpack import rng
from patchpack.errors import ConfigError
from patchpack.plan.policies import quantile
from patchpack.plan.policies.drop import Beta, ByResolution, Constant, DropPolicy, NoDrop, Scheduled, keep

MANY = 100_000
HUNDRED = np.array([[10, 10]])


@pytest.fixture(scope="module")
def scipy() -> Any:
    """Return scipy with its special functions and statistics, which takes two seconds to import."""
    import scipy.special
    import scipy.stats

    return scipy


@pytest.fixture(scope="module")
def u() -> np.ndarray:
    """One uniform for each of many keys, float64 ``[n, 1]``."""
    return rng.uniforms(0, 0, np.arange(MANY, dtype=np.uint64), rng.Stage.DROP, 1)


# ------------------------------------------------------------------------------------------------------------ rounding


@pytest.mark.parametrize(
    ("patches", "rate", "kept"),
    [
        (100, 0.0, 100),
        (100, 0.9, 10),
        (100, 0.5, 50),
        (101, 0.5, 51),  # 50.5: up
        (3, 0.5, 2),
        (1, 0.5, 1),
        (1, 0.99, 1),
        (10, 0.99, 1),
        (100, 0.994, 1),
        (8, 0.8125, 2),
        (7, 0.1, 6),
        (5, 0.1, 5),
        (196, 0.5, 98),
        (10, 1.0, 1),
    ],
)
def test_the_number_kept_is_the_nearest_and_at_least_one(patches, rate, kept) -> None:
    answer = keep(np.array([[1, patches], [patches, 1]]), rate)
    assert answer.dtype == np.int32
    assert answer.tolist() == [kept, kept]


@given(rows=st.integers(1, 300), cols=st.integers(1, 300), rate=st.floats(0, 1))
def test_the_number_kept_is_within_half_a_patch(rows, cols, rate) -> None:
    exact = rows * cols * (1 - Fraction(rate))
    kept = int(keep(np.array([[rows, cols]]), rate)[0])
    assert 1 <= kept <= rows * cols
    assert kept == 1 or abs(kept - exact) <= Fraction(1, 2) + Fraction(1, 10**9)


def test_grids_keep_their_own_rates() -> None:
    assert keep(np.array([[10, 10], [4, 5], [1, 1]]), np.array([0.9, 0.5, 0.5])).tolist() == [10, 10, 1]


def test_no_drop_keeps_every_patch() -> None:
    policy = NoDrop()
    assert policy.draws == 0
    assert policy(np.array([[3, 4], [1, 1], [300, 200]])).tolist() == [12, 1, 60_000]


def test_constant_of_nine_tenths_keeps_ten_of_a_hundred() -> None:
    assert Constant(0.9)(HUNDRED).tolist() == [10]
    assert Constant(0.0)(HUNDRED).tolist() == [100]


# ---------------------------------------------------------------------------------------------------------------- beta

ANALYTIC = [  # max, mean, P(rate < 0.1) in percent; NaViT figure, recomputed in closed form
    (0.4, 0.10, 60.1), (0.4, 0.25, 11.4), (0.4, 0.35, 1.3),
    (0.7, 0.10, 67.2), (0.7, 0.25, 27.3), (0.7, 0.50, 2.4), (0.7, 0.65, 0.1),
    (0.9, 0.10, 70.3), (0.9, 0.25, 34.1), (0.9, 0.50, 6.0), (0.9, 0.70, 0.8), (0.9, 0.85, 0.1),
]  # fmt: skip


@pytest.mark.parametrize(("most", "mean", "percent"), ANALYTIC)
def test_beta_has_the_published_share_of_low_rates(most, mean, percent, u) -> None:
    rates = Beta(mean, most).rates(u[:, 0])
    assert 100 * np.mean(rates < 0.1) == pytest.approx(percent, abs=0.5)


@pytest.mark.parametrize(("most", "mean", "percent"), ANALYTIC)
def test_beta_has_the_mean_and_variance_asked_for(most, mean, percent, u) -> None:
    rates = Beta(mean, most).rates(u[:, 0])
    m = mean / most
    assert rates.mean() == pytest.approx(mean, abs=0.003)
    assert rates.var() == pytest.approx(0.3 * m * (1 - m) * most**2, rel=0.03)
    assert rates.min() >= 0
    assert rates.max() <= most


def test_beta_keeps_the_mean_share_of_patches(u) -> None:
    kept = Beta(0.5, 0.9)(np.full((MANY, 2), 16), u)
    assert kept.mean() / 256 == pytest.approx(0.5, abs=0.003)


def test_beta_with_the_largest_rate_of_one_keeps_a_patch() -> None:
    assert Beta(0.5, 1.0)(HUNDRED, np.array([[1 - 2.0**-53]])).tolist() == [1]


# ------------------------------------------------------------------------------------------------------- by resolution

LINEAR = ByResolution(0.4, 0.6, 100, 300)


@pytest.mark.parametrize(("patches", "mean"), [(1, 0.4), (100, 0.4), (150, 0.45), (200, 0.5), (300, 0.6), (5000, 0.6)])
def test_by_resolution_has_a_linear_mean(patches, mean, u, scipy) -> None:
    rates = LINEAR.rates(np.full(MANY, patches), u[:, 0])
    assert rates.mean() == pytest.approx(mean, abs=5e-4)
    assert rates.std() == pytest.approx(0.02 * scipy.stats.truncnorm(-2, 2).std(), rel=0.01)


def test_by_resolution_is_truncated_at_two_deviations(u) -> None:
    rates = LINEAR.rates(np.full(MANY, 200), u[:, 0])
    assert 0.46 <= rates.min() < 0.4605
    assert 0.5395 < rates.max() <= 0.54


def test_by_resolution_may_fall() -> None:
    middle = np.array([0.5, 0.5, 0.5])
    rates = ByResolution(0.6, 0.4, 100, 300).rates(np.array([100, 200, 300]), middle)
    assert rates == pytest.approx([0.6, 0.5, 0.4])


def test_by_resolution_is_clipped_to_rates() -> None:
    ends = np.array([0.0, 1 - 2.0**-53])
    assert ByResolution(0.0, 0.5, 1, 2).rates(np.array([1, 1]), ends) == pytest.approx([0, 0.04])
    assert ByResolution(0.5, 0.98, 1, 2).rates(np.array([2, 2]), ends) == pytest.approx([0.94, 0.99])


def test_by_resolution_looks_at_its_own_grid() -> None:
    policy = ByResolution(0.2, 0.8, 100, 400, std=0.0)
    assert policy(np.array([[10, 10], [20, 20], [25, 10]]), np.full((3, 1), 0.5)).tolist() == [80, 80, 125]


# ----------------------------------------------------------------------------------------------------------- scheduled


def test_scheduled_is_the_formula() -> None:
    policy = Scheduled(midpoint=1000, width=200, low=0.2, high=0.8)
    seen = np.array([0, 800, 1000, 1200, 5000])
    expected = [0.2 + 0.6 / (1 + math.exp(-(n - 1000) / 200)) for n in seen.tolist()]
    assert policy.rates(seen) == pytest.approx(expected, rel=1e-12)
    assert policy.rates(np.array([1000]))[0] == pytest.approx(0.5)


@pytest.mark.parametrize(("width", "sign"), [(200, 1), (-200, -1)])
def test_scheduled_moves_where_the_sign_of_width_says(width, sign) -> None:
    rates = Scheduled(midpoint=1000, width=width).rates(np.arange(0, 3000, 10))
    assert np.all(np.sign(np.diff(rates)) == sign)


@given(
    midpoint=st.floats(-1e9, 1e9),
    width=st.one_of(st.floats(1e-6, 1e9), st.floats(-1e9, -1e-6)),
    ends=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(sorted),
    seen=st.integers(0, 1 << 40),
)
def test_scheduled_stays_between_its_ends(midpoint, width, ends, seen) -> None:
    rate = Scheduled(midpoint, width, *ends).rates(np.array([seen]))[0]
    assert ends[0] <= rate <= ends[1] + 1e-15


def test_scheduled_follows_the_ordinal_and_nothing_drawn() -> None:
    policy = Scheduled(midpoint=1000, width=1, low=0.2, high=0.8)
    assert policy.draws == 0
    assert policy(np.repeat(HUNDRED, 3, axis=0), None, np.array([0, 1000, 2000])).tolist() == [80, 50, 20]


# ----------------------------------------------------------------------------------------------------------- quantiles

OUT_TO = np.concatenate([[1e-9, 1e-6, 1e-3], np.linspace(0, 1, 2001)[1:-1], [1 - 1e-3, 1 - 1e-6, 1 - 1e-9]])
SHAPES = [0.01, 0.1, 0.3, 0.5, 0.9, 1.0, 1.5, 2.0, 5.0, 20.0, 100.0, 1000.0]
SHARES = np.linspace(0.02, 0.98, 25)


@pytest.mark.filterwarnings("ignore:Error in function boost")  # of scipy, at a few of these points
def test_beta_quantile_is_within_a_cell(scipy) -> None:
    for a, b in product(SHAPES, SHAPES):
        error = np.abs(quantile.beta(OUT_TO, a, b) - scipy.stats.beta.ppf(OUT_TO, a, b))
        assert error.max() < 2e-4, (a, b)


def test_beta_quantile_is_close_for_the_parameters_in_use(scipy) -> None:
    for share in SHARES:
        a, b = 7 / 3 * share, 7 / 3 * (1 - share)
        error = np.abs(quantile.beta(OUT_TO, a, b) - scipy.stats.beta.ppf(OUT_TO, a, b))
        assert error.max() < 1e-6, share


@given(u=st.floats(0, 1, exclude_max=True), a=st.sampled_from(SHAPES), b=st.sampled_from(SHAPES))
def test_beta_quantile_is_in_zero_to_one(u, a, b) -> None:
    assert 0 <= quantile.beta(np.array([u]), a, b)[0] <= 1


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=2).map(sorted), st.sampled_from(SHAPES), st.sampled_from(SHAPES))
@example([0.0, 2.2250738585e-313], 100.0, 0.01)  # between two nodes with a difference that is subnormal
def test_beta_quantile_does_not_fall(u, a, b) -> None:
    assert np.all(np.diff(quantile.beta(np.array(u), a, b)) >= 0)


def test_regularized_beta_equals_scipy(scipy) -> None:
    theta = np.linspace(0, math.pi / 2, 501)
    x, y = np.sin(theta) ** 2, np.cos(theta) ** 2
    for a, b in product([*SHAPES, 1e4], [*SHAPES, 1e4]):
        expected = np.where(x < y, scipy.special.betainc(a, b, x), 1 - scipy.special.betainc(b, a, y))
        assert quantile.regularized_beta(x, y, a, b) == pytest.approx(expected, abs=1e-10), (a, b)


NORMALS = {
    "of the drop": (0.0, 1.0, -2.0, 2.0),
    "of the paper": (-0.5, 1.0, -1.0, 1.0),
    "of the paper, centred": (0.0, 1.0, -1.0, 1.0),
    "of the paper, mirrored": (0.5, 1.0, -1.0, 1.0),
    "wide": (0.0, 100.0, -1.0, 1.0),
    "mean outside": (-3.0, 1.0, -1.0, 1.0),
    "mean outside, above": (3.0, 1.0, -1.0, 1.0),
    "narrow": (-0.5, 0.1, -1.0, 1.0),
    "as narrow as stated": (-0.5, 0.01, -1.0, 1.0),
    "as far as stated": (4.0, 1.0, -1.0, 1.0),
}


@pytest.mark.parametrize(("mean", "std", "low", "high"), NORMALS.values(), ids=NORMALS)
def test_truncated_normal_quantile(mean, std, low, high, scipy) -> None:
    expected = scipy.stats.truncnorm.ppf(OUT_TO, (low - mean) / std, (high - mean) / std, loc=mean, scale=std)
    error = np.abs(quantile.truncated_normal(OUT_TO, mean, std, low, high) - expected)
    assert error.max() < 1e-5 * (high - low)


@given(
    u=st.floats(0, 1, exclude_max=True), mean=st.floats(-100, 100), std=st.floats(1e-6, 1e6), low=st.floats(-9, 9),
    width=st.floats(1e-3, 9),
)  # fmt: skip
@example(u=0.5, mean=60.0, std=1.0, low=-1.0, width=2.0)  # float64 sees no mass there
def test_truncated_normal_quantile_stays_in_its_interval(u, mean, std, low, width) -> None:
    assert low <= quantile.truncated_normal(np.array([u]), mean, std, low, low + width)[0] <= low + width


# ------------------------------------------------------------------------------------------------------------ protocol


@pytest.mark.parametrize("policy", [NoDrop(), Constant(0.5), Beta(), LINEAR, Scheduled(1000, 10)], ids=repr)
def test_policies_keep_the_protocol(policy) -> None:
    assert isinstance(policy, DropPolicy)
    assert policy == type(policy)(**policy.__dict__)
    assert policy(np.empty((0, 2), dtype=np.int32), np.empty((0, 1)), np.empty(0, dtype=np.int64)).shape == (0,)


@pytest.mark.parametrize("policy", [Beta(), LINEAR], ids=repr)
def test_a_policy_does_not_run_without_its_draws(policy) -> None:
    with pytest.raises(ConfigError, match=r"float64 \[n, 1\]"):
        policy(HUNDRED, None)


REFUSED = {
    "constant of all": (lambda: Constant(1.0), "rate must be in .* got 1.0"),
    "constant below 0": (lambda: Constant(-0.1), "got -0.1"),
    "constant nan": (lambda: Constant(math.nan), "got nan"),
    "beta mean 0": (lambda: Beta(0.0, 0.9), "mean=0.0, max_rate=0.9"),
    "beta mean at max": (lambda: Beta(0.9, 0.9), "mean=0.9, max_rate=0.9"),
    "beta max above 1": (lambda: Beta(0.5, 1.1), "max_rate=1.1"),
    "beta nan": (lambda: Beta(math.nan, 0.9), "mean=nan"),
    "resolution low": (lambda: ByResolution(-0.1, 0.5, 1, 2), "low must be .* got -0.1"),
    "resolution high": (lambda: ByResolution(0.1, 1.0, 1, 2), "high must be .* got 1.0"),
    "resolution reversed": (lambda: ByResolution(0.1, 0.5, 2, 2), "fewest=2, most=2"),
    "resolution from 0": (lambda: ByResolution(0.1, 0.5, 0, 2), "fewest=0"),
    "resolution std": (lambda: ByResolution(0.1, 0.5, 1, 2, std=-1.0), "std=-1.0"),
    "resolution std nan": (lambda: ByResolution(0.1, 0.5, 1, 2, std=math.nan), "std=nan"),
    "schedule tau 0": (lambda: Scheduled(100, 0), "midpoint=100, width=0"),
    "schedule tau nan": (lambda: Scheduled(100, math.nan), "width=nan"),
    "schedule mu nan": (lambda: Scheduled(math.nan, 1), "midpoint=nan"),
    "schedule low": (lambda: Scheduled(100, 1, low=-0.2), "low must be .* got -0.2"),
    "schedule high": (lambda: Scheduled(100, 1, high=1.0), "high must be .* got 1.0"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_impossible_numbers_are_named_at_construction(make, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
