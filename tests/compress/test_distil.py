"""What students learn from, and that they learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.compress.distil import Lessons, TeacherAnswers, label_gradients_, train_student
from pocketvl.compress.settings import LearningSettings, LossWeights
from pocketvl.compress.shrink import linear
from pocketvl.compress.sparsity import held_zeros
from pocketvl.errors import DataError, RecipeError, TrainingError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.blocks import attentions, feed_forwards
from pocketvl.observe.hidden import WatchedTower
from pocketvl.train.distil_losses import attention_loss, hidden_loss, relation_losses, tokens_said
from pocketvl.train.pairs import PairedData
from pocketvl_runtime.manifest import Role
from tests.families.tiny import HIDDEN, IMAGE_SIZE, TEXT_LENGTH, make_tiny_clip

IMAGE, TEXT = Role.IMAGE_ENCODER, Role.TEXT_ENCODER
FC1 = "vision_model.encoder.layers.0.mlp.fc1"
SETTINGS = LearningSettings(
    image_steps=3, text_steps=3, cross_steps=3, joint_steps=3, batch_size=6, learning_rate=1e-3, save_every=2
)
EVERYTHING = LossWeights(response=1, embedding=1, relation=0.5, hidden=0.5, attention=0.5, contrast=0.5)


@pytest.fixture(scope="module")
def data() -> PairedData:
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (18, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.uint8)
    ids = chance.integers(0, 380, (40, TEXT_LENGTH)).astype(np.int32)
    ids[:, -2:] = 381
    return PairedData(images, ids, [(row, 20 + row, 21 + row) for row in range(18)])


@pytest.fixture
def teacher(clip_folder: Path) -> Checkpoint:
    return open_checkpoint(clip_folder)


def _answers(teacher: Checkpoint, data: PairedData) -> TeacherAnswers:
    with torch.no_grad():
        image, text = teacher.tower(IMAGE), teacher.tower(TEXT)
        plain = image(torch.from_numpy(data.images))
        mirrored = image(torch.from_numpy(data.images[:, :, ::-1].copy()))
        return TeacherAnswers(
            torch.stack([plain, mirrored]).numpy(), text(torch.from_numpy(data.ids)).numpy()
        )


def _student(folder: Path, tmp_path: Path) -> Checkpoint:
    """The teacher with another seed's weights in one layer."""
    other = open_checkpoint(make_tiny_clip(tmp_path / "other", seed=9))
    student = open_checkpoint(folder)
    for stack in student.stacks.values():
        name = f"{stack.name}.0.mlp"
        student.model.get_submodule(name).load_state_dict(other.model.get_submodule(name).state_dict())
    return student


def _apart(one: Checkpoint, other: Checkpoint, data: PairedData) -> float:
    with torch.no_grad():
        found = [each.tower(IMAGE)(torch.from_numpy(data.images)) for each in (one, other)]
        return float((found[0] - found[1]).square().sum())


def test_a_watched_tower_shows_its_layers_and_maps(teacher: Checkpoint, data: PairedData) -> None:
    tower = teacher.tower(IMAGE)
    layers = ["vision_model.encoder.layers.0", "vision_model.encoder.layers.1"]
    names = [attentions(tower)[1].name]
    watched = WatchedTower(tower, layers, names, [(HIDDEN, HIDDEN), (HIDDEN, 7)])
    seen = watched(torch.from_numpy(data.images[:2]))
    assert [tuple(each.shape) for each in seen.hidden] == [(2, 17, HIDDEN), (2, 17, 7)]
    assert torch.allclose(seen.attention[0].sum(-1), torch.ones(2, 17), atol=1e-5)
    assert torch.equal(seen.embedding, tower(torch.from_numpy(data.images[:2])))
    assert len(seen.attention) == 1


def test_relations_do_not_care_where_and_how_large_but_how_they_lie() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(7, 5, generator=generator)
    turned, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator))
    same = relation_losses(3 * rows @ turned + 1, rows)
    assert max(float(loss) for loss in same.values()) < 1e-6
    other = relation_losses(torch.randn(7, 5, generator=generator), rows)
    assert min(float(loss) for loss in other.values()) > 1e-2


