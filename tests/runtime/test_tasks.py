"""From similarities to probabilities."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pocketvl_runtime.manifest import Activation
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


def test_a_sigmoid_takes_each_score_by_itself_with_the_bias() -> None:
    # by hand: 1 / (1 + exp(-(10 * 0.3 - 2))) = 1 / (1 + 1/e) = 0.731058...; exp(1002) would overflow
    got = probabilities(np.asarray([0.3, 0.2, -100.0, 100.0]), 10.0, -2.0, Activation.SIGMOID)
    np.testing.assert_allclose(got, [0.7310585786300049, 0.5, 0.0, 1.0], atol=1e-15)


def test_a_softmax_does_not_see_the_bias() -> None:
    similarity = np.asarray([0.3, 0.1])
    np.testing.assert_allclose(
        probabilities(similarity, 10.0, -2.0), probabilities(similarity, 10.0), rtol=1e-12
    )
