"""Another sampling rate keeps tones as they are, and is what scipy makes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pocketvl_runtime.resample import resampled
from tests.runtime.sounds import noise, tone

RATES = [
    (44_100, 48_000),
    (16_000, 48_000),
    (96_000, 48_000),
    (8_000, 48_000),
    (48_000, 44_100),
    (11_025, 16_000),
]


@pytest.mark.parametrize(("rate", "wanted"), RATES)
@pytest.mark.parametrize("count", [1, 2, 77, 5_000, 44_101])
def test_it_is_scipys_polyphase_filter(rate: int, wanted: int, count: int) -> None:
    signal = pytest.importorskip("scipy.signal", reason="scipy comes with pocketvl, not with its runtime")
    samples = noise(1.0, max(rate, 44_101))[:count]
    divisor = math.gcd(rate, wanted)
    np.testing.assert_allclose(
        resampled(samples, rate, wanted),
        signal.resample_poly(samples, wanted // divisor, rate // divisor),
        atol=1e-12,
    )


@pytest.mark.parametrize(("rate", "wanted"), RATES)
def test_a_tone_stays_the_same_tone(rate: int, wanted: int) -> None:
    found = resampled(tone(1000.0, 0.5, rate), rate, wanted)
    exact = tone(1000.0, 0.5, wanted)
    middle = slice(len(exact) // 4, 3 * len(exact) // 4)  # the ends meet silence
    assert np.abs(found - exact)[middle].max() < 2e-3


def test_what_the_lower_rate_cannot_hold_is_filtered_out() -> None:
    assert np.abs(resampled(tone(7_000.0, 0.5), 48_000, 8_000)[500:-500]).max() < 2e-3


def test_an_equal_rate_changes_nothing() -> None:
    samples = noise()
    assert resampled(samples, 48_000, 48_000) is samples
