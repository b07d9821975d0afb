"""Samples for the tiny models, and what these give for them."""

from __future__ import annotations

import numpy as np
from torch import nn

from pocketvl.families.checkpoint import Checkpoint
from pocketvl.tasks.training import TeacherOutputs, teacher_outputs
from pocketvl.tasks.training_tasks import training_task
from pocketvl.train.samples import LabelSamples, PairSamples, TrainingSamples
from tests.families.tiny import IMAGE_SIZE, TEXT_LENGTH
from tests.families.vilt_folder import vilt_inputs


def pair_samples() -> PairSamples:
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (18, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.uint8)
    ids = chance.integers(0, 380, (40, TEXT_LENGTH)).astype(np.int32)
    ids[:, -2:] = 381
    return PairSamples(images, ids, [(row, 20 + row, 21 + row) for row in range(18)])


def question_samples() -> LabelSamples:
    """Two questions about each of six images."""
    pixels, ids = vilt_inputs(12)
    labels = np.random.default_rng(0).integers(0, 27, 12)
    return LabelSamples(pixels[:6].numpy(), ids.numpy(), [(k // 2, int(labels[k])) for k in range(12)])


def components_of(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    names = training_task(checkpoint.contract).components
    return {name: checkpoint.component(name).module for name in names}


def outputs_of(checkpoint: Checkpoint, samples: TrainingSamples, mirrored: bool = True) -> TeacherOutputs:
    return teacher_outputs(training_task(checkpoint.contract), components_of(checkpoint), samples, mirrored)
