"""Quantization-aware training: fake-quantized components are distilled from their float originals."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

from torch import nn

from pocketvl.network.integers import QuantizedComponent
from pocketvl.quantize.learned_component import Finished, QatComponent
from pocketvl.quantize.settings import QatSettings
from pocketvl.tasks.training import Learner, TrainingTask, train_phases
from pocketvl.train.features import FeatureExtractor
from pocketvl.train.phases import begun_digest, claim
from pocketvl.train.samples import TrainingSamples
from pocketvl_runtime.progress import Progress


def train_qat(
    task: TrainingTask,
    modules: Mapping[str, nn.Module],
    components: Mapping[str, QuantizedComponent],
    samples: TrainingSamples,
    settings: QatSettings,
    work: Path,
    progress: Progress | None = None,
) -> dict[str, Finished]:
    """Train fake-quantized components, phase by phase.

    Interrupted, it goes on where it last saved its state; a phase that is through is not run again.

    Args:
        task: of the head.
        modules: by component, the float modules that the integers were made of, folded; left as they are,
            they are the teachers.
        components: their integers, calibrated.
        samples: what they are trained on.
        settings: how.
        work: the folder of states; made if it does not exist, and of this training alone.
        progress: called with step, steps, and the phase's name and losses.

    Returns:
        What each component came to.

    Raises:
        TrainingError: a loss is not finite, or `work` holds the states of another training.
        RecipeError: a phase is not for such a model, or a component has grids that are not learned.
    """
    task.check(settings)
    claim(work, _identity(task, modules, components, samples, settings))
    students, learners = {}, {}
    for name in task.components:
        students[name] = QatComponent(modules[name], components[name], settings.scale_rate)
        teacher = FeatureExtractor(deepcopy(modules[name])).eval().requires_grad_(False)
        learners[name] = Learner(FeatureExtractor(students[name]), teacher)
    train_phases(task, learners, samples, None, settings, work, progress)
    return {name: student.finish() for name, student in students.items()}


def _identity(
    task: TrainingTask,
    modules: Mapping[str, nn.Module],
    components: Mapping[str, QuantizedComponent],
    samples: TrainingSamples,
    settings: QatSettings,
) -> str:
    """A digest of everything that the training depends on."""
    digest = begun_digest([asdict(settings), repr(task)], [modules[name] for name in task.components])
    for name in task.components:
        for layer_name, layer in components[name].layers.items():
            digest.update(f"{layer_name}{layer.spec}{layer.input}{layer.output}".encode())
            digest.update(layer.weights.tobytes() + layer.scale.tobytes())
            for each in (layer.bias, layer.zero_point):
                digest.update(b"" if each is None else each.tobytes())
        digest.update(f"{sorted(components[name].products.items())}".encode())
    digest.update(samples.identity())
    return digest.hexdigest()
