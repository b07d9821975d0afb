"""Distillation of a student from a teacher: component by component, then the whole model.

Sources: Hinton et al., 2015 (arXiv 1503.02531); for dual encoders Wu et al., 2023, "TinyCLIP" (arXiv
2309.12314); each loss names its own. Fine-tuning on the data's labels is the same training without a teacher.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
from accelerate.utils import set_seed
from torch import nn

from pocketvl.errors import RecipeError
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.blocks import attentions
from pocketvl.tasks.training import Learner, TeacherOutputs, TrainingTask, train_phases
from pocketvl.train.features import FeatureExtractor
from pocketvl.train.loop import TrainReport
from pocketvl.train.phases import begun_digest, claim
from pocketvl.train.samples import TrainingSamples
from pocketvl.train.settings import TrainingSettings
from pocketvl_runtime.progress import Progress


def train_student(
    task: TrainingTask,
    student: Checkpoint,
    teacher: Checkpoint | None,
    samples: TrainingSamples,
    outputs: TeacherOutputs | None,
    settings: TrainingSettings,
    work: Path,
    progress: Progress | None = None,
) -> dict[str, TrainReport]:
    """Train a student in place, phase by phase; interrupted, it goes on where it last saved its state.

    Args:
        task: of its head.
        student: what is trained.
        teacher: needed where hidden states or attention maps are compared.
        samples: what it is trained on.
        outputs: the teacher's, needed for every loss but those of the data's labels.
        settings: how.
        work: the folder of states; made if it does not exist, and of this training alone.
        progress: called with step, steps, and the phase's name and losses.

    Returns:
        The losses of each phase, by its name.

    Raises:
        TrainingError: a loss is not finite, or `work` holds the states of another training.
        RecipeError: a phase is not for such a model, or a teacher is needed and there is none.
        DataError: the outputs are not of these samples.
    """
    task.check(settings)
    if task.needs_teacher(settings) and outputs is None:
        raise RecipeError("these losses need a teacher's outputs: only contrast and answer do without")
    if settings.runs_teacher and teacher is None:
        raise RecipeError("hidden states and attention maps need the teacher itself")
    claim(work, _identity(student, teacher, samples, outputs, settings))
    set_seed(settings.seed)  # of what the projections begin with
    learners = {name: _learner(student, teacher, name, settings) for name in task.components}
    with ExitStack() as stack:
        for learner in learners.values():
            for extractor in (learner.student, learner.teacher):
                if extractor is not None:
                    stack.callback(extractor.close)
        reports = train_phases(task, learners, samples, outputs, settings, work, progress)
    student.model.to("cpu").train(False)
    return reports


def _learner(
    student: Checkpoint, teacher: Checkpoint | None, name: str, settings: TrainingSettings
) -> Learner:
    """A student component and, where it runs, its teacher's, with hooks on the matched layers."""
    module = student.component(name).module
    if teacher is None or not settings.runs_teacher:
        return Learner(FeatureExtractor(module))
    weights = [settings.losses_of(phase) for phase in settings.phases]
    own, others = (_layer_names(each, name) for each in (student, teacher))
    matched = [others[-(-(index + 1) * len(others) // len(own)) - 1] for index in range(len(own))]
    maps: list[list[str]] = [[], []]
    if any(each.attention > 0 for each in weights):
        maps = [_attention_names(*each) for each in ((student, own), (teacher, matched))]
    if all(each.hidden == 0 for each in weights):
        own, matched = [], []
    widths = tuple(each.stack(name).width for each in (student, teacher))
    extractor = FeatureExtractor(module, own, maps[0], [(widths[0], widths[1])] * len(own))
    shown = FeatureExtractor(teacher.component(name).module, matched, maps[1])
    shown.train(False)
    return Learner(extractor, shown.requires_grad_(False), student.stack(name).segments)


def _layer_names(checkpoint: Checkpoint, name: str) -> list[str]:
    stack = checkpoint.stack(name).name
    layers = checkpoint.model.get_submodule(stack)
    assert isinstance(layers, nn.ModuleList)
    return [f"{stack}.{index}" for index in range(len(layers))]


def _attention_names(checkpoint: Checkpoint, layers: list[str]) -> list[str]:
    """Names of the attentions in these layers, found in the model before factorisation."""
    names = [each.name for each in attentions(checkpoint.original())]
    return [name for layer in layers for name in names if name.startswith(f"{layer}.")]


def _identity(
    student: Checkpoint,
    teacher: Checkpoint | None,
    samples: TrainingSamples,
    outputs: TeacherOutputs | None,
    settings: TrainingSettings,
) -> str:
    """A digest of everything that the training depends on."""
    models = [checkpoint.model for checkpoint in (student, teacher) if checkpoint is not None]
    digest = begun_digest(asdict(settings), models)
    digest.update(samples.identity())
    for port, values in (outputs or {}).items():
        digest.update(port.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
