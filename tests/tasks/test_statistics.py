from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pocketvl.errors import DataError
from pocketvl.tasks.statistics import (
    least_samples,
    paired_difference,
    paired_interval,
    wilson_interval,
)

Z2 = 1.959963984540054**2


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 3000))
    lost = draw(st.integers(0, n))
    return lost, draw(st.integers(0, n - lost)), n


def score_from_the_multinomial(lost: int, gained: int, n: int, delta: float) -> float:
    """Tango's score by maximising the constrained likelihood on a grid: no formula of the source's."""
    rates = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)[1:-1]  # P(only the second succeeds)
    likelihood = gained * np.log(rates) + lost * np.log(rates + delta)
    likelihood += (n - lost - gained) * np.log1p(-2 * rates - delta)
    gained_rate = rates[np.argmax(likelihood)]
    return float((lost - gained - n * delta) / math.sqrt(n * (2 * gained_rate + delta * (1 - delta))))


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(trial: tuple[int, int]) -> None:
    expected = binomtest(*trial).proportion_ci(method="wilson")
    assert wilson_interval(*trial) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + z2/20) / (1 + z2/10), half-width z sqrt(0.16/10 + z2/400) / (1 + z2/10)
    assert wilson_interval(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson_interval(0, 10) == pytest.approx((0.0, Z2 / (10 + Z2)))


@pytest.mark.parametrize(("right", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(right: int, n: int) -> None:
    with pytest.raises(DataError, match="trials"):
        wilson_interval(right, n)


@pytest.mark.parametrize("n", [1, 50, 2000])
def test_without_discordant_pairs_the_interval_keeps_its_width(n: int) -> None:
    limit = Z2 / (n + Z2)
    assert paired_interval(0, 0, n) == pytest.approx((-limit, limit), abs=1e-9)


@pytest.mark.parametrize(("lost", "gained", "n"), [(7, 3, 100), (1, 0, 44), (20, 4, 2000), (3, 9, 60)])
def test_the_limits_are_where_the_likelihood_score_is_1_96(lost: int, gained: int, n: int) -> None:
    low, high = paired_interval(lost, gained, n)
    z = math.sqrt(Z2)
    assert score_from_the_multinomial(lost, gained, n, low) == pytest.approx(z, abs=2e-3)
    assert score_from_the_multinomial(lost, gained, n, high) == pytest.approx(-z, abs=2e-3)


@given(counts())
def test_the_interval_holds_the_estimate_and_mirrors(case: tuple[int, int, int]) -> None:
    lost, gained, n = case
    low, high = paired_interval(lost, gained, n)
    assert -1 - 1e-9 <= low <= (lost - gained) / n <= high <= 1 + 1e-9
    assert high - low > 1e-4
    assert paired_interval(gained, lost, n) == pytest.approx((-high, -low), abs=1e-7)


@settings(max_examples=40)
@given(counts())
def test_more_pairs_of_the_same_kind_make_it_narrower(case: tuple[int, int, int]) -> None:
    lost, gained, n = case
    low, high = paired_interval(lost, gained, n)
    low_more, high_more = paired_interval(4 * lost, 4 * gained, 4 * n)
    assert high_more - low_more < high - low


@pytest.mark.parametrize("rates", [(0.01, 0.01), (0.03, 0.0), (0.002, 0.001)])
def test_the_interval_covers_the_truth_in_about_95_of_100_trials(rates: tuple[float, float]) -> None:
    rng = np.random.default_rng(5)
    n, trials = 500, 800
    drawn = rng.multinomial(n, [*rates, 1 - sum(rates)], size=trials)
    held = 0
    for lost, gained, _ in drawn:
        low, high = paired_interval(int(lost), int(gained), n)
        held += low <= rates[0] - rates[1] <= high
    assert 0.925 <= held / trials <= 0.995


@settings(deadline=None)
@given(st.integers(0, 1500), st.integers(0, 1500), st.integers(1, 1500))
def test_another_loss_only_raises_both_limits(lost: int, gained: int, rest: int) -> None:
    n = lost + gained + rest
    low, high = paired_interval(lost, gained, n)
    low_more, high_more = paired_interval(lost + 1, gained, n)
    assert low_more > low - 1e-9
    assert high_more > high - 1e-9


@settings(deadline=None)
@given(st.floats(0.01, 100))
def test_the_least_samples_are_where_the_interval_without_discordant_pairs_fits(allowance: float) -> None:
    least = least_samples(allowance)
    assert least is not None
    assert 100 * paired_interval(0, 0, least)[1] <= allowance * (1 + 1e-9)
    if least > 1:
        assert 100 * paired_interval(0, 0, least - 1)[1] > allowance * (1 - 1e-9)


def test_least_samples_by_hand() -> None:
    assert [least_samples(allowance) for allowance in (0.5, 1.0, 2.0, 100.0, 1e9)] == [765, 381, 189, 1, 1]
    assert [least_samples(allowance) for allowance in (0.0, -1.0, math.nan, 5e-324)] == [None] * 4


def test_paired_difference_by_hand() -> None:
    reference = np.array([1, 1, 1, 1, 0, 0, 1, 0, 1, 1], dtype=np.bool_)
    variant = np.array([1, 0, 0, 1, 1, 0, 1, 0, 1, 1], dtype=np.bool_)
    paired = paired_difference(reference, variant)
    assert (paired.lost, paired.gained, paired.n) == (2, 1, 10)
    assert paired.drop_pp == pytest.approx(10.0)
    low, high = paired_interval(2, 1, 10)
    assert paired.ci95_pp == pytest.approx((100 * low, 100 * high))


def test_paired_difference_refuses_what_cannot_be_paired() -> None:
    with pytest.raises(DataError, match="paired"):
        paired_difference(np.ones(3, dtype=np.bool_), np.ones(4, dtype=np.bool_))
    with pytest.raises(DataError, match="paired"):
        paired_difference(np.ones(0, dtype=np.bool_), np.ones(0, dtype=np.bool_))
    with pytest.raises(DataError, match="fit"):
        paired_interval(3, 3, 5)
