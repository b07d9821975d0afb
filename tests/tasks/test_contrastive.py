"""The task of two embeddings: what it asks of a dataset, and how two models' outputs are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pocketvl.errors import DataError
from pocketvl.families import read_contract
from pocketvl.tasks import load_task, save_task, task_of
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.contrastive_metrics import measure_embeddings
from pocketvl.tasks.contrastive_score import soft_accuracy
from pocketvl.tasks.metrics import Metric
from pocketvl.tasks.outputs import Outputs
from tests.evaluate.worlds import dataset, retrieval_world, sample
from tests.families.tiny import make_tiny_clip
from tests.tasks.tiny import IMAGE, TEXT, task


def test_metrics_are_those_of_the_two_ports() -> None:
    world, known = retrieval_world(100)
    image = known.image.copy()
    image[[3, 4]] = image[[4, 3]]
    outputs = Outputs({TEXT: known.text, IMAGE: image}, known.texts)
    found = task().measure(world, outputs).tasks
    assert found.keys() == {Metric.RETRIEVAL_R1, Metric.RETRIEVAL}
    assert np.flatnonzero(~found[Metric.RETRIEVAL_R1].correct).tolist() == [3, 4]
    expected = measure_embeddings(world, task().embeddings(outputs)).tasks[Metric.RETRIEVAL_R1].correct
    assert np.array_equal(found[Metric.RETRIEVAL_R1].correct, expected)


def test_parity_is_by_port_and_of_the_same_texts() -> None:
    rows = np.eye(3, dtype=np.float32)
    reference = Outputs({IMAGE: rows, TEXT: rows}, ("a", "b", "c"))
    moved = Outputs({IMAGE: rows, TEXT: rows + np.float32(0.25)}, ("a", "b", "c"))
    parity = task().parity(reference, moved)
    assert list(parity) == [IMAGE, TEXT]
    assert parity[IMAGE].max_abs == 0.0
    assert parity[TEXT].max_abs == pytest.approx(0.25)
    with pytest.raises(DataError, match="different texts"):
        task().parity(reference, Outputs(moved.arrays, ("a", "b", "d")))
    with pytest.raises(DataError, match="no outputs of text_encoder.embedding"):
        task().parity(reference, Outputs({IMAGE: rows}, ("a", "b", "c")))


def test_parity_of_a_part_is_to_the_same_inputs() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    reference = Outputs({IMAGE: rows, TEXT: rows[:3]}, ("a", "b", "c"))
    part = Outputs({IMAGE: rows[[0, 2, 4, 6, 8]], TEXT: rows[:3]}, ("a", "b", "c"), most=5)
    parity = task().parity(reference, part)
    assert {port: (each.n, each.max_abs) for port, each in parity.items()} == {
        IMAGE: (5, 0.0),
        TEXT: (3, 0.0),
    }
    with pytest.raises(DataError, match="cannot be compared"):
        task().parity(reference, Outputs({IMAGE: rows[:4], TEXT: rows[:3]}, ("a", "b", "c"), most=5))


def test_a_dataset_needs_two_images_and_two_texts() -> None:
    with pytest.raises(DataError, match="two different texts"):
        task().check(dataset(sample(0, captions=("a",)), sample(1, captions=("a",))))
    with pytest.raises(DataError, match="two images"):
        task().check(dataset(sample(0, captions=("a",), negatives=("b",))))
    task().check(dataset(sample(0, captions=("a",)), sample(1, captions=("b",))))


def test_a_checkpoint_of_two_components_has_it_and_its_score_takes_the_stored_scale(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "clip")
    found = task_of(read_contract(folder))
    assert isinstance(found, ContrastiveTask)
    assert (found.first, found.second) == (IMAGE, TEXT)
    save_task(tmp_path / "task.json", found)
    assert load_task(tmp_path / "task.json") == found
    world, known = retrieval_world(20)
    outputs = Outputs({IMAGE: known.image + known.image[::-1], TEXT: known.text}, known.texts)
    scale = float(np.exp(load_file(folder / "model.safetensors")["logit_scale"]))
    expected = soft_accuracy(world, found.embeddings(outputs), scale)
    assert found.soft_score(world, outputs) == pytest.approx(expected, abs=1e-6)
    assert expected < 0.999


@pytest.mark.parametrize(
    "content", ["", "{}", '{"kind": "riddle", "task": {}}', '{"kind": "labels", "task": {}}']
)
def test_a_file_that_is_no_task_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "task.json").write_text(content)
    with pytest.raises(DataError, match=r"task\.json: not a task"):
        load_task(tmp_path / "task.json")
