"""Training written once for every kind of head: batches, teacher outputs, losses, phases.

A training task is what a kind of head adds: which rows of the data a step sees, the response of the head, and
the losses of the data's own labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.families.layers.plain import first_output
from pocketvl.families.layers.segments import Segments
from pocketvl.network.ports import ComponentPorts, PortKind
from pocketvl.tasks.head_training import HeadTraining, label_settings
from pocketvl.train.batches import SampleOrder, half_mirrored, mirror
from pocketvl.train.distil_losses import (
    attention_loss,
    embedding_losses,
    hidden_loss,
    relation_losses,
    token_mask,
)
from pocketvl.train.features import FeatureExtractor, Features
from pocketvl.train.loop import Losses, Trainer, TrainReport
from pocketvl.train.phases import Components, named
from pocketvl.train.samples import TrainingSamples
from pocketvl.train.settings import LossWeights, Phase, TrainingSettings
from pocketvl_runtime.progress import Progress

TeacherOutputs: TypeAlias = Mapping[str, NDArray[np.float32]]
"""By port, "image_encoder.embedding": float32 [1 or 2, N, ...], of all rows that the component has in the
data; the second is of mirrored images."""
Inputs: TypeAlias = tuple[torch.Tensor, ...]
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step shows.

    Attributes:
        inputs: by component, in the order of its ports.
        targets: the teacher's output of each component; none where it is run along, or not needed.
        labels: int64 [B]: of a head of labels, the right answers; of a contrastive head, equal numbers where
            captions are equal, or None where no two are.
    """

    inputs: Mapping[str, Inputs]
    targets: Mapping[str, torch.Tensor]
    labels: torch.Tensor | None = None


