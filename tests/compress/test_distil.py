"""Students are trained: on what their teachers give, on labels, and from where they were stopped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.compress.distil import train_student
from pocketvl.compress.shrink import linear
from pocketvl.compress.sparsity import held_zeros
from pocketvl.errors import DataError, RecipeError, TrainingError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.split_attention import Block, removed_blocks, split_attentions_
from pocketvl.tasks.training import TeacherOutputs, TrainingTask
from pocketvl.tasks.training_tasks import training_task
from pocketvl.train.loop import TrainReport
from pocketvl.train.samples import TrainingSamples
from pocketvl.train.settings import LossWeights, Phase, TrainingSettings
from pocketvl_runtime.progress import Progress
from tests.families.tiny import make_tiny_clip
from tests.families.vilt_folder import LAYER, make_vilt_folder
from tests.tasks.worlds import outputs_of, pair_samples, question_samples

FC1 = "vision_model.encoder.layers.0.mlp.fc1"
IMAGE, TEXT = Phase(3, ("image_encoder",)), Phase(3, ("text_encoder",))
RESPONSE = LossWeights(embedding=0)
SETTINGS = TrainingSettings(
    (IMAGE, TEXT, Phase(3, losses=RESPONSE), Phase(3)), batch_size=6, learning_rate=1e-3, save_every=2
)
EVERYTHING = LossWeights(response=1, embedding=1, relation=0.5, hidden=0.5, attention=0.5, contrast=0.5)
ANSWERS = LossWeights(response=0, answer=1)


@dataclass(frozen=True, eq=False)
class World:
    """A teacher with data, and how it is trained."""

    folder: Path
    teacher: Checkpoint
    task: TrainingTask
    samples: TrainingSamples
    outputs: TeacherOutputs

    def train(
        self,
        student: Checkpoint,
        settings: TrainingSettings,
        work: Path,
        progress: Progress | None = None,
        outputs: bool = True,
        teacher: bool = True,
    ) -> dict[str, TrainReport]:
        return train_student(
            self.task,
            student,
            self.teacher if teacher else None,
            self.samples,
            self.outputs if outputs else None,
            settings,
            work,
            progress,
        )

    def distance(self, student: Checkpoint) -> float:
        """From the teacher, of what the first component gives."""
        found = outputs_of(student, self.samples, mirrored=False)
        port = self.task.output(self.task.components[0])
        return float(np.square(found[port][0] - self.outputs[port][0]).sum())


def _world(folder: Path, samples: TrainingSamples) -> World:
    teacher = open_checkpoint(folder)
    return World(folder, teacher, training_task(teacher.contract), samples, outputs_of(teacher, samples))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> World:
    return _world(make_tiny_clip(tmp_path_factory.mktemp("distil") / "clip"), pair_samples())


@pytest.fixture(scope="module")
def vilt(tmp_path_factory: pytest.TempPathFactory) -> World:
    return _world(make_vilt_folder(tmp_path_factory.mktemp("distil") / "vilt"), question_samples())


def _student(world: World, tmp_path: Path) -> Checkpoint:
    """The teacher with another seed's weights in one layer."""
    make = make_vilt_folder if world.task.components == ("fusion",) else make_tiny_clip
    other, student = open_checkpoint(make(tmp_path / "other", seed=9)), open_checkpoint(world.folder)
    for stack in student.stacks.values():
        name = f"{stack.name}.0" + ("" if make is make_vilt_folder else ".mlp")
        student.model.get_submodule(name).load_state_dict(other.model.get_submodule(name).state_dict())
    return student


def _split(world: World) -> Checkpoint:
    student = open_checkpoint(world.folder)
    segments = student.stack("fusion").segments
    assert segments is not None
    gone = [
        Block(f"{LAYER}.{layer}.attention.attention", "text", "image", head)
        for layer, head in ((0, 0), (0, 1), (1, 0))
    ]
    split_attentions_(student.model, segments, gone)
    return student


@pytest.mark.parametrize(
    ("losses", "phase"),
    [
        (LossWeights(response=0, embedding=1), IMAGE),
        (LossWeights(response=0, embedding=0, relation=1), IMAGE),
        (LossWeights(response=0, embedding=0, hidden=1), IMAGE),
        (LossWeights(response=0, embedding=0, attention=1), IMAGE),
        (LossWeights(response=1, embedding=0), Phase(3)),
        (LossWeights(response=1, embedding=1), Phase(3)),
    ],
)
def test_a_student_comes_nearer_to_its_teacher(
    clip: World, tmp_path: Path, losses: LossWeights, phase: Phase
) -> None:
    student = _student(clip, tmp_path)
    before = clip.distance(student)
    settings = TrainingSettings(
        (replace(phase, steps=20),), batch_size=9, learning_rate=1e-3, mirror=False, losses=losses
    )
    clip.train(student, settings, tmp_path / "work")
    assert clip.distance(student) < 0.8 * before


@pytest.mark.parametrize("loss", ["response", "hidden", "attention"])
def test_a_student_that_answers_comes_nearer_to_its_teacher(vilt: World, tmp_path: Path, loss: str) -> None:
    student = _student(vilt, tmp_path)
    weights = {"response": 0.0, "embedding": 0.0} | {loss: 1.0}
    settings = TrainingSettings(
        (Phase(30),), batch_size=12, learning_rate=3e-3, mirror=False, losses=LossWeights(**weights)
    )
    before = vilt.distance(student)
    (report,) = vilt.train(student, settings, tmp_path / "work").values()
    assert all(set(row) == {loss} for row in report.losses)
    assert report.losses[-1][loss] < 0.5 * report.losses[0][loss]
    assert vilt.distance(student) < before


