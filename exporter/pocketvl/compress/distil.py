"""Distillation: a student learns from its teacher, each tower alone, then what joins them, then everything.

Sources: Hinton et al., 2015 (arXiv 1503.02531); for dual encoders Wu et al., 2023, "TinyCLIP" (arXiv
2309.12314); each loss names its own. Fine-tuning on the data's labels is the same training without a teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import nn

from pocketvl.compress.settings import LearningSettings, LossWeights
from pocketvl.errors import DataError, RecipeError
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.blocks import attentions
from pocketvl.observe.hidden import Seen, WatchedTower
from pocketvl.train.contrast import contrastive_loss, pairwise_loss
from pocketvl.train.distil_losses import (
    affinity_loss,
    attention_loss,
    hidden_loss,
    relation_losses,
    tokens_said,
    tower_losses,
)
from pocketvl.train.loop import BatchT, Losses, Objective, Progress, TrainReport
from pocketvl.train.pairs import PairedData, SampleOrder, half_mirrored, mirror, pairing, rows_of
from pocketvl.train.phases import Phases, TowerPair, begun_digest, claim
from pocketvl.train.settings import LoopSettings
from pocketvl_runtime.manifest import Role


@dataclass(frozen=True, eq=False)
class TeacherAnswers:
    """What a teacher says of all of the data, once and for all.

    Attributes:
        images: float32 [2, N, D], L2-normalised: the pictures as they are, and mirrored.
        texts: float32 [M, D].
    """

    images: NDArray[np.float32]
    texts: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TowerBatch:
    """Inputs of one tower, and the teacher's embeddings [B, D] of them."""

    inputs: torch.Tensor
    wanted: torch.Tensor


@dataclass(frozen=True, eq=False)
class JointBatch:
    """Pictures with their texts, as in `Pairing`, and the teacher's embeddings of both."""

    pixels: torch.Tensor
    ids: torch.Tensor
    images: torch.Tensor
    texts: torch.Tensor


class Lessons:
    """What each step shows; a function of the step alone."""

    def __init__(self, data: PairedData, answers: TeacherAnswers | None, settings: LearningSettings) -> None:
        """Args: answers: may be left out where nothing is learned from them."""
        if answers is not None and (
            answers.images.shape[:2] != (2, len(data.images)) or len(answers.texts) != len(data.ids)
        ):
            raise DataError("the teacher's answers are not of this data")
        self._data, self._answers, self._settings = data, answers, settings
        self._order = SampleOrder(settings.batch_size, settings.seed)

    def images(self, step: int) -> TowerBatch:
        """Pictures, half of them mirrored."""
        places = self._order(len(self._data.images), step)
        flipped = self._mirrored(len(places), step)
        pixels = mirror(rows_of(self._data.images, places), torch.from_numpy(flipped))
        return TowerBatch(pixels, self._wanted_images(places, flipped))

    def texts(self, step: int) -> TowerBatch:
        """Texts."""
        places = self._order(len(self._data.ids), step)
        return TowerBatch(rows_of(self._data.ids, places), self._wanted_texts(places))

    def pairs(self, step: int) -> JointBatch:
        """Pictures, half of them mirrored unless labels matter, with their captions and false ones."""
        found = pairing(self._data, self._order, step, self._settings.negatives)
        flipped = self._mirrored(len(found.images), step)
        if self._settings.losses.contrast > 0:
            flipped[:] = False
        pixels = mirror(found.pixels, torch.from_numpy(flipped))
        images, texts = self._wanted_images(found.images, flipped), self._wanted_texts(found.texts)
        return JointBatch(pixels, found.ids, images, texts)

    def _mirrored(self, count: int, step: int) -> NDArray[np.bool_]:
        return half_mirrored(self._settings.seed, step, count) & self._settings.mirror

    def _wanted_images(self, places: NDArray[np.int64], flipped: NDArray[np.bool_]) -> torch.Tensor:
        if self._answers is None:
            return torch.zeros(len(places), 0)
        return torch.from_numpy(self._answers.images[flipped.astype(np.int64), places])

    def _wanted_texts(self, places: NDArray[np.int64]) -> torch.Tensor:
        if self._answers is None:
            return torch.zeros(len(places), 0)
        return torch.from_numpy(self._answers.texts[places])


