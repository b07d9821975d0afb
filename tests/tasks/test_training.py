"""What a step shows, the gradients of labels, and phases that are not for a head."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pocketvl.errors import DataError, RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.layers.blocks import feed_forwards
from pocketvl.network.heads import HeadKind
from pocketvl.tasks.contrastive_training import paired_rows
from pocketvl.tasks.head_training import HeadTraining
from pocketvl.tasks.training import Batches, Learner, PhaseObjective, label_gradients_
from pocketvl.tasks.training_tasks import training_task
from pocketvl.train.batches import SampleOrder
from pocketvl.train.features import FeatureExtractor
from pocketvl.train.phases import Components
from pocketvl.train.samples import LabelSamples, PairSamples
from pocketvl.train.settings import LossWeights, Phase, TrainingSettings
from tests.families.tiny import make_tiny_clip
from tests.families.vilt_folder import make_vilt_folder
from tests.tasks.worlds import components_of, outputs_of, pair_samples, question_samples

IMAGE, TEXT = "image_encoder", "text_encoder"
PAIR = HeadTraining(HeadKind.CONTRASTIVE, (IMAGE, TEXT))
LABELS = HeadTraining(HeadKind.LABELS, ("fusion",))
SETTINGS = TrainingSettings((Phase(3),), batch_size=6)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("training") / "clip")


@pytest.fixture(scope="module")
def vilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vilt_folder(tmp_path_factory.mktemp("training") / "vilt")


def test_mirrored_images_come_with_the_teachers_output_for_them(clip: Path) -> None:
    teacher, samples = open_checkpoint(clip), pair_samples()
    task, component = training_task(teacher.contract), components_of(teacher)[IMAGE]
    outputs, phase = outputs_of(teacher, samples), Phase(3, (IMAGE,))
    batches = Batches(task, samples, outputs, SETTINGS, phase)
    plain, mirrored = {row.tobytes() for row in samples.images}, 0
    for step in range(4):
        batch = batches(step)
        with torch.no_grad():
            assert torch.allclose(component(*batch.inputs[IMAGE]), batch.targets[IMAGE], atol=1e-5)
        mirrored += sum(row.numpy().tobytes() not in plain for row in batch.inputs[IMAGE][0])
    assert 0 < mirrored < 24
    labels = replace(SETTINGS, losses=LossWeights(contrast=1))
    paired = Batches(task, samples, None, labels, Phase(3))
    assert all(row.numpy().tobytes() in plain for step in range(4) for row in paired(step).inputs[IMAGE][0])


def test_questions_are_mirrored_where_no_label_could_become_wrong(vilt: Path) -> None:
    teacher, samples = open_checkpoint(vilt), question_samples()
    task, component = training_task(teacher.contract), components_of(teacher)["fusion"]
    outputs = outputs_of(teacher, samples)
    for losses, mirrored in ((LossWeights(), True), (LossWeights(answer=1), False)):
        settings = replace(SETTINGS, batch_size=12, losses=losses)
        batch = Batches(task, samples, outputs, settings, settings.phases[0])(0)
        plain = torch.from_numpy(samples.images[samples.image_rows])
        assert bool((batch.inputs["fusion"][0] != plain).any()) == mirrored
        with torch.no_grad():  # the teacher's outputs are of the very pixels that are shown
            found = component(*batch.inputs["fusion"])
        assert (found - batch.targets["fusion"]).abs().max() < 1e-4
        assert batch.labels is not None
        assert batch.labels.tolist() == samples.labels.tolist()


def test_images_come_with_their_captions_and_hard_negatives() -> None:
    samples = pair_samples()
    samples = replace(samples, index=[*samples.index[:17], (17,)])  # the last image has no hard negative
    images, texts = paired_rows(samples, SampleOrder(18, 0), 3, negatives=2)
    assert images.tolist() == list(range(18))
    captions, *negatives = texts.reshape(3, 18)
    assert captions.tolist() == images.tolist()
    for row in negatives:
        assert all(int(text) in samples.index[k][1:] for k, text in enumerate(row[:17]))
        assert row[17] != 17


def test_gradients_of_labels_reach_every_layer_and_change_nothing(clip: Path) -> None:
    checkpoint = open_checkpoint(clip)
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    task, components = training_task(checkpoint.contract), components_of(checkpoint)
    label_gradients_(task, checkpoint.model, components, pair_samples(), steps=2, batch_size=6)
    for layer in feed_forwards(checkpoint.model):
        gradient = checkpoint.model.get_parameter(f"{layer.up}.weight").grad
        assert gradient is not None
        assert gradient.abs().sum() > 0
    for name, value in checkpoint.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_gradients_are_those_of_the_right_answers(vilt: Path) -> None:
    checkpoint, samples = open_checkpoint(vilt), question_samples()
    task, components = training_task(checkpoint.contract), components_of(checkpoint)
    label_gradients_(task, checkpoint.model, components, samples, steps=1, batch_size=12)
    found = {name: value.grad for name, value in checkpoint.model.named_parameters()}
    checkpoint.model.zero_grad()
    pixels, ids = torch.from_numpy(samples.images[samples.image_rows]), torch.from_numpy(samples.ids)
    logits = components["fusion"](pixels, ids)
    torch.autograd.backward(F.cross_entropy(logits, torch.from_numpy(samples.labels)))
    for name, value in checkpoint.model.named_parameters():
        gradient = found[name]
        assert gradient is not None
        assert value.grad is not None
        assert torch.allclose(gradient, value.grad, atol=1e-5), name


@pytest.mark.parametrize("kind", ["clip", "vilt"])
def test_padding_is_not_compared(kind: str, request: pytest.FixtureRequest) -> None:
    """Hidden states at padding tokens may be anything; elsewhere they are the teacher's."""
    checkpoint = open_checkpoint(request.getfixturevalue(kind))
    task, name = training_task(checkpoint.contract), "fusion" if kind == "vilt" else TEXT
    samples = question_samples() if kind == "vilt" else pair_samples()
    stack, phase = checkpoint.stack(name).name, Phase(1, (name,))
    losses = LossWeights(response=0, embedding=0, hidden=1)
    batch = Batches(task, samples, None, SETTINGS, phase)(0)
    ids = batch.inputs[name][-1]
    padding = ids == task.pad_id
    if kind == "clip":  # whose first padding token ends the text
        padding[:, 1:] &= padding[:, :-1].clone()
        padding[:, 0] = False
    assert 0 < padding.sum() < ids.numel()

    def hidden(shifted: torch.Tensor) -> float:
        def shift(_: nn.Module, __: object, output: tuple[torch.Tensor, ...] | torch.Tensor) -> object:
            values = output[0] if isinstance(output, tuple) else output
            values = values.clone()
            values[:, : ids.shape[1]][shifted] += 100
            return (values,) if isinstance(output, tuple) else values

        teacher, student = (deepcopy(components_of(checkpoint)[name]) for _ in range(2))
        student.get_submodule(f"{stack}.1").register_forward_hook(shift)
        student, teacher = (FeatureExtractor(each, [f"{stack}.1"]) for each in (student, teacher))
        learners = {name: Learner(student, teacher, checkpoint.stack(name).segments)}
        objective = PhaseObjective(task, learners, losses, is_whole=False, temperature=1)
        module = Components({name: student}, {name: len(batch.inputs[name])})
        return objective(module, batch, 0)["hidden"].item()

    assert hidden(padding) == 0
    assert hidden(~padding) > 1


