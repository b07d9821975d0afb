"""A model that answers questions learns to go on doing so: from its teacher's answers, from the right ones.

Source: Hinton et al., 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from pocketvl.compress.distil import loop_settings, sum_gradients_
from pocketvl.compress.settings import LearningSettings, check_answering, shows_mirrored
from pocketvl.errors import DataError, RecipeError
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.train.distil_losses import answer_response_loss
from pocketvl.train.loop import Losses, Progress, TrainReport
from pocketvl.train.pairs import SampleOrder, half_mirrored, mirror, rows_of
from pocketvl.train.phases import Phases, begun_digest, claim
from pocketvl.train.questions import QuestionedData
from pocketvl_runtime.manifest import Role


@dataclass(frozen=True, eq=False)
class QuestionBatch:
    """Questions with their pictures, the right answers [B], and the teacher's logits [B, answers]."""

    pixels: torch.Tensor
    ids: torch.Tensor
    answers: torch.Tensor
    wanted: torch.Tensor


class QuestionLessons:
    """What each step shows; a function of the step alone."""

    def __init__(
        self, data: QuestionedData, logits: NDArray[np.float32] | None, settings: LearningSettings
    ) -> None:
        """Args: logits: the teacher's, float32 [1 or 2, M, answers], of pictures as they are, and of mirrored
        ones where these are shown; may be left out where nothing is learned from them.

        Raises:
            DataError: they are not of this data.
        """
        self._mirror = shows_mirrored(settings)
        if logits is not None and (len(logits) < 1 + self._mirror or logits.shape[1] != len(data.ids)):
            raise DataError("the teacher's answers are not of this data")
        self._data, self._logits, self._settings = data, logits, settings
        self._order = SampleOrder(settings.batch_size, settings.seed)

    def __call__(self, step: int) -> QuestionBatch:
        """Questions, half of the pictures mirrored where only the teacher says what is right."""
        places = self._order(len(self._data.ids), step)
        mirrored = half_mirrored(self._settings.seed, step, len(places)) & self._mirror
        pixels = rows_of(self._data.images, self._data.pictures[places])
        wanted = torch.zeros(len(places), 0)
        if self._logits is not None:
            wanted = torch.from_numpy(self._logits[mirrored.astype(np.int64), places])
        return QuestionBatch(
            pixels=mirror(pixels, torch.from_numpy(mirrored)),
            ids=rows_of(self._data.ids, places),
            answers=rows_of(self._data.answers, places),
            wanted=wanted,
        )


@dataclass(frozen=True, eq=False)
class AnsweringObjective:
    """The teacher's answers, and the right ones."""

    settings: LearningSettings

    def __call__(self, module: nn.Module, batch: QuestionBatch, step: int) -> Losses:
        device = next(module.parameters()).device
        logits = module(batch.pixels.to(device), batch.ids.to(device))
        weights, losses = self.settings.losses, {}
        if weights.response > 0:
            wanted = batch.wanted.to(device)
            losses["response"] = weights.response * answer_response_loss(
                logits, wanted, self.settings.temperature
            )
        if weights.answer > 0:
            losses["answer"] = weights.answer * F.cross_entropy(logits, batch.answers.to(device))
        return losses


def train_answering(
    student: Checkpoint,
    logits: NDArray[np.float32] | None,
    data: QuestionedData,
    settings: LearningSettings,
    work: Path,
    progress: Progress | None = None,
) -> dict[str, TrainReport]:
    """Trains a student in place; interrupted, it goes on where it last saved its state.

    Args:
        student: of one tower, which answers questions.
        logits: the teacher's, as `QuestionLessons` takes them; needed for the response.
        data: what is learned from.
        settings: how.
        work: the folder of states; made if it does not exist, and of this training alone.
        progress: told step, steps and losses.

    Returns:
        The losses, as those of the phase "joint".

    Raises:
        TrainingError: a loss is not finite, or `work` holds the states of another training.
        RecipeError: the settings are of a model of two towers, or a teacher is needed and there is none.
        DataError: the logits are not of the data.
    """
    check_answering(settings)
    if settings.losses.response > 0 and logits is None:
        raise RecipeError("the response needs a teacher's answers: only answer does without")
    claim(work, _identity(student, logits, data, settings))
    lessons = QuestionLessons(data, logits, settings)
    tower, phases = student.tower(Role.FUSION), Phases(loop_settings(settings), work, progress)
    report = phases.run("joint", settings.joint_steps, tower, lessons, AnsweringObjective(settings))
    student.model.to("cpu").train(False)
    return {} if report is None else {"joint": report}


def answer_gradients_(
    checkpoint: Checkpoint,
    data: QuestionedData,
    settings: LearningSettings,
    each: Callable[[], None] | None = None,
) -> None:
    """Leaves in a model's parameters the gradients of the right answers' loss, summed over batches.

    Args:
        checkpoint: its weights stay as they are.
        data: whose answers are right.
        settings: `joint_steps` batches of `batch_size`.
        each: see `sum_gradients_`.
    """
    lessons, objective = QuestionLessons(data, None, settings), AnsweringObjective(settings)
    tower = checkpoint.tower(Role.FUSION)
    sum_gradients_(checkpoint.model, tower, lessons, objective, settings.joint_steps, each)


def _identity(
    student: Checkpoint,
    logits: NDArray[np.float32] | None,
    data: QuestionedData,
    settings: LearningSettings,
) -> str:
    """Differs for trainings that differ in anything."""
    digest = begun_digest(asdict(settings), [student.model])
    digest.update(f"{data.images.shape}".encode())
    for values in (data.ids, data.pictures, data.answers, *([] if logits is None else [logits])):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
