from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvl.cosines import cosines
from pocketvl.errors import DataError
from pocketvl.tasks.parity import LOSS_BINS, measure_parity


def test_parity_by_hand() -> None:
    # The reference's mean is [1, 0]; without it the rows are [0, 1], [0, -1]; the variant's [0, 1], [1, -1].
    reference = np.array([[1, 1], [1, -1]], dtype=np.float32)
    variant = np.array([[1, 1], [2, -1]], dtype=np.float32)
    report = measure_parity(reference, variant)
    assert report.cosine_min == pytest.approx(3 / np.sqrt(10))
    assert report.cosine_median == pytest.approx((1 + 3 / np.sqrt(10)) / 2)
    assert report.centred_cosine_min == pytest.approx(1 / np.sqrt(2))
    assert report.centred_cosine_median == pytest.approx((1 + 1 / np.sqrt(2)) / 2)
    assert report.max_abs == 1.0
    assert (report.n, report.non_finite) == (2, 0)


def test_a_constant_shift_of_the_variant_is_not_hidden_by_centring() -> None:
    rng = np.random.default_rng(0)
    reference = (0.05 * rng.normal(size=(20, 8)) + 1).astype(np.float32)
    report = measure_parity(reference, reference + np.float32(0.1) * np.eye(8, dtype=np.float32)[0])
    assert report.cosine_min > 0.99
    assert report.centred_cosine_median < 0.9


def test_the_same_embeddings_are_at_parity() -> None:
    reference = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    report = measure_parity(reference, reference.copy())
    assert report.centred_cosine_min == pytest.approx(1.0, abs=1e-12)
    assert report.max_abs == 0.0
    assert report.losses.counts[0] == 9


def test_rows_that_are_not_finite_count_as_opposite() -> None:
    reference = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    variant = reference.copy()
    variant[1, 0] = np.nan
    variant[3, 2] = np.inf
    report = measure_parity(reference, variant)
    assert report.non_finite == 2
    assert report.cosine_min == report.centred_cosine_min == -1.0
    assert report.max_abs == 0.0


def test_what_cannot_be_compared_is_refused() -> None:
    row = np.ones((1, 3), dtype=np.float32)
    with pytest.raises(DataError, match="two"):
        measure_parity(row, row)
    with pytest.raises(DataError, match="shapes"):
        measure_parity(np.ones((2, 3), dtype=np.float32), np.ones((3, 3), dtype=np.float32))
    broken = np.full((2, 3), np.nan, dtype=np.float32)
    with pytest.raises(DataError, match="NaN"):
        measure_parity(broken, np.ones((2, 3), dtype=np.float32))


def test_zero_rows_have_no_direction() -> None:
    zero, one = np.zeros((1, 2)), np.ones((1, 2))
    assert cosines(zero, zero)[0] == 1.0
    assert cosines(zero, one)[0] == 0.0


@given(st.integers(2, 30), st.floats(1e-9, 2.0), st.integers(0, 1000))
def test_the_histogram_counts_every_row_where_it_lies(rows: int, noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(rows, 6)).astype(np.float32)
    report = measure_parity(
        reference, (reference + noise * rng.normal(size=reference.shape)).astype(np.float32)
    )
    spread = report.losses
    assert sum(spread.counts) == rows
    width = (spread.high - spread.low) / LOSS_BINS
    worst = spread.low + width * max(index for index, count in enumerate(spread.counts) if count)
    exact = np.log10(max(1 - report.centred_cosine_min, 10**spread.low))
    assert worst - 1e-6 <= exact <= worst + width + 1e-6