@pytest.mark.parametrize(
    ("head", "settings", "complaint"),
    [
        (
            PAIR,
            {"phases": (Phase(1, ("fusion",)),)},
            "no component 'fusion', only image_encoder, text_encoder",
        ),
        (PAIR, {"losses": LossWeights(answer=1)}, "losses.answer is for .* has contrast"),
        (PAIR, {"phases": (Phase(1, (IMAGE,), losses=LossWeights(embedding=0)),)}, "all weigh 0"),
        (LABELS, {"phases": (Phase(1, (IMAGE,)),)}, "no component 'image_encoder', only fusion"),
        (LABELS, {"losses": LossWeights(contrast=1)}, "losses.contrast is for .* has answer"),
        (LABELS, {"losses": LossWeights(relation=1)}, "losses.relation compares embeddings"),
        (LABELS, {"losses": LossWeights(response=0)}, "learns from response, hidden, attention or answer"),
    ],
)
def test_phases_that_are_not_for_a_head(head: HeadTraining, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        head.check(replace(SETTINGS, **settings))


def test_components_are_trained_in_the_models_order() -> None:
    assert PAIR.trained(Phase(1, (TEXT, IMAGE))) == (IMAGE, TEXT)
    assert PAIR.is_whole(Phase(1, (TEXT, IMAGE)))
    assert not PAIR.is_whole(Phase(1, (TEXT,)))


def test_a_teacher_is_run_only_where_something_is_distilled_from_it() -> None:
    assert not LABELS.needs_teacher(replace(SETTINGS, losses=LossWeights(response=0, answer=1)))
    assert LABELS.needs_teacher(replace(SETTINGS, losses=LossWeights(response=0, answer=1, hidden=1)))
    labelled = replace(SETTINGS, losses=LossWeights(contrast=1))
    assert PAIR.needs_teacher(labelled)
    assert not PAIR.needs_mirrored(labelled)
    assert PAIR.needs_mirrored(replace(labelled, phases=(Phase(1), Phase(1, (IMAGE,)))))
    assert not PAIR.needs_mirrored(replace(SETTINGS, mirror=False))


@pytest.mark.parametrize(
    "index", [[(0,)] * 17, [(0, 40)] * 18, [()] * 18, [(-1,)] * 18], ids=["few", "far", "none", "negative"]
)
def test_pairs_that_do_not_fit_are_refused(index: list[tuple[int, ...]]) -> None:
    samples = pair_samples()
    with pytest.raises(DataError, match="caption"):
        PairSamples(samples.images, samples.ids, index)


def test_questions_that_do_not_fit_are_refused() -> None:
    samples = question_samples()
    with pytest.raises(DataError, match="needs an image and an answer"):
        LabelSamples(samples.images, samples.ids, samples.index[:3])
    with pytest.raises(DataError, match="that is not there"):
        LabelSamples(samples.images[:2], samples.ids, samples.index)
    with pytest.raises(DataError, match="at least two questions"):
        LabelSamples(samples.images, samples.ids[:1], samples.index[:1])