@dataclass(frozen=True, eq=False)
class TowerObjective:
    """One tower against its teacher.

    Attributes:
        weights: of the losses.
        teacher: the teacher's tower, watched, where more than its embeddings is learned from.
        pad_id: of a text tower, what fills up short texts; it is not compared.
    """

    weights: LossWeights
    teacher: WatchedTower | None = None
    pad_id: int | None = None

    def __call__(self, module: nn.Module, batch: TowerBatch, step: int) -> Losses:
        device = next(module.parameters()).device
        inputs = batch.inputs.to(device)
        return self.losses(module(inputs), inputs, batch.wanted.to(device))

    def losses(self, found: Seen, inputs: torch.Tensor, wanted: torch.Tensor) -> Losses:
        """What a tower lacks; `wanted` is the teacher's embedding of these inputs."""
        weights, losses = self.weights, {}
        if weights.embedding > 0:
            for name, loss in tower_losses(found.embedding, wanted).items():
                losses[name] = weights.embedding * loss
        if weights.relation > 0:
            for name, loss in relation_losses(found.embedding, wanted).items():
                losses[name] = weights.relation * loss
        if self.teacher is not None:
            with torch.no_grad():
                shown = self.teacher.to(inputs.device)(inputs)
            counts = None if self.pad_id is None else tokens_said(inputs, self.pad_id)
            if weights.hidden > 0:
                losses["hidden"] = weights.hidden * hidden_loss(found.hidden, shown.hidden, counts)
            if weights.attention > 0:
                maps = attention_loss(found.attention, shown.attention, counts)
                losses["attention"] = weights.attention * maps
        return losses


@dataclass(frozen=True, eq=False)
class ResponseObjective:
    """What pictures and texts have to do with each other, against the teacher; and nothing else."""

    settings: LearningSettings
    logit_scale: float

    def __call__(self, module: nn.Module, batch: JointBatch, step: int) -> Losses:
        device = next(module.parameters()).device
        image, text = module(batch.pixels.to(device), batch.ids.to(device))
        return self.losses(image, text, batch)

    def losses(self, image: Seen, text: Seen, batch: JointBatch) -> Losses:
        """The affinities' divergence."""
        wanted = (batch.images.to(image.embedding.device), batch.texts.to(text.embedding.device))
        found = (image.embedding, text.embedding)
        loss = affinity_loss(found, wanted, self.logit_scale, self.settings.temperature)
        return {"response": self.settings.losses.response * loss}


@dataclass(frozen=True, eq=False)
class JointObjective:
    """Both towers on everything: the response, each tower's own losses, and the data's labels."""

    response: ResponseObjective
    image: TowerObjective
    text: TowerObjective

    def __call__(self, module: nn.Module, batch: JointBatch, step: int) -> Losses:
        device = next(module.parameters()).device
        pixels, ids = batch.pixels.to(device), batch.ids.to(device)
        image, text = module(pixels, ids)
        losses: dict[str, torch.Tensor] = {}
        weights = self.response.settings.losses
        if weights.response > 0:
            losses.update(self.response.losses(image, text, batch))
        if weights.of_towers:
            for name, loss in self.image.losses(image, pixels, batch.images.to(device)).items():
                losses[f"image_{name}"] = loss
            for name, loss in self.text.losses(text, ids, batch.texts.to(device)).items():
                losses[f"text_{name}"] = loss
        if weights.contrast > 0:
            losses.update(self._labels(image.embedding, text.embedding))
        return losses

    def _labels(self, image: torch.Tensor, text: torch.Tensor) -> Losses:
        grouped = text.view(-1, *image.shape).transpose(0, 1)  # [B, 1 + K, D]
        scale = torch.tensor(self.response.logit_scale, device=image.device)
        weight = self.response.settings.losses.contrast
        losses = {"contrast": weight * contrastive_loss(image, grouped, scale)}
        if grouped.shape[1] > 1:
            losses["pairwise"] = weight * pairwise_loss(image, grouped, scale)
        return losses


def train_student(
    student: Checkpoint,
    teacher: Checkpoint | None,
    data: PairedData,
    answers: TeacherAnswers | None,
    settings: LearningSettings,
    work: Path,
    progress: Progress | None = None,
) -> dict[str, TrainReport]:
    """Trains a student in place, phase by phase; interrupted, it goes on where it last saved its state.

    Args:
        student: what learns.
        teacher: needed where hidden states or attention maps are learned from.
        data: what is learned from.
        answers: the teacher's embeddings of it, needed for every loss but contrast.
        settings: how.
        work: the folder of states; made if it does not exist, and of this training alone.
        progress: told step, steps and losses, phase by phase.

    Returns:
        The losses of each phase, by its name.

    Raises:
        TrainingError: a loss is not finite, or `work` holds the states of another training.
        RecipeError: a teacher is needed and there is none.
        DataError: the answers are not of the data.
    """
    if settings.needs_teacher and answers is None:
        raise RecipeError("these losses need a teacher's answers: only contrast does without")
    if settings.losses.runs_teacher and teacher is None:
        raise RecipeError("hidden states and attention maps need the teacher itself")
    claim(work, _identity(student, teacher, data, answers, settings))
    lessons = Lessons(data, answers, settings)
    set_seed(settings.seed)  # of what the projections begin with
    towers = {role: _watched(student, teacher, role, settings.losses) for role in student.roles}
    image, text = (towers[role] for role in (Role.IMAGE_ENCODER, Role.TEXT_ENCODER))
    of_image = TowerObjective(settings.losses, image[1])
    of_text = TowerObjective(settings.losses, text[1], student.tokenizer.pad_id)
    response = ResponseObjective(settings, student.logit_scale)
    both = TowerPair(image[0], text[0])
    phases = Phases(loop_settings(settings), work, progress)
    together = replace(phases, loop=replace(phases.loop, learning_rate=settings.rate_together))
    stack = ExitStack()
    for watched in (*image, *text):
        if watched is not None:
            stack.callback(watched.close)
    with stack:
        reports: Mapping[str, TrainReport | None] = {
            "image": phases.run("image", settings.image_steps, image[0], lessons.images, of_image),
            "text": phases.run("text", settings.text_steps, text[0], lessons.texts, of_text),
            "cross": together.run("cross", settings.cross_steps, both, lessons.pairs, response),
            "joint": together.run(
                "joint",
                settings.joint_steps,
                both,
                lessons.pairs,
                JointObjective(response, of_image, of_text),
            ),
        }
    student.model.train(False)
    return {name: report for name, report in reports.items() if report is not None}