def test_hidden_and_attention_losses_are_those_of_their_sources() -> None:
    generator = torch.Generator().manual_seed(1)
    wanted = 5 * torch.randn(4, 3, 6, generator=generator)
    assert hidden_loss((wanted,), (wanted,)) == 0
    assert hidden_loss((wanted.mean((0, 1)).expand(4, 3, 6),), (wanted,)) == pytest.approx(1.0)
    ids = torch.tensor([[7, 9, 9], [7, 5, 9], [7, 5, 5], [5, 7, 9]])  # 9 ends a text, and fills it up
    counts = tokens_said(ids, 9)
    assert counts.tolist() == [[True, True, False], [True] * 3, [True] * 3, [True] * 3]
    filled = wanted.clone()
    filled[0, 2] = 100.0
    assert hidden_loss((filled,), (wanted,), counts) == 0
    assert hidden_loss((filled,), (wanted,)) > 1
    wrong = wanted.clone()
    wrong[0, 1] = 100.0
    assert hidden_loss((wrong,), (wanted,), counts) > 1
    maps = torch.softmax(torch.randn(2, 3, 3, generator=generator), -1)
    others = maps.clone()
    others[0, 2] = 1 / 3
    assert float(attention_loss((others,), (maps,), counts[:2])) == pytest.approx(0, abs=1e-7)
    assert float(attention_loss((others,), (maps,))) > 1e-3
    assert float(attention_loss((maps,), (maps,))) == pytest.approx(0, abs=1e-7)
    uniform = torch.full_like(maps, 1 / 3)
    entropy = -(maps * maps.log()).sum(-1).mean()
    assert float(attention_loss((uniform,), (maps,))) == pytest.approx(float(np.log(3) - entropy), rel=1e-4)


def test_mirrored_pictures_come_with_the_teachers_answer_to_them(
    teacher: Checkpoint, data: PairedData
) -> None:
    lessons = Lessons(data, _answers(teacher, data), SETTINGS)
    mirrored = 0
    for step in range(4):
        batch = lessons.images(step)
        with torch.no_grad():
            assert torch.allclose(teacher.tower(IMAGE)(batch.inputs), batch.wanted, atol=1e-5)
        plain = {row.tobytes() for row in data.images}
        mirrored += sum(row.numpy().tobytes() not in plain for row in batch.inputs)
    assert 0 < mirrored < 24
    labels = Lessons(data, None, replace(SETTINGS, losses=LossWeights(contrast=1)))
    assert all(row.numpy().tobytes() in plain for step in range(4) for row in labels.pairs(step).pixels)


@pytest.mark.parametrize(
    ("losses", "phase"),
    [
        (LossWeights(response=0, embedding=1), "image_steps"),
        (LossWeights(response=0, embedding=0, relation=1), "image_steps"),
        (LossWeights(response=0, embedding=0, hidden=1), "image_steps"),
        (LossWeights(response=1, embedding=0), "cross_steps"),
        (LossWeights(response=1, embedding=1), "joint_steps"),
    ],
)
def test_a_student_comes_nearer_to_its_teacher(
    clip_folder: Path,
    teacher: Checkpoint,
    data: PairedData,
    tmp_path: Path,
    losses: LossWeights,
    phase: str,
) -> None:
    student = _student(clip_folder, tmp_path)
    before = _apart(student, teacher, data)
    steps = {"image_steps": 0, "text_steps": 0, "cross_steps": 0, "joint_steps": 0, phase: 20}
    plain = LearningSettings(joint_steps=1, batch_size=9, learning_rate=1e-3, mirror=False)
    settings = replace(plain, losses=losses, **steps)  # type: ignore[arg-type]
    train_student(student, teacher, data, _answers(teacher, data), settings, tmp_path / "work")
    assert _apart(student, teacher, data) < 0.8 * before


def test_all_losses_together_and_phase_by_phase(
    clip_folder: Path, teacher: Checkpoint, data: PairedData, tmp_path: Path
) -> None:
    student = _student(clip_folder, tmp_path)
    settings = replace(SETTINGS, losses=EVERYTHING)
    reports = train_student(student, teacher, data, _answers(teacher, data), settings, tmp_path / "work")
    assert {name: len(report.losses) for name, report in reports.items()} == dict.fromkeys(
        ("image", "text", "cross", "joint"), 3
    )
    assert set(reports["image"].losses[0]) == {
        "cosine",
        "centred",
        "distance",
        "angle",
        "hidden",
        "attention",
    }
    assert set(reports["cross"].losses[0]) == {"response"}
    assert {"response", "contrast", "pairwise", "image_hidden", "text_attention"} <= set(
        reports["joint"].losses[0]
    )
    assert not any(child.training for child in student.model.modules())


def test_both_towers_together_learn_at_a_rate_of_their_own(
    clip_folder: Path, teacher: Checkpoint, data: PairedData, tmp_path: Path
) -> None:
    ends = []
    for name, changed in (("without", {"joint_steps": 0}), ("slow", {"joint_rate": 1e-12}), ("same", {})):
        student = _student(clip_folder, tmp_path)
        settings = replace(SETTINGS, cross_steps=0, **changed)
        train_student(student, teacher, data, _answers(teacher, data), settings, tmp_path / name)
        ends.append(torch.cat([each.flatten() for each in student.model.state_dict().values()]))
    assert torch.allclose(ends[0], ends[1], atol=1e-7)
    assert not torch.allclose(ends[0], ends[2], atol=1e-4)


