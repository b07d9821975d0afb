"""The task of answers: right by question and type, beside what one constant answer comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketvl.data.dataset import Dataset, questions_of, write_samples
from pocketvl.errors import DataError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.network.heads import LabelHead
from pocketvl.network.integers import QuantizedComponent
from pocketvl.network.specification import ComponentSpec, Granularity, GridSpec, LayerSpec, Mode, Scheme
from pocketvl.observe.calibration import Calibration
from pocketvl.quantize.component import quantize_component
from pocketvl.quantize.settings import QuantizeSettings, Rounding
from pocketvl.quantize.simulate import simulated
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.tasks import load_task, save_task, task_of
from pocketvl.tasks.base import Task
from pocketvl.tasks.encoding import Encoder
from pocketvl.tasks.labels import LabelTask
from pocketvl.tasks.metrics import Metric, TaskOutcome
from pocketvl.tasks.outputs import Outputs
from pocketvl.tasks.torch_runner import TorchRunner
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Activation
from pocketvl_runtime.text import Tokenizer
from tests.families.vilt_folder import LAYER, make_vilt_folder

LOGITS = "fusion.logits"
NEAREST = QuantizeSettings(clip_weights=False, rounding=Rounding.NEAREST, correct_bias=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("answers")
    write_tabletop(root, seed=5, count=12, size=32)
    return Dataset.open(root)


@pytest.fixture(scope="module")
def vilt(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(make_vilt_folder(tmp_path_factory.mktemp("vilt") / "vilt"))


@pytest.fixture
def says_yes(vilt: Checkpoint) -> Iterator[Checkpoint]:
    """The model with "yes" for an answer, whatever it is asked."""
    module = vilt.components["fusion"].module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    last = module.get_submodule("classifier.3")
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[head(vilt).labels.index("yes")] = 1
    yield vilt
    module.load_state_dict(before)


def head(checkpoint: Checkpoint) -> LabelHead:
    found = checkpoint.contract.head
    assert isinstance(found, LabelHead)
    return found


def runner(checkpoint: Checkpoint, batch: int = 64) -> TorchRunner:
    return TorchRunner(checkpoint.components, Encoder.of_contract(checkpoint.contract), batch=batch)


def asked(task: Task, dataset: Dataset, outputs: Outputs) -> TaskOutcome:
    return task.measure(dataset, outputs).tasks[Metric.ASK]


def test_a_vilt_has_it_and_gives_the_logits_of_every_question_with_its_image(
    vilt: Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    task = task_of(vilt.contract)
    assert isinstance(task, LabelTask)
    save_task(tmp_path / "task.json", task)
    assert load_task(tmp_path / "task.json") == task
    calls: list[tuple[int, int, str]] = []
    outputs = task.outputs(runner(vilt, batch=7), data, lambda *call: calls.append(call))
    questions = questions_of(data)
    assert outputs.texts == tuple(each.text for each in questions)
    assert calls[-1] == (len(questions), len(questions), "running torch fp32")
    contract = vilt.contract
    ids = Tokenizer(contract.tokenizer_json, contract.tokenizer).encode(outputs.texts).ids
    pixels = [load_pixels(data.samples[each.sample].image, contract.preprocess) for each in questions]
    with torch.inference_mode():
        expected = vilt.components["fusion"].module(torch.from_numpy(np.stack(pixels)), torch.from_numpy(ids))
    np.testing.assert_allclose(outputs[LOGITS], expected.numpy(), atol=1e-5)


def test_the_same_answer_to_everything_is_right_as_often_as_it_is(
    says_yes: Checkpoint, data: Dataset
) -> None:
    task = task_of(says_yes.contract)
    found = asked(task, data, task.outputs(runner(says_yes), data))
    questions = questions_of(data)
    assert found.correct.tolist() == [each.answer == "yes" for each in questions]
    assert set(found.by_kind) == set(found.constant) == {"colour", "shape", "count", "existence", "relation"}
    assert not found.by_kind["colour"].any()
    answers = [each.answer for each in questions if each.type == "existence"]
    assert found.by_kind["existence"].tolist() == [answer == "yes" for answer in answers]
    assert found.constant["existence"] == max(map(answers.count, ("yes", "no"))) / len(answers)


def test_an_answer_that_the_model_does_not_know_is_missed(
    says_yes: Checkpoint, data: Dataset, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (data.root / "samples.jsonl").read_text().splitlines()][:2]
    rows[0]["qa"] = [{"question": "is it so?", "answer": "maybe"}]
    rows[1]["qa"] = [{"question": "is it so?", "answer": "yes"}]
    (tmp_path / "images").mkdir()
    for row in rows:
        (tmp_path / row["image"]).write_bytes((data.root / row["image"]).read_bytes())
    write_samples(tmp_path, rows)
    task, dataset = task_of(says_yes.contract), Dataset.open(tmp_path)
    outputs = task.outputs(runner(says_yes), dataset)
    found = asked(task, dataset, outputs)
    assert found.correct.tolist() == [False, True]
    (note,) = task.measure(dataset, outputs).notes
    assert note == "1 questions have an answer that the model does not know; they count as missed"
    assert list(found.by_kind) == ["other"]
    labels = len(head(says_yes).labels)
    sure = np.e / (np.e + labels - 1)  # a logit of 1 among zeros
    assert task.soft_score(dataset, outputs) == pytest.approx(sure / 2, rel=1e-5)
    for row, complaint in (
        ({"image": rows[0]["image"]}, r"no sample has questions and answers.*samples\.jsonl as"),
        ({"image": rows[0]["image"], "qa": rows[0]["qa"]}, "at least two questions"),
        ({"image": rows[0]["image"], "qa": [{"question": "is it so?"}]}, "needs a question and an answer"),
    ):
        write_samples(tmp_path, [row])
        with pytest.raises(DataError, match=complaint):
            task.check(Dataset.open(tmp_path))


def test_sigmoid_scores_each_answer_for_itself(vilt: Checkpoint, data: Dataset) -> None:
    known = head(vilt)
    task = LabelTask(LOGITS, known.labels, Activation.SIGMOID)
    questions = questions_of(data)
    logits = np.zeros((len(questions), len(known.labels)), np.float32)
    assert task.soft_score(data, Outputs({LOGITS: logits}, task.texts(data))) == pytest.approx(0.5)


def test_logits_that_are_not_finite_answer_nothing(vilt: Checkpoint, data: Dataset) -> None:
    task, known = task_of(vilt.contract), head(vilt)
    right = [known.labels.index(each.answer) for each in questions_of(data)]
    logits = np.zeros((len(right), len(known.labels)), np.float32)
    logits[np.arange(len(right)), right] = 1
    logits[2] = np.nan
    found = asked(task, data, Outputs({LOGITS: logits}, task.texts(data)))
    assert np.flatnonzero(~found.correct).tolist() == [2]
    with pytest.raises(DataError, match="ask about"):
        task.measure(data, Outputs({LOGITS: logits[1:]}, task.texts(data)[1:]))


def test_simulated_integers_answer_through_the_same_task(vilt: Checkpoint, data: Dataset) -> None:
    task, module = task_of(vilt.contract), vilt.components["fusion"].module
    grid = GridSpec(8, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
    names = [f"{LAYER}.{index}.intermediate.dense" for index in range(2)]
    spec = ComponentSpec(dict.fromkeys(names, LayerSpec(Mode.DYNAMIC, grid)))
    component = quantize_component(module, spec, Calibration({}), NEAREST)
    reference = task.outputs(runner(vilt), data)
    with simulated(module, component):
        found = task.outputs(runner(vilt), data)
    with simulated(module, QuantizedComponent({})):
        same = task.outputs(runner(vilt), data)
    parity = task.parity(reference, found)[LOGITS]
    assert parity.n == len(questions_of(data))
    assert parity.max_abs > 0
    assert 0.99 < parity.centred_cosine_median < 1
    assert task.parity(reference, same)[LOGITS].max_abs == 0
    assert asked(task, data, found).correct.size == parity.n
