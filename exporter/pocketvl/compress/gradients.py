"""Gradients and activations of a model on some of its training data, for scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.families.checkpoint import Checkpoint
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.calibration import Calibration
from pocketvl.observe.feeds import BATCH, SAMPLES, feeds_of, tensors_of
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.tasks.training import TrainingTask, label_gradients_
from pocketvl.tasks.training_tasks import training_task
from pocketvl.train.batches import SampleOrder
from pocketvl.train.samples import TrainingSamples


def loss_gradients_(
    checkpoint: Checkpoint,
    data: TrainingSamples,
    samples: int = SAMPLES,
    batch: int = BATCH,
    each: Callable[[], None] | None = None,
) -> None:
    """Accumulate in a model's parameters the gradients of the loss on the data's own labels.

    An encoder by itself has none: there the gradients are of its embeddings along a random direction for each
    sample, and the mean of their squares over batches is how far the embeddings move.

    Args:
        checkpoint: its weights stay as they are.
        data: captions and hard negatives, or questions with their right answers; of an encoder by itself
            what it reads.
        samples: in all.
        batch: samples at a time.
        each: is called after every batch, whose gradients alone are then there; in the end there are none.
    """
    task = training_task(checkpoint.contract)
    if not task.answers:
        _embedding_gradients_(checkpoint, task, data, samples // batch, batch, each)
        return
    components = {name: checkpoint.component(name).module for name in task.components}
    label_gradients_(task, checkpoint.model, components, data, samples // batch, batch, each)


def _embedding_gradients_(
    checkpoint: Checkpoint,
    task: TrainingTask,
    data: TrainingSamples,
    steps: int,
    batch: int,
    each: Callable[[], None] | None,
) -> None:
    """Likewise for embeddings; E[(v J)^2] over v of a standard normal distribution is |J|^2."""
    order, generator = SampleOrder(batch, seed=0), torch.Generator().manual_seed(0)
    checkpoint.model.zero_grad(set_to_none=True)
    (name,) = task.components
    module, kinds = checkpoint.component(name).module, task.kinds(name)
    for step in range(steps):
        found = module(*tensors_of(data.inputs(kinds, order(data.count(kinds), step))))
        directions = torch.randn(found.shape, generator=generator)
        (found * directions).sum().backward()
        if each is not None:
            each()
            checkpoint.model.zero_grad(set_to_none=True)


def input_means(checkpoint: Checkpoint, data: TrainingSamples, component: str) -> dict[str, torch.Tensor]:
    """The mean input of each linear of a component, float64 [inputs], by its name."""
    seen = _observe(checkpoint, data, component, CalibrationSettings())
    return {name: torch.from_numpy(layer.input_mean) for name, layer in seen.layers.items()}


def second_moments(
    checkpoint: Checkpoint, data: TrainingSamples, component: str
) -> dict[str, NDArray[np.float32]]:
    """The mean of x x^T over the inputs of each linear of a component, float32 [inputs, inputs]."""
    seen = _observe(checkpoint, data, component, CalibrationSettings(second_moments=True))
    return {
        name: layer.second_moment for name, layer in seen.layers.items() if layer.second_moment is not None
    }


def _observe(
    checkpoint: Checkpoint, data: TrainingSamples, component: str, settings: CalibrationSettings
) -> Calibration:
    return calibrate(checkpoint.component(component).module, feeds_of(checkpoint, data, component), settings)
