"""How often answers are right: counted by type, beside what the same answer to everything comes to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pocketvl.data.dataset import Dataset, questions_of, write_samples
from pocketvl.errors import DataError
from pocketvl.evaluate.answers import answer_accuracy
from pocketvl.evaluate.statistics import wilson_interval
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.tabletop.folder import write_tabletop
from tests.families.vilt_folder import make_vilt_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("answers")
    write_tabletop(root, seed=5, count=12, size=32)
    return root


@pytest.fixture(scope="module")
def vilt(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    opened = open_checkpoint(make_vilt_folder(tmp_path_factory.mktemp("vilt") / "vilt"))
    assert isinstance(opened, Checkpoint)
    return opened


def _always(vilt: Checkpoint, answer: str) -> None:
    """Makes the model give one answer, whatever it is asked."""
    last = vilt.model.get_submodule("classifier.3")
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[vilt.contract.label_head.labels.index(answer)] = 1


def test_the_same_answer_to_everything_is_right_as_often_as_it_is(vilt: Checkpoint, data: Path) -> None:
    _always(vilt, "yes")
    dataset = Dataset.open(data)
    asked = questions_of(dataset)
    right = [each.answer == "yes" for each in asked]
    found = answer_accuracy(vilt, dataset, batch=5)
    assert found.correct.tolist() == right
    assert found.overall.n == len(right)
    assert found.overall.accuracy == pytest.approx(sum(right) / len(right))
    assert found.overall.ci95 == wilson_interval(sum(right), len(right))
    assert set(found.by_type) == {"colour", "shape", "count", "existence", "relation"}
    assert found.by_type["colour"].accuracy == 0
    existence = found.by_type["existence"]
    said = [each.answer for each in asked if each.type == "existence"]
    assert existence.accuracy == said.count("yes") / len(said)
    assert existence.constant == max(map(said.count, ("yes", "no"))) / len(said)


def test_an_answer_that_the_model_does_not_know_is_missed(
    vilt: Checkpoint, data: Path, tmp_path: Path
) -> None:
    _always(vilt, "yes")
    rows = [json.loads(line) for line in (data / "samples.jsonl").read_text().splitlines()][:2]
    rows[0]["qa"] = [{"question": "is it so?", "answer": "maybe"}]
    rows[1]["qa"] = [{"question": "is it so?", "answer": "yes"}]
    root = tmp_path / "data"
    root.mkdir()
    (root / "images").mkdir()
    for row in rows:
        (root / row["image"]).write_bytes((data / row["image"]).read_bytes())
    write_samples(root, rows)
    found = answer_accuracy(vilt, Dataset.open(root))
    assert found.correct.tolist() == [False, True]
    assert list(found.by_type) == ["other"]
    for row, complaint in (
        ({"image": rows[0]["image"]}, "no sample has questions"),
        ({"image": rows[0]["image"], "qa": [{"question": "is it so?"}]}, "needs a question and an answer"),
    ):
        write_samples(root, [row])
        with pytest.raises(DataError, match=complaint):
            answer_accuracy(vilt, Dataset.open(root))