def label_gradients_(
    checkpoint: Checkpoint,
    data: PairedData,
    settings: LearningSettings,
    each: Callable[[], None] | None = None,
) -> None:
    """Leaves in a model's parameters the gradients of the labels' loss, summed over batches.

    They are what Taylor scores need; against the teacher itself, which the student still is, they would be 0.

    Args:
        checkpoint: its weights stay as they are.
        data: whose captions and false texts are the labels.
        settings: `joint_steps` batches of `batch_size`.
        each: see `sum_gradients_`.
    """
    lessons = Lessons(data, None, settings)
    towers = [WatchedTower(checkpoint.tower(role)) for role in checkpoint.roles]
    nothing = TowerObjective(settings.losses)
    objective = JointObjective(ResponseObjective(settings, checkpoint.logit_scale), nothing, nothing)
    pair = TowerPair(*towers)
    sum_gradients_(checkpoint.model, pair, lessons.pairs, objective, settings.joint_steps, each)


def sum_gradients_(
    model: nn.Module,
    module: nn.Module,
    batches: Callable[[int], BatchT],
    objective: Objective[BatchT],
    steps: int,
    each: Callable[[], None] | None = None,
) -> None:
    """Leaves in a model's parameters the gradients of some batches' losses, summed; weights stay as they are.

    Args:
        model: whose gradients are taken off first.
        module: of its modules, what the objective calls.
        batches: by step.
        objective: what the losses are.
        steps: how many batches.
        each: is called after every batch, whose gradients alone are then there; in the end there are none.
    """
    model.zero_grad(set_to_none=True)
    for step in range(steps):
        losses = objective(module, batches(step), step)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        if each is not None:
            each()
            model.zero_grad(set_to_none=True)


def _watched(
    student: Checkpoint, teacher: Checkpoint | None, role: str, weights: LossWeights
) -> tuple[WatchedTower, WatchedTower | None]:
    """A student's tower, and its teacher's where that runs along, watched at the layers that correspond."""
    if teacher is None or not weights.runs_teacher:
        return WatchedTower(student.tower(role)), None
    own, others = (_layer_names(each, role) for each in (student, teacher))
    matched = [others[-(-(place + 1) * len(others) // len(own)) - 1] for place in range(len(own))]
    maps = [
        _attention_names(each, layers) if weights.attention > 0 else []
        for each, layers in ((student, own), (teacher, matched))
    ]
    if weights.hidden == 0:
        own, matched = [], []
    widths = (student.stack(role).width, teacher.stack(role).width)
    learner = WatchedTower(student.tower(role), own, maps[0], [widths] * len(own))
    shown = WatchedTower(teacher.tower(role), matched, maps[1])
    shown.train(False)
    return learner, shown.requires_grad_(False)


def _layer_names(checkpoint: Checkpoint, role: str) -> list[str]:
    stack = checkpoint.stack(role).name
    layers = checkpoint.model.get_submodule(stack)
    assert isinstance(layers, nn.ModuleList)
    return [f"{stack}.{place}" for place in range(len(layers))]


def _attention_names(checkpoint: Checkpoint, layers: list[str]) -> list[str]:
    """The attentions in these layers, told by the model before anything was factorised."""
    names = [each.name for each in attentions(checkpoint.original())]
    return [name for layer in layers for name in names if name.startswith(f"{layer}.")]


def loop_settings(settings: LearningSettings) -> LoopSettings:
    """What a training loop is told; each phase has its own number of steps."""
    return LoopSettings(
        steps=0,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        save_every=settings.save_every,
        precision=settings.precision,
    )


def _identity(
    student: Checkpoint,
    teacher: Checkpoint | None,
    data: PairedData,
    answers: TeacherAnswers | None,
    settings: LearningSettings,
) -> str:
    """Differs for trainings that differ in anything."""
    models = [checkpoint.model for checkpoint in (student, teacher) if checkpoint is not None]
    digest = begun_digest(asdict(settings), models)
    digest.update(f"{data.images.shape}{data.ids.shape}{[list(rows) for rows in data.pairs]}".encode())
    digest.update(np.ascontiguousarray(data.ids).tobytes())
    if answers is not None:
        digest.update(np.ascontiguousarray(answers.texts).tobytes())
    return digest.hexdigest()
