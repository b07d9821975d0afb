"""Gradients and activations of a model on some of its training data, for scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.compress.answering import answer_gradients_
from pocketvl.compress.distil import label_gradients_
from pocketvl.compress.settings import LearningSettings, LossWeights
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.calibration import Calibration
from pocketvl.observe.feeds import BATCH, SAMPLES, feeds_of
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.train.method import TrainingData
from pocketvl.train.questions import QuestionedData

_CAPTIONS = LossWeights(response=0.0, embedding=0.0, contrast=1.0)
_ANSWERS = LossWeights(response=0.0, embedding=0.0, answer=1.0)


def loss_gradients_(
    checkpoint: Checkpoint,
    data: TrainingData,
    samples: int = SAMPLES,
    batch: int = BATCH,
    each: Callable[[], None] | None = None,
) -> None:
    """Leaves in a model's parameters the gradients of the loss on the data's own labels, summed over batches.

    Args:
        checkpoint: its weights stay as they are.
        data: captions and hard negatives, or questions with their right answers.
        samples: in all.
        batch: samples at a time.
        each: is called after every batch, whose gradients alone are then there; in the end there are none.
    """
    losses = _ANSWERS if isinstance(data, QuestionedData) else _CAPTIONS
    settings = LearningSettings(joint_steps=samples // batch, batch_size=batch, losses=losses)
    if isinstance(data, QuestionedData):
        answer_gradients_(checkpoint, data, settings, each)
    else:
        label_gradients_(checkpoint, data, settings, each)


def input_means(checkpoint: Checkpoint, data: TrainingData, component: str) -> dict[str, torch.Tensor]:
    """The mean input of each linear of a component, float64 [inputs], by its name."""
    seen = _observe(checkpoint, data, component, CalibrationSettings())
    return {name: torch.from_numpy(layer.input_mean) for name, layer in seen.layers.items()}


def second_moments(
    checkpoint: Checkpoint, data: TrainingData, component: str
) -> dict[str, NDArray[np.float64]]:
    """The mean of x x^T over the inputs of each linear of a component, float64 [inputs, inputs]."""
    seen = _observe(checkpoint, data, component, CalibrationSettings(second_moments=True))
    return {
        name: layer.second_moment for name, layer in seen.layers.items() if layer.second_moment is not None
    }


def _observe(
    checkpoint: Checkpoint, data: TrainingData, component: str, settings: CalibrationSettings
) -> Calibration:
    return calibrate(checkpoint.component(component).module, feeds_of(checkpoint, data, component), settings)
