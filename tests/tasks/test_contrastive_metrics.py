from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pocketvl.errors import DataError
from pocketvl.tasks.contrastive_metrics import (
    Embeddings,
    classify,
    distinct_texts,
    match_hard,
    measure_embeddings,
    retrieval,
    retrieval_r1,
)
from pocketvl.tasks.metrics import Metric
from tests.evaluate.worlds import dataset, embeddings, retrieval_world, sample


def test_match_hard_needs_the_caption_to_rank_above_every_negative() -> None:
    world = dataset(
        sample(0, captions=("up",), negatives=("right", "down"), negative_kinds=("colour", "shape")),
        sample(1, captions=("right",), negatives=("up", "down"), negative_kinds=("colour", "relation")),
        sample(2, captions=("up",)),
    )
    texts = {"up": [0.0, 1.0], "right": [1.0, 0.0], "down": [0.0, -1.0]}
    task = match_hard(world, embeddings([[0.1, 0.9], [0.5, 0.6], [0.0, 1.0]], texts))
    assert task.correct.tolist() == [True, False]
    assert {kind: beaten.tolist() for kind, beaten in task.by_kind.items()} == {
        "colour": [True, False],
        "relation": [True],
        "shape": [True],
    }
    assert task.notes == ("match_hard: 1 of 3 samples without caption or negatives are left out",)


def test_a_tie_and_a_nan_are_wrong() -> None:
    world = dataset(
        sample(0, captions=("a",), negatives=("b",)),
        sample(1, captions=("a",), negatives=("c",)),
        sample(2, captions=("a",), negatives=("nan",)),
    )
    texts = {"a": [1.0, 0.0], "b": [1.0, 0.0], "c": [0.0, 1.0], "nan": [float("nan"), 0.0]}
    task = match_hard(world, embeddings([[1.0, 0.0]] * 3, texts))
    assert task.correct.tolist() == [False, True, False]
    assert task.by_kind == {}


def test_kinds_must_fit_the_negatives() -> None:
    world = dataset(sample(0, captions=("a",), negatives=("b", "c"), negative_kinds=("colour",)))
    texts = {"a": [1.0], "b": [0.0], "c": [0.5]}
    with pytest.raises(DataError, match=r"sample 1 \(0.png\) has 2 negatives but 1 kinds"):
        match_hard(world, embeddings([[1.0]], texts))


def test_retrieval_is_within_groups_of_100_and_leaves_the_rest_out() -> None:
    world, perfect = retrieval_world(250)
    task = retrieval_r1(world, perfect)
    assert task.correct.tolist() == [True] * 200
    assert task.notes == (
        "retrieval_r1: the last 50 of 250 captioned samples fill no group of 100 and are left out",
    )
    swapped = perfect.image.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    task = retrieval_r1(world, Embeddings(swapped, perfect.text, perfect.texts))
    assert np.flatnonzero(~task.correct).tolist() == [3, 4]


def test_retrieval_counts_a_copy_of_the_picture_as_a_tie_within_its_group_only() -> None:
    world, perfect = retrieval_world(200)
    image = perfect.image.copy()
    image[7] = image[150]  # another group: sample 7 loses its picture, sample 150 is not touched
    image[20] = image[21]  # the same group: caption 21 cannot tell the two apart
    wrong = np.flatnonzero(~retrieval_r1(world, Embeddings(image, perfect.text, perfect.texts)).correct)
    assert wrong.tolist() == [7, 20, 21]


def test_retrieval_of_a_collapsed_model_is_all_wrong() -> None:
    world, perfect = retrieval_world(100)
    same = np.ones_like(perfect.image)
    assert not retrieval_r1(world, Embeddings(same, perfect.text, perfect.texts)).correct.any()


def test_fewer_than_100_samples_give_no_retrieval_but_a_note() -> None:
    world, perfect = retrieval_world(99)
    measured = measure_embeddings(world, perfect)
    assert set(measured.tasks) == {Metric.RETRIEVAL}
    assert measured.notes == ("retrieval_r1: not measured, 99 captioned samples where 100 are needed",)


def test_classify_takes_the_nearest_label() -> None:
    world = dataset(sample(0, label="dog"), sample(1, label="cat"), sample(2), sample(3, label="cat"))
    texts = {"a photo of a cat": [1.0, 0.0], "a photo of a dog": [0.0, 1.0]}
    task = classify(world, embeddings([[0.1, 0.9], [0.2, 0.8], [0.0, 0.0], [0.5, 0.5]], texts))
    assert task.correct.tolist() == [True, False, False]
    assert task.notes == ("classify: 1 of 4 samples without a label are left out",)


def test_classify_tells_the_nearest_five_where_there_are_more_labels() -> None:
    world = dataset(*(sample(k, label=f"label {k}") for k in range(7)))
    texts = {f"a photo of a label {k}": [float(k == j) for j in range(7)] for k in range(7)}
    image = np.eye(7)
    image[0] = [5, 9, 8, 7, 6, 4, 3]  # the fifth
    image[1] = [9, 3, 8, 7, 6, 5, 4]  # the seventh
    image[2] = [9, 9, 5, 9, 9, 5, 4]  # tied with another one for the fifth place
    task = classify(world, embeddings(image.tolist(), texts))
    assert task.correct.tolist() == [False] * 3 + [True] * 4
    assert task.by_kind["top5"].tolist() == [True, False, False, True, True, True, True]
    assert np.array_equal(task.by_kind["top1"], task.correct)


