"""The task of an encoder by itself: its metric, what it asks of datasets, and how it is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError, RecipeError
from pocketvl.network.heads import HeadKind
from pocketvl.tasks import load_task, save_task
from pocketvl.tasks.embedding import ImageEmbeddingTask, TextEmbeddingTask
from pocketvl.tasks.embedding_metrics import TEMPERATURE, nearest_neighbour, soft_neighbours
from pocketvl.tasks.head_training import HeadTraining
from pocketvl.tasks.metrics import Metric
from pocketvl.tasks.outputs import Outputs
from pocketvl.train.settings import LossWeights, Phase, TrainingSettings

IMAGE = ImageEmbeddingTask("image_encoder.embedding")
TEXT = TextEmbeddingTask("text_encoder.embedding")
TRAINING = HeadTraining(HeadKind.IMAGE_EMBEDDING, ("image_encoder",))


def at(*degrees: float) -> NDArray[np.float32]:
    """Vectors of length 1 in the plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def dataset(root: Path, rows: list[dict[str, object]]) -> Dataset:
    root.mkdir(exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(root / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", **row}))
    (root / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return Dataset.open(root)


def test_the_nearest_other_row_has_the_same_label_or_not() -> None:
    found = nearest_neighbour(at(0, 5, 40, 48, 44), ["a", "a", "b", "b", "a"])
    # 0 and 5 find each other; 40 and 48 find 44 of another label, and 44 one of theirs
    assert found.metric is Metric.KNN
    assert found.correct.tolist() == [True, True, False, False, False]
    assert found.notes == ()


def test_a_tie_and_a_value_that_is_not_finite_are_not_right() -> None:
    assert nearest_neighbour(at(0, 10, -10), ["a", "a", "b"]).correct.tolist() == [False, True]
    rows = at(0, 1, 90, 91)
    rows[1] = np.nan
    assert nearest_neighbour(rows, ["a", "a", "b", "b"]).correct.tolist() == [False, False, False, False]


def test_rows_without_a_label_and_labels_of_one_row_are_left_out() -> None:
    found = nearest_neighbour(at(0, 1, 2, 3, 50), ["a", None, "b", "a", "c"])
    # the row without a label is nobody's neighbour; b and c ask nothing, and b is in the way of both a
    assert found.correct.tolist() == [False, False]
    assert found.notes == (
        "knn: 1 of 5 inputs without a label are left out",
        "knn: 2 of 4 inputs whose label no other has are left out",
    )


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([None, None], "nothing has a label"),
        (["a", "a"], "it takes two labels, one of them of several inputs"),
        (["a", "b"], "it takes two labels, one of them of several inputs"),
    ],
)
def test_what_cannot_be_measured_is_told(labels: list[str | None], why: str) -> None:
    found = nearest_neighbour(at(0, 10), labels)
    assert not found.correct.size
    assert found.notes == (f"knn: not measured, {why}",)


def test_it_is_what_a_plain_search_finds() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((700, 8)).astype(np.float32)  # more than are compared at once
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = [str(label) for label in random.integers(0, 5, len(rows))]
    similarity = rows.astype(np.float64) @ rows.astype(np.float64).T
    np.fill_diagonal(similarity, -2)
    expected = [labels[best] == label for best, label in zip(similarity.argmax(1), labels, strict=True)]
    assert nearest_neighbour(rows, labels).correct.tolist() == expected
    powers = np.exp(similarity / TEMPERATURE)
    np.fill_diagonal(powers, 0)
    same = np.array(labels)[:, None] == np.array(labels)[None]
    np.testing.assert_allclose(soft_neighbours(rows, labels), (powers * same).sum(1) / powers.sum(1))


def test_images_are_measured_by_their_labels_and_need_no_texts(tmp_path: Path) -> None:
    world = dataset(tmp_path / "a", [{"label": name} for name in "aabb"])
    found = IMAGE.measure(world, Outputs({IMAGE.port: at(0, 1, 90, 91)}, ()))
    assert found.tasks[Metric.KNN].correct.all()
    assert IMAGE.soft_score(world, Outputs({IMAGE.port: at(0, 1, 90, 91)}, ())) > 0.99
    with pytest.raises(DataError, match="3 rows embedded, not 4"):
        IMAGE.measure(world, Outputs({IMAGE.port: at(0, 1, 90)}, ()))
    photos = dataset(tmp_path / "b", [{}, {}])
    IMAGE.check(photos)
    IMAGE.check_calibration(photos)
    bare = IMAGE.measure(photos, Outputs({IMAGE.port: at(0, 1)}, ()))
    assert (bare.tasks, bare.notes) == ({}, ("knn: not measured, nothing has a label",))
    with pytest.raises(DataError, match="a search needs labels that several samples share"):
        IMAGE.soft_score(photos, Outputs({IMAGE.port: at(0, 1)}, ()))
    with pytest.raises(DataError, match="at least two images"):
        IMAGE.check(dataset(tmp_path / "c", [{}]))


def test_texts_are_measured_by_the_labels_of_their_samples(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"captions": ["red", "crimson"], "label": "r", "negatives": ["blue"]},
        {"captions": ["azure", "thing"], "label": "b"},
        {"captions": ["navy", "thing"], "label": "b"},
        {"captions": ["thing"], "label": "r"},
        {"label": "b"},
    ]
    world = dataset(tmp_path / "a", rows)
    assert TEXT.texts(world) == ("red", "crimson", "blue", "azure", "thing", "navy", "a photo of a b")
    # a negative and a label in its template say nothing of a text's label, nor does a caption of two labels
    assert TEXT.labels(world) == ["r", "r", None, "b", None, "b", None]
    found = TEXT.measure(world, Outputs({TEXT.port: at(0, 1, 2, 90, 3, 91, 92)}, TEXT.texts(world)))
    assert found.tasks[Metric.KNN].correct.tolist() == [True] * 4
    photos = dataset(tmp_path / "b", [{}, {}])
    for check in (TEXT.check_calibration, TEXT.check):
        with pytest.raises(DataError, match="captions or labels"):
            check(photos)
    with pytest.raises(DataError, match="at least two different texts"):
        TEXT.check(dataset(tmp_path / "c", [{"captions": ["one"]}]))


@pytest.mark.parametrize("task", [IMAGE, TEXT])
def test_a_task_is_had_again(task: ImageEmbeddingTask | TextEmbeddingTask, tmp_path: Path) -> None:
    save_task(tmp_path / "task.json", task)
    assert load_task(tmp_path / "task.json") == task


REFUSED: list[tuple[Callable[[], LossWeights], str]] = [
    (lambda: LossWeights(contrast=1.0), "losses.contrast is for another kind of model; this one has none"),
    (lambda: LossWeights(answer=1.0), "losses.answer is for another kind of model; this one has none"),
    (lambda: LossWeights(embedding=0.0), "learns from embedding, relation, hidden or attention"),
]


@pytest.mark.parametrize(("losses", "says"), REFUSED)
def test_losses_that_one_encoder_has_not_are_refused(losses: Callable[[], LossWeights], says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        TRAINING.check(TrainingSettings((Phase(2),), losses=losses()))
    assert "\n" not in str(caught.value)


def test_it_learns_from_its_teachers_embeddings_by_default() -> None:
    settings = TrainingSettings((Phase(2),))
    TRAINING.check(settings)
    assert TRAINING.needs_teacher(settings)
    assert TRAINING.label_weight(settings.losses) == 0
