"""From similarities to probabilities."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketvl_runtime.tasks import probabilities, similarities

values = st.lists(st.floats(-1, 1), min_size=1, max_size=20)


@given(values, st.floats(0.1, 200))
def test_probabilities_sum_to_one_and_keep_the_order(similarity: list[float], scale: float) -> None:
    given_ = np.asarray(similarity)
    shares = probabilities(given_, scale)
    assert abs(shares.sum() - 1) < 1e-12
    assert (np.diff(shares[np.argsort(given_, kind="stable")]) >= 0).all()


@given(values, st.floats(0.1, 100), st.floats(-1, 1))
def test_only_differences_of_similarity_matter(similarity: list[float], scale: float, shift: float) -> None:
    given_ = np.asarray(similarity)
    np.testing.assert_allclose(probabilities(given_ + shift, scale), probabilities(given_, scale), rtol=1e-6)


def test_the_ratio_of_two_is_the_exponential_of_their_scaled_difference() -> None:
    first, second = probabilities(np.asarray([0.3, 0.1]), 10.0)
    assert abs(first / second - np.exp(2.0)) < 1e-12


def test_similarities_are_cosines_in_double() -> None:
    image, texts = (
        np.asarray([0.6, 0.8], np.float32),
        np.asarray([[1, 0], [0.6, 0.8], [-0.8, 0.6]], np.float32),
    )
    got = similarities(image, texts)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [0.6, 1.0, 0.0], atol=1e-7)