def test_a_label_is_the_mean_over_all_templates() -> None:
    """One template alone is wrong about the image, and so is the mean without normalising again."""
    world = dataset(sample(0, label="cat"), sample(1, label="dog"))
    texts = {
        "a cat": [1.0, 0.0, 0.0],
        "one cat": [0.0, 1.0, 0.0],  # the mean of the two has the length 0.71
        "a dog": [0.8, 0.6, 0.0],
        "one dog": [0.8, 0.6, 0.0],
    }
    image = [[0.7, 0.714, 0.0], [0.8, 0.6, 0.0]]
    single = replace(world, templates=("a {label}",))
    assert classify(single, embeddings(image, texts)).correct.tolist() == [False, True]
    task = classify(replace(world, templates=("a {label}", "one {label}")), embeddings(image, texts))
    assert task.correct.tolist() == [True, True]
    assert task.notes == ("classify: labels are the mean of 2 templates",)


def test_retrieval_is_both_ways_over_the_whole_dataset() -> None:
    world, perfect = retrieval_world(250)
    task = retrieval(world, perfect)
    assert {name: right.all() for name, right in task.by_kind.items()} == {
        f"{way}_r{rank}": True for way in ("text_to_image", "image_to_text") for rank in (1, 5, 10)
    }
    image = perfect.image.copy()
    image[7] = image[150]  # in other groups of 100: caption 150 has two equal images
    found = retrieval(world, Embeddings(image, perfect.text, perfect.texts))
    assert np.flatnonzero(~found.correct).tolist() == [7, 150]
    assert np.flatnonzero(~found.by_kind["image_to_text_r1"]).tolist() == [7]
    assert np.flatnonzero(~found.by_kind["text_to_image_r5"]).tolist() == [7]


def test_retrieval_ranks_are_those_of_a_sorted_list() -> None:
    chance = np.random.default_rng(3)
    world = dataset(*(sample(k, captions=(f"text {k}",)) for k in range(40)))
    image, text = chance.normal(size=(40, 4)), chance.normal(size=(40, 4))
    known = embeddings(image.tolist(), {f"text {k}": text[k].tolist() for k in range(40)})
    task, similarity = retrieval(world, known), known.text.astype(float) @ known.image.astype(float).T
    for way, rows in (("text_to_image", similarity), ("image_to_text", similarity.T)):
        places = [int(np.flatnonzero(np.argsort(-row) == k)[0]) for k, row in enumerate(rows)]
        for rank in (1, 5, 10):
            assert task.by_kind[f"{way}_r{rank}"].tolist() == [place < rank for place in places]
    assert 0 < task.by_kind["text_to_image_r10"].sum() < 40


def test_equal_captions_are_true_of_each_others_images() -> None:
    world = dataset(*(sample(k, captions=(text,)) for k, text in enumerate(("a", "a", "b"))), sample(3))
    known = embeddings([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.0]], {"a": [1.0, 0.0], "b": [0.0, 1.0]})
    task = retrieval(world, known)
    assert task.correct.tolist() == task.by_kind["image_to_text_r1"].tolist() == [True] * 3
    assert sorted(task.by_kind) == ["image_to_text_r1", "text_to_image_r1"]
    assert task.notes == ("retrieval: 1 of 4 samples without a caption are left out",)
    same = dataset(sample(0, captions=("a",)), sample(1, captions=("a",)))
    assert "the same caption" in retrieval(same, known).notes[0]


def test_retrieval_of_a_collapsed_or_broken_model_is_all_wrong() -> None:
    world, perfect = retrieval_world(30)
    for value in (1.0, float("nan")):
        image, text = np.full_like(perfect.image, value), np.ones_like(perfect.text)
        task = retrieval(world, Embeddings(image, text, perfect.texts))
        assert not any(right.any() for right in task.by_kind.values())


def test_a_single_label_measures_nothing() -> None:
    world = dataset(sample(0, label="cat"))
    task = classify(world, embeddings([[1.0]], {"a photo of a cat": [1.0]}))
    assert not task.correct.size
    assert "same label" in task.notes[0]


def test_distinct_texts_are_first_captions_negatives_and_labels_once_each() -> None:
    world = dataset(
        sample(0, captions=("a", "paraphrase"), negatives=("b", "a"), label="dog"),
        sample(1, captions=("b",), negatives=("c",), label="cat"),
    )
    world = replace(world, templates=("some {label}", "a {label}"))
    assert distinct_texts(world) == ("a", "b", "c", "some cat", "some dog", "a cat", "a dog")


def test_measuring_refuses_embeddings_of_other_data() -> None:
    world, perfect = retrieval_world(100)
    with pytest.raises(DataError, match="99 images embedded for 100"):
        measure_embeddings(world, Embeddings(perfect.image[:99], perfect.text, perfect.texts))
    others = tuple(f"other {index}" for index in range(100))
    with pytest.raises(DataError, match="no embedding of the text 'caption 0'"):
        measure_embeddings(world, Embeddings(perfect.image, perfect.text, others))


def test_measuring_measures_what_the_data_is_good_for() -> None:
    world, perfect = retrieval_world(100)
    assert set(measure_embeddings(world, perfect).tasks) == {Metric.RETRIEVAL_R1, Metric.RETRIEVAL}


def test_embeddings_and_texts_must_fit() -> None:
    image, text = np.zeros((2, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.float32)
    with pytest.raises(DataError, match="distinct"):
        Embeddings(image, text, ("a", "a"))
    with pytest.raises(DataError, match="fit"):
        Embeddings(image, text[:, :2], ("a", "b"))
