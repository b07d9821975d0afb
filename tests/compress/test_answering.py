"""A model that answers goes on learning: from its teacher, from the right answers, and where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketvl.compress.answering import QuestionLessons, answer_gradients_, train_answering
from pocketvl.compress.settings import LearningSettings, LossWeights
from pocketvl.errors import DataError, RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.split_attention import Block, removed_blocks, split_attentions_
from pocketvl.train.distil_losses import answer_response_loss
from pocketvl.train.questions import QuestionedData, answer_logits
from pocketvl_runtime.manifest import Role
from tests.families.vilt_folder import LAYER, make_vilt_folder, vilt_inputs

LABELS = LossWeights(response=0, embedding=0, answer=1)
TEACHER = LossWeights(response=1, embedding=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vilt_folder(tmp_path_factory.mktemp("answering") / "vilt")


@pytest.fixture(scope="module")
def data() -> QuestionedData:
    pixels, ids = vilt_inputs(12)
    chance = np.random.default_rng(0)
    return QuestionedData(
        pixels[:6].numpy(), ids.numpy(), np.repeat(np.arange(6), 2), chance.integers(0, 27, 12)
    )


def _logits(checkpoint: Checkpoint, data: QuestionedData) -> np.ndarray:
    tower = checkpoint.tower(Role.FUSION)
    ways = (data.images, data.images[:, :, ::-1])
    return np.stack([answer_logits(tower, images, data.ids, data.pictures, batch=5) for images in ways])


def _split(folder: Path) -> Checkpoint:
    student = open_checkpoint(folder)
    gone = [
        Block(f"{LAYER}.{place}.attention.attention", "text", "image", head)
        for place in (0, 1)
        for head in (0, 1)
    ]
    segments = student.stack("fusion").segments
    assert segments is not None
    split_attentions_(student.model, segments, gone[:3])
    return student


def _settings(losses: LossWeights, steps: int = 30) -> LearningSettings:
    return LearningSettings(
        joint_steps=steps, batch_size=12, learning_rate=3e-3, losses=losses, save_every=4, temperature=2
    )


@pytest.mark.parametrize(("losses", "name"), [(LABELS, "answer"), (TEACHER, "response")])
def test_a_split_student_learns(
    folder: Path, data: QuestionedData, tmp_path: Path, losses: LossWeights, name: str
) -> None:
    student = _split(folder)
    logits = _logits(open_checkpoint(folder), data) if name == "response" else None
    report = train_answering(student, logits, data, _settings(losses), tmp_path / "work")["joint"]
    values = [row[name] for row in report.losses]
    assert all(set(row) == {name} for row in report.losses)
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:5])
    assert len(removed_blocks(student.model)) == 3


def test_interrupted_it_ends_where_it_would_have(folder: Path, data: QuestionedData, tmp_path: Path) -> None:
    settings = _settings(LossWeights(response=1, embedding=0, answer=0.5), steps=8)
    whole, broken, again = _split(folder), _split(folder), _split(folder)
    logits = _logits(open_checkpoint(folder), data)
    train_answering(whole, logits, data, settings, tmp_path / "whole")

    def stop(done: int, total: int, what: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_answering(broken, logits, data, settings, tmp_path / "broken", stop)
    train_answering(again, logits, data, settings, tmp_path / "broken")
    states = [each.model.state_dict() for each in (whole, again)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_pictures_are_mirrored_where_no_label_could_become_wrong(folder: Path, data: QuestionedData) -> None:
    logits = _logits(open_checkpoint(folder), data)
    tower = open_checkpoint(folder).tower(Role.FUSION)
    for losses, mirrored in ((TEACHER, True), (LABELS, False)):
        batch = QuestionLessons(data, logits, _settings(losses))(0)
        plain = torch.from_numpy(data.images[data.pictures])
        turned = (batch.pixels != plain).flatten(1).any(1)
        assert bool(turned.any()) == mirrored
        with torch.no_grad():  # the teacher's answers are of the very pixels that are shown
            assert (tower(batch.pixels, batch.ids) - batch.wanted).abs().max() < 1e-4
        assert batch.answers.tolist() == data.answers.tolist()


def test_the_response_is_the_divergence_of_softened_answers() -> None:
    student, teacher = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    p, q = (F.softmax(each / 2, dim=-1) for each in (teacher, student))
    assert answer_response_loss(student, teacher, 2).item() == pytest.approx(
        4 * (p * (p / q).log()).sum(-1).mean().item(), rel=1e-5
    )
    assert answer_response_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def test_gradients_are_those_of_the_right_answers(folder: Path, data: QuestionedData) -> None:
    checkpoint = open_checkpoint(folder)
    answer_gradients_(checkpoint, data, _settings(LABELS, steps=1))
    found = {name: value.grad for name, value in checkpoint.model.named_parameters()}
    checkpoint.model.zero_grad()
    logits = checkpoint.tower(Role.FUSION)(
        torch.from_numpy(data.images[data.pictures]), torch.from_numpy(data.ids)
    )
    torch.autograd.backward(F.cross_entropy(logits, torch.from_numpy(data.answers)))
    for name, value in checkpoint.model.named_parameters():
        gradient = found[name]
        assert gradient is not None
        assert value.grad is not None
        assert torch.allclose(gradient, value.grad, atol=1e-5), name


def test_what_does_not_fit_is_refused(folder: Path, data: QuestionedData, tmp_path: Path) -> None:
    student = open_checkpoint(folder)
    with pytest.raises(RecipeError, match="only answer does without"):
        train_answering(student, None, data, _settings(TEACHER), tmp_path / "a")
    with pytest.raises(DataError, match="not of this data"):
        train_answering(student, np.zeros((2, 3, 27), np.float32), data, _settings(TEACHER), tmp_path / "b")
    with pytest.raises(DataError, match="needs a picture and an answer"):
        QuestionedData(data.images, data.ids, data.pictures[:3], data.answers)
    with pytest.raises(DataError, match="that is not there"):
        QuestionedData(data.images[:2], data.ids, data.pictures, data.answers)