@pytest.mark.parametrize(("losses", "name"), [(ANSWERS, "answer"), (RESPONSE, "response")])
def test_a_split_student_learns(vilt: World, tmp_path: Path, losses: LossWeights, name: str) -> None:
    student = _split(vilt)
    settings = TrainingSettings((Phase(30),), batch_size=12, learning_rate=3e-3, losses=losses, temperature=2)
    reports = vilt.train(student, settings, tmp_path / "work", outputs=name == "response", teacher=False)
    values = [row[name] for row in reports["1-fusion"].losses]
    assert all(set(row) == {name} for row in reports["1-fusion"].losses)
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:5])
    assert len(removed_blocks(student.model)) == 3


def test_all_losses_together_and_phase_by_phase(clip: World, tmp_path: Path) -> None:
    student = _student(clip, tmp_path)
    settings = replace(SETTINGS, losses=EVERYTHING)
    reports = clip.train(student, settings, tmp_path / "work")
    both = "image_encoder+text_encoder"
    assert {name: len(report.losses) for name, report in reports.items()} == dict.fromkeys(
        ("1-image_encoder", "2-text_encoder", f"3-{both}", f"4-{both}"), 3
    )
    own = {"cosine", "centred", "distance", "angle", "hidden", "attention"}
    assert set(reports["1-image_encoder"].losses[0]) == own
    assert set(reports[f"3-{both}"].losses[0]) == {"response"}
    assert set(reports[f"4-{both}"].losses[0]) == {
        "response",
        "contrast",
        "pairwise",
        *(f"{name}_{loss}" for name in ("image_encoder", "text_encoder") for loss in own),
    }
    assert not any(child.training for child in student.model.modules())


def test_a_phase_has_a_rate_and_a_batch_of_its_own(clip: World, tmp_path: Path) -> None:
    ends = []
    for name, phases in {
        "without": (IMAGE,),
        "slow": (IMAGE, Phase(2, learning_rate=1e-12)),
        "same": (IMAGE, Phase(2)),
        "smaller": (IMAGE, Phase(2, batch_size=3)),
    }.items():
        student = _student(clip, tmp_path)
        clip.train(student, replace(SETTINGS, phases=phases), tmp_path / name)
        ends.append(torch.cat([each.flatten() for each in student.model.state_dict().values()]))
    assert torch.allclose(ends[0], ends[1], atol=1e-7)
    assert not torch.allclose(ends[0], ends[2], atol=1e-4)
    assert not torch.allclose(ends[2], ends[3], atol=1e-4)


def test_labels_alone_need_no_teacher(clip: World, tmp_path: Path) -> None:
    student = open_checkpoint(clip.folder)
    losses = LossWeights(response=0, embedding=0, contrast=1)
    settings = TrainingSettings((Phase(40),), batch_size=18, learning_rate=1e-3, losses=losses)
    (report,) = clip.train(student, settings, tmp_path / "work", outputs=False, teacher=False).values()
    assert sum(report.losses[-1].values()) < 0.7 * sum(report.losses[0].values())


@pytest.mark.parametrize("kind", ["clip", "vilt"])
def test_stopped_and_resumed_it_ends_the_same(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    world: World = request.getfixturevalue(kind)
    losses = EVERYTHING if kind == "clip" else LossWeights(response=1, embedding=0, answer=0.5)
    settings = replace(SETTINGS, losses=losses)
    if kind == "vilt":
        settings = replace(settings, phases=(Phase(2), Phase(6)))
    last = len(settings.phases)
    whole, broken, again = (_student(world, tmp_path) for _ in range(3))
    world.train(whole, settings, tmp_path / "whole")

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith(f"{last}-") and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.train(broken, settings, tmp_path / "broken", stop)
    world.train(again, settings, tmp_path / "broken")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_folder_of_another_training_is_refused(clip: World, tmp_path: Path) -> None:
    clip.train(open_checkpoint(clip.folder), SETTINGS, tmp_path / "work")
    with pytest.raises(TrainingError, match="of another model, other data or settings"):
        clip.train(_student(clip, tmp_path), SETTINGS, tmp_path / "work")


def test_what_is_missing_is_named(clip: World, vilt: World, tmp_path: Path) -> None:
    student = open_checkpoint(clip.folder)
    with pytest.raises(RecipeError, match="only contrast and answer do without"):
        clip.train(student, SETTINGS, tmp_path / "work", outputs=False)
    with pytest.raises(RecipeError, match="need the teacher itself"):
        clip.train(student, replace(SETTINGS, losses=EVERYTHING), tmp_path / "work", teacher=False)
    port = "image_encoder.embedding"
    for name, wrong in (("short", clip.outputs[port][:, :-1]), ("plain", clip.outputs[port][:1])):
        with pytest.raises(DataError, match="outputs of image_encoder are not of this data"):
            replace(clip, outputs={**clip.outputs, port: wrong}).train(student, SETTINGS, tmp_path / name)
    with pytest.raises(DataError, match="outputs of fusion are not of this data"):
        replace(vilt, outputs=clip.outputs).train(
            open_checkpoint(vilt.folder), TrainingSettings((Phase(1),)), tmp_path / "vilt"
        )


def test_zeros_are_held(clip: World, tmp_path: Path) -> None:
    student = open_checkpoint(clip.folder)
    with torch.no_grad():
        linear(student.model, FC1).weight[:, ::2] = 0
    before = linear(student.model, FC1).weight.detach().clone()
    with held_zeros(student.model):
        clip.train(student, SETTINGS, tmp_path / "work")
    after = linear(student.model, FC1).weight
    assert torch.equal(after[:, ::2], before[:, ::2])
    assert (after[:, 1::2] != before[:, 1::2]).any()
    assert type(linear(student.model, FC1)) is nn.Linear
