"""The probability of the right answers: near 1 for a perfect model, chance for a random one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.tasks.contrastive_metrics import Embeddings
from pocketvl.tasks.contrastive_score import soft_accuracy
from tests.evaluate.worlds import dataset, embeddings, sample

SCALE = 50.0


def matching_world(count: int = 60, negatives: int = 3, noise: float = 0.0) -> tuple[Dataset, Embeddings]:
    """Captions with the very embedding of their picture, negatives with any other, pictures with noise."""
    rng = np.random.default_rng(5)
    texts = [f"caption {i}" for i in range(count)]
    wrong = [[f"wrong {i} {k}" for k in range(negatives)] for i in range(count)]
    vectors = rng.normal(size=(count * (1 + negatives), 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    image = vectors[:count] + noise * rng.normal(size=(count, 32))
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    samples = [sample(i, captions=(texts[i],), negatives=tuple(wrong[i])) for i in range(count)]
    every = (*texts, *(text for each in wrong for text in each))
    return dataset(*samples), Embeddings(image.astype(np.float32), vectors.astype(np.float32), every)


def test_a_perfect_model_is_nearly_sure() -> None:
    assert soft_accuracy(*matching_world(), SCALE) > 0.999


def test_a_random_model_is_at_chance() -> None:
    world, known = matching_world(200, 3)
    image = np.random.default_rng(1).normal(size=known.image.shape).astype(np.float32)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    chance = (1 / 4 + 1 / 100) / 2  # among a caption and 3 negatives, and among 100 pictures
    assert soft_accuracy(world, Embeddings(image, known.text, known.texts), 5.0) == pytest.approx(
        chance, abs=0.04
    )
    assert soft_accuracy(world, known, 0.0) == pytest.approx(chance)


def test_more_noise_is_less_sure() -> None:
    levels = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    found = [soft_accuracy(*matching_world(noise=noise), 20.0) for noise in levels]
    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] > 0.3


@settings(max_examples=30)
@given(st.floats(0.0, 3.0), st.floats(0.0, 200.0))
def test_it_is_a_fraction(noise: float, scale: float) -> None:
    assert 0 <= soft_accuracy(*matching_world(8, 2, noise), scale) <= 1


def test_it_moves_where_counted_answers_do_not() -> None:
    world = dataset(sample(0, captions=("right",), negatives=("wrong",)))
    near, far = (
        soft_accuracy(world, embeddings([[1.0, 0.0]], {"right": [1.0, 0.0], "wrong": [beside, 0.0]}), 10.0)
        for beside in (0.9, 0.5)
    )
    assert 0.5 < near < far
    assert near == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-6)


def test_only_what_the_data_is_good_for_counts() -> None:
    whole, known = matching_world(20, 2)
    captions_only = Dataset(
        whole.root, tuple(sample(i, captions=each.captions) for i, each in enumerate(whole.samples))
    )
    alone = Dataset(whole.root, whole.samples[:1])
    one = Embeddings(known.image[:1], known.text, known.texts)
    retrieval, match = soft_accuracy(captions_only, known, 3.0), soft_accuracy(alone, one, 3.0)
    assert 1 / 20 < retrieval < 1 / 2 < match  # among 20 pictures; among three texts


@pytest.mark.parametrize("captions", [(), ("a",)])
def test_without_anything_to_match_it_says_so(captions: tuple[str, ...]) -> None:
    world = dataset(sample(0, captions=captions), sample(1, label="dog"))
    known = embeddings([[1.0], [1.0]], {"a": [1.0], "a photo of a dog": [0.5]})
    with pytest.raises(DataError, match="needs captions to match"):
        soft_accuracy(world, known, SCALE)