def test_labels_alone_need_no_teacher(clip_folder: Path, data: PairedData, tmp_path: Path) -> None:
    student = open_checkpoint(clip_folder)
    losses = LossWeights(response=0, embedding=0, contrast=1)
    settings = LearningSettings(joint_steps=40, batch_size=18, learning_rate=1e-3, losses=losses)
    reports = train_student(student, None, data, None, settings, tmp_path / "work")["joint"].losses
    assert sum(reports[-1].values()) < 0.7 * sum(reports[0].values())


def test_stopped_and_gone_on_it_ends_the_same(
    clip_folder: Path, teacher: Checkpoint, data: PairedData, tmp_path: Path
) -> None:
    answers, settings = _answers(teacher, data), replace(SETTINGS, losses=EVERYTHING)
    whole, broken = _student(clip_folder, tmp_path), _student(clip_folder, tmp_path)
    train_student(whole, teacher, data, answers, settings, tmp_path / "whole")

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("joint") and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(broken, teacher, data, answers, settings, tmp_path / "broken", stop)
    again = _student(clip_folder, tmp_path)
    train_student(again, teacher, data, answers, settings, tmp_path / "broken")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_folder_of_another_training_is_refused(
    clip_folder: Path, teacher: Checkpoint, data: PairedData, tmp_path: Path
) -> None:
    answers = _answers(teacher, data)
    train_student(open_checkpoint(clip_folder), teacher, data, answers, SETTINGS, tmp_path / "work")
    with pytest.raises(TrainingError, match="of another model, other data or settings"):
        train_student(_student(clip_folder, tmp_path), teacher, data, answers, SETTINGS, tmp_path / "work")


def test_what_is_missing_is_named(
    clip_folder: Path, teacher: Checkpoint, data: PairedData, tmp_path: Path
) -> None:
    student, answers = open_checkpoint(clip_folder), _answers(teacher, data)
    with pytest.raises(RecipeError, match="only contrast does without"):
        train_student(student, teacher, data, None, SETTINGS, tmp_path / "work")
    with pytest.raises(RecipeError, match="need the teacher itself"):
        train_student(student, None, data, answers, replace(SETTINGS, losses=EVERYTHING), tmp_path / "work")
    short = TeacherAnswers(answers.images[:, :-1], answers.texts)
    with pytest.raises(DataError, match="not of this data"):
        train_student(student, teacher, data, short, SETTINGS, tmp_path / "work")


def test_zeros_are_held(clip_folder: Path, teacher: Checkpoint, data: PairedData, tmp_path: Path) -> None:
    student = open_checkpoint(clip_folder)
    with torch.no_grad():
        linear(student.model, FC1).weight[:, ::2] = 0
    before = linear(student.model, FC1).weight.detach().clone()
    with held_zeros(student.model):
        train_student(student, teacher, data, _answers(teacher, data), SETTINGS, tmp_path / "work")
    after = linear(student.model, FC1).weight
    assert torch.equal(after[:, ::2], before[:, ::2])
    assert (after[:, 1::2] != before[:, 1::2]).any()
    assert type(linear(student.model, FC1)) is nn.Linear


def test_gradients_of_labels_reach_every_layer_and_change_nothing(
    teacher: Checkpoint, data: PairedData
) -> None:
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    losses = LossWeights(response=0, embedding=0, contrast=1)
    label_gradients_(teacher, data, LearningSettings(joint_steps=2, batch_size=6, losses=losses))
    for layer in feed_forwards(teacher.model):
        gradient = linear(teacher.model, layer.up).weight.grad
        assert gradient is not None
        assert gradient.abs().sum() > 0
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_steps": -1}, "image_steps: .* 0, not -1"),
        (
            {"image_steps": 0, "text_steps": 0, "cross_steps": 0, "joint_steps": 0},
            "one at least of image_steps",
        ),
        ({"batch_size": 2}, "batch_size: .* 3, not 2"),
        ({"learning_rate": 0.0}, "learning_rate: .*greater than 0, not 0.0"),
        ({"joint_rate": 0.0}, "joint_rate: .*greater than 0, not 0.0"),
        ({"negatives": -1}, "negatives: .* 0, not -1"),
        ({"seed": -1}, "seed: .* 0, not -1"),
        ({"save_every": 0}, "save_every: .* 1, not 0"),
        ({"losses": LossWeights(embedding=0)}, "learns from embedding"),
        ({"image_steps": 0, "text_steps": 0, "losses": LossWeights(response=0)}, "weighs 0"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        replace(SETTINGS, **change)  # type: ignore[arg-type]


def test_weights_that_cannot_be() -> None:
    with pytest.raises(RecipeError, match="hidden: .* 0, not -1"):
        LossWeights(hidden=-1)
    with pytest.raises(RecipeError, match="nothing would be learned"):
        LossWeights(response=0, embedding=0)