@dataclass(frozen=True)
class TrainingTask(HeadTraining, ABC):
    """A head as it is trained.

    Attributes:
        ports: of its components.
        pad_id: the padding token of texts.
    """

    ports: Mapping[str, ComponentPorts]
    pad_id: int

    @abstractmethod
    def rows(
        self, samples: TrainingSamples, names: tuple[str, ...], order: SampleOrder, step: int, negatives: int
    ) -> Mapping[str, NDArray[np.int64]]:
        """The rows that a step shows to each of the components `names`."""

    @abstractmethod
    def response(
        self, outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        """KL divergence of what the head makes of the outputs, teacher to student."""

    @abstractmethod
    def label_losses(self, outputs: Mapping[str, torch.Tensor], labels: torch.Tensor | None) -> Losses:
        """The losses of the data's own labels."""

    def labels(self, samples: TrainingSamples, rows: Mapping[str, NDArray[np.int64]]) -> torch.Tensor | None:
        """The labels of those rows, where they are not in how rows are arranged."""
        return None

    def kinds(self, name: str) -> tuple[PortKind, ...]:
        """What a component's inputs carry."""
        return tuple(port.kind for port in self.ports[name].inputs)

    def output(self, name: str) -> str:
        """The port of a component's output."""
        return f"{name}.{self.ports[name].outputs[0].name}"


@dataclass(frozen=True, eq=False)
class Learner:
    """A component that is trained.

    Attributes:
        student: the component.
        teacher: the teacher's, frozen, where it is run along.
        segments: of the sequence in the component's layers, where it is made of text and image.
    """

    student: FeatureExtractor
    teacher: FeatureExtractor | None = None
    segments: Segments | None = None


class Batches:
    """What each step of a phase shows; a function of the step alone."""

    def __init__(
        self,
        task: TrainingTask,
        samples: TrainingSamples,
        outputs: TeacherOutputs | None,
        settings: TrainingSettings,
        phase: Phase,
    ) -> None:
        """Args: outputs: the teacher's; None where it is run along, or nothing is distilled from it.

        Raises:
            DataError: the teacher outputs are not of these samples.
        """
        self._task, self._samples, self._outputs = task, samples, outputs
        self._names, self._mirrors = task.trained(phase), task.mirrors(settings, phase)
        self._order = SampleOrder(phase.batch_size or settings.batch_size, settings.seed)
        self._negatives, self._seed = settings.negatives, settings.seed
        for name in self._names if outputs is not None else ():
            kinds, found = task.kinds(name), outputs.get(task.output(name)) if outputs else None
            ways = 1 + (self._mirrors and PortKind.PIXELS in kinds)
            if found is None or len(found) < ways or found.shape[1] != samples.count(kinds):
                raise DataError(f"the teacher outputs of {name} are not of this data")

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        rows = self._task.rows(self._samples, self._names, self._order, step, self._negatives)
        inputs, targets = {}, {}
        for name, chosen in rows.items():
            kinds = self._task.kinds(name)
            mirrored = half_mirrored(self._seed, step, len(chosen)) & self._mirrors
            mirrored &= PortKind.PIXELS in kinds
            inputs[name] = read_inputs(self._samples, kinds, chosen, mirrored)
            if self._outputs is not None:
                found = self._outputs[self._task.output(name)]
                targets[name] = torch.from_numpy(found[mirrored.astype(np.int64), chosen])
        return Batch(inputs, targets, self._task.labels(self._samples, rows))


def read_inputs(
    samples: TrainingSamples,
    kinds: tuple[PortKind, ...],
    rows: NDArray[np.int64],
    mirrored: NDArray[np.bool_],
) -> Inputs:
    """Some rows of a component's inputs; `mirrored`, bool [rows], says of which the image is mirrored."""
    found = [torch.from_numpy(np.ascontiguousarray(each)) for each in samples.inputs(kinds, rows)]
    return tuple(
        mirror(values, torch.from_numpy(mirrored)) if kind is PortKind.PIXELS else values
        for kind, values in zip(kinds, found, strict=True)
    )


@dataclass(frozen=True, eq=False)
class PhaseObjective:
    """The losses of a phase: the head's response, those of each component, and the data's own labels.

    Attributes:
        task: of the head.
        learners: the components that are trained, in the model's order.
        losses: their weights.
        is_whole: whether they are all that the head needs.
        temperature: of the softmaxes that are compared.
    """

    task: TrainingTask
    learners: Mapping[str, Learner]
    losses: LossWeights
    is_whole: bool
    temperature: float

    def __call__(self, module: nn.Module, batch: Batch, step: int) -> Losses:
        device = next(module.parameters()).device
        inputs = {name: tuple(each.to(device) for each in batch.inputs[name]) for name in self.learners}
        flat = [each for values in inputs.values() for each in values]
        found: Mapping[str, Features] = dict(zip(self.learners, module(*flat), strict=True))
        shown = self._shown(inputs, batch)
        outputs = {name: each.output.float() for name, each in found.items()}
        targets = {name: each.to(device) for name, each in batch.targets.items()}
        targets = targets or {name: each.output for name, each in shown.items()}
        losses: dict[str, torch.Tensor] = {}
        if self.is_whole and self.task.answers and self.losses.response > 0:
            response = self.task.response(outputs, targets, self.temperature)
            losses["response"] = self.losses.response * response
        for name in self.learners:
            own = self._own(name, inputs[name], found[name], targets.get(name), shown.get(name))
            losses |= {f"{name}_{key}" if len(found) > 1 else key: loss for key, loss in own.items()}
        weight = self.task.label_weight(self.losses) if self.is_whole else 0.0
        if weight > 0:
            labels = None if batch.labels is None else batch.labels.to(device)
            for key, loss in self.task.label_losses(outputs, labels).items():
                losses[key] = weight * loss
        return losses

    def _shown(self, inputs: Mapping[str, Inputs], batch: Batch) -> Mapping[str, Features]:
        """What the teacher makes of a batch, where its outputs are not known or not enough."""
        if not self.task.distils(self.losses) or (batch.targets and not self.losses.runs_teacher):
            return {}
        with torch.no_grad():
            return {
                name: learner.teacher.to(inputs[name][0].device)(*inputs[name])
                for name, learner in self.learners.items()
                if learner.teacher is not None
            }

    def _own(
        self,
        name: str,
        inputs: Inputs,
        found: Features,
        target: torch.Tensor | None,
        shown: Features | None,
    ) -> Losses:
        """The losses of a component by itself."""
        weights, losses = self.losses, {}
        if target is not None and self.task.embeds:
            if weights.embedding > 0:
                for key, loss in embedding_losses(found.output.float(), target).items():
                    losses[key] = weights.embedding * loss
            if weights.relation > 0:
                for key, loss in relation_losses(found.output.float(), target).items():
                    losses[key] = weights.relation * loss
        if shown is not None and weights.runs_teacher:
            counted = self._counted(name, inputs)
            if weights.hidden > 0:
                losses["hidden"] = weights.hidden * hidden_loss(found.hidden, shown.hidden, counted)
            if weights.attention > 0:
                maps = attention_loss(found.attention, shown.attention, counted)
                losses["attention"] = weights.attention * maps
        return losses

    def _counted(self, name: str, inputs: Inputs) -> torch.Tensor | None:
        """The tokens that are compared, bool [B, T]: all but padding; None: all."""
        kinds, segments = self.task.kinds(name), self.learners[name].segments
        if PortKind.TOKEN_IDS not in kinds:
            return None
        ids = inputs[kinds.index(PortKind.TOKEN_IDS)]
        if segments is None:
            return token_mask(ids, self.task.pad_id)
        counted = torch.ones(len(ids), segments.total, dtype=torch.bool, device=ids.device)
        counted[:, segments.slices()["text"]] = ids != self.task.pad_id
        return counted


def train_phases(
    task: TrainingTask,
    learners: Mapping[str, Learner],
    samples: TrainingSamples,
    outputs: TeacherOutputs | None,
    settings: TrainingSettings,
    work: Path,
    progress: Progress | None = None,
) -> dict[str, TrainReport]:
    """Trains components in place, phase by phase; interrupted, it goes on where it last saved its state.

    Args:
        task: of the head.
        learners: its components, in the model's order.
        samples: what they are trained on.
        outputs: the teacher's; None where it is run along, or nothing is distilled from it.
        settings: how.
        work: the folder of states, of this training alone.
        progress: called with step, steps, and the phase's name and losses.

    Returns:
        The losses of each phase, by its name: its number and its components, "2-text_encoder".

    Raises:
        TrainingError: a loss is not finite.
        RecipeError: a phase is not for such a head.
        DataError: the teacher outputs are not of these samples.
    """
    task.check(settings)
    planned = [
        Batches(task, samples, outputs if task.distils(settings.losses_of(phase)) else None, settings, phase)
        for phase in settings.phases
    ]
    reports = {}
    for number, (phase, batches) in enumerate(zip(settings.phases, planned, strict=True), start=1):
        chosen = {each: learners[each] for each in task.trained(phase)}
        name = f"{number}-{'+'.join(chosen)}"
        objective = PhaseObjective(
            task, chosen, settings.losses_of(phase), task.is_whole(phase), settings.temperature
        )
        trainer = Trainer(_joined(task, chosen), batches, objective, settings.loop(phase), work / name)
        reports[name] = trainer.run(named(name, progress))
    return reports


def label_gradients_(
    task: TrainingTask,
    model: nn.Module,
    components: Mapping[str, nn.Module],
    samples: TrainingSamples,
    steps: int,
    batch_size: int,
    each: Callable[[], None] | None = None,
) -> None:
    """Leaves in a model's parameters the gradients of the labels' loss, summed over batches.

    They are what Taylor scores need; against the teacher itself, which the student still is, they would be 0.

    Args:
        task: of the head.
        model: whose gradients are taken off first; its weights stay as they are.
        components: of the model, by name.
        samples: with the labels.
        steps: how many batches.
        batch_size: samples of each.
        each: is called after every batch, whose gradients alone are then there; in the end there are none.
    """
    settings = label_settings(task.kind, steps, batch_size)
    (phase,) = settings.phases
    learners = {name: Learner(FeatureExtractor(components[name])) for name in task.components}
    objective = PhaseObjective(task, learners, settings.losses, True, settings.temperature)
    batches, module = Batches(task, samples, None, settings, phase), _joined(task, learners)
    model.zero_grad(set_to_none=True)
    for step in range(steps):
        losses = objective(module, batches(step), step)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        if each is not None:
            each()
            model.zero_grad(set_to_none=True)


def teacher_outputs(
    task: TrainingTask,
    components: Mapping[str, nn.Module],
    samples: TrainingSamples,
    mirrored: bool,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
    """What a model gives for all rows of the data.

    Args:
        task: of its head.
        components: by name, in eval mode, on any device.
        samples: what they are shown.
        mirrored: show images mirrored, too.
        progress: called with rows done, rows in all, and what is being done.

    Returns:
        As `TeacherOutputs`.
    """
    counts = {name: samples.count(task.kinds(name)) for name in task.components}
    ways = {name: 1 + (mirrored and PortKind.PIXELS in task.kinds(name)) for name in task.components}
    done, total = 0, sum(counts[name] * ways[name] for name in counts)
    found = {}
    for name, count in counts.items():
        device, kinds = next(components[name].parameters()).device, task.kinds(name)
        parts = []
        for way in range(ways[name]):
            for start in range(0, count, _BATCH):
                rows = np.arange(start, min(start + _BATCH, count))
                inputs = read_inputs(samples, kinds, rows, np.full(len(rows), way == 1))
                with torch.inference_mode():
                    values = first_output(components[name](*(each.to(device) for each in inputs)))
                parts.append(values.float().cpu().numpy())
                done += len(rows)
                if progress is not None:
                    progress(done, total, "running the teacher")
        whole = np.concatenate(parts)
        found[task.output(name)] = whole.reshape(ways[name], count, *whole.shape[1:])
    return found


def _joined(task: TrainingTask, learners: Mapping[str, Learner]) -> Components:
    """The students as one module."""
    return Components(
        {name: each.student for name, each in learners.items()},
        {name: len(task.kinds(name)) for name in learners},
    )
