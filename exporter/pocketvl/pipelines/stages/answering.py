"""What models that answer questions learn from, and that they learn: a dataset's questions, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from pocketvl.compress.settings import LearningSettings
from pocketvl.data.dataset import Dataset, questions_of
from pocketvl.errors import DataError
from pocketvl.pipelines.stages.learning import (
    asking_device,
    asking_machine,
    save_trained,
    states_of,
    training_machine,
)
from pocketvl.pipelines.stages.towers import TORCH, check_source, ids_of, write_pixels
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.manifest import Role

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.train.questions import QuestionedData


@dataclass(frozen=True)
class QuestionData(Stage):
    """A dataset's pictures as pixels, its questions as ids, which belong together, and the right answers."""

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    data: Path

    @property
    def title(self) -> str:
        return "prepare the questions"

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])
        dataset = Dataset.open(source["data"])
        if len(questions_of(dataset)) < 2:
            raise DataError(f"{dataset.root}: training needs questions with answers (qa), two at least")

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import read_contract

        opened, dataset = read_contract(source["source"]), Dataset.open(source["data"])
        places = {answer: place for place, answer in enumerate(opened.label_head.labels)}
        asked = questions_of(dataset)
        for each in asked:
            if each.answer not in places:
                raise DataError(
                    f"{dataset.samples[each.sample].image}: the answer {each.answer!r} is none of those that "
                    f"the model knows ({len(places)}, id2label in its config.json)"
                )
        write_pixels(out / "pixels.npy", dataset, opened.preprocess, source)
        texts = [each.text for each in asked]
        np.save(out / "ids.npy", ids_of(texts, opened.tokenizer_json, opened.tokenizer))
        pairs = [[each.sample, places[each.answer]] for each in asked]
        np.save(out / "asked.npy", np.array(pairs, np.int64))


def open_answering(folder: Path) -> Checkpoint:
    """Opens a model that answers questions.

    Raises:
        SourceError: it cannot be opened, or is none.
    """
    from pocketvl.families import open_checkpoint

    opened = open_checkpoint(folder)
    assert opened.contract.label_head
    return opened


def read_questions(folder: Path) -> QuestionedData:
    """What a `QuestionData` made; pictures stay on disk.

    Raises:
        DataError: too few for a training.
    """
    from pocketvl.train.questions import QuestionedData

    pixels, asked = np.load(folder / "pixels.npy", mmap_mode="r"), np.load(folder / "asked.npy")
    return QuestionedData(pixels, np.load(folder / "ids.npy"), asked[:, 0], asked[:, 1])


@dataclass(frozen=True)
class AskAnswers(Stage):
    """What a model answers to all questions: its logits.

    Attributes:
        teacher: a checkpoint.
        data: the questions.
        mirrored: ask of the mirrored pictures, too.
    """

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = TORCH

    teacher: Path
    data: QuestionData
    mirrored: bool

    @property
    def title(self) -> str:
        return "ask the teacher"

    def environment(self) -> Mapping[str, str]:
        return asking_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.train.questions import answer_logits

        data = read_questions(source["data"])
        tower = open_answering(source["teacher"]).tower(Role.FUSION).train(False).to(asking_device())
        ways = (data.images, data.images[:, :, ::-1])[: 1 + self.mirrored]
        found = [
            answer_logits(tower, images, data.ids, data.pictures, progress=source.progress) for images in ways
        ]
        np.save(out / "logits.npy", np.stack(found))


def read_logits(folder: Path) -> NDArray[np.float32]:
    """What an `AskAnswers` found, float32 [1 or 2, M, answers]."""
    found: NDArray[np.float32] = np.load(folder / "logits.npy")
    return found


@dataclass(frozen=True)
class LearnAnswers(Stage):
    """A student that has learned to answer: its checkpoint, and the losses on the way.

    Attributes:
        student: a checkpoint.
        data: what it is shown.
        answers: what the teacher says of it; () where labels alone are learned from.
        settings: how.
        hold_zeros: weights that are 0 stay so.
    """

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "accelerate")
    resumes: ClassVar[bool] = True

    student: Path | Stage
    data: QuestionData
    answers: tuple[AskAnswers, ...]
    settings: LearningSettings
    hold_zeros: bool = False

    @property
    def title(self) -> str:
        return "learn from the teacher" if self.answers else "learn from labels"

    def environment(self) -> Mapping[str, str]:
        return training_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.compress.answering import train_answering
        from pocketvl.compress.sparsity import held_zeros

        states = states_of(source)
        student = open_answering(source["student"])
        logits = read_logits(source["answers"]) if self.answers else None
        with held_zeros(student.model, self.hold_zeros):
            reports = train_answering(
                student, logits, read_questions(source["data"]), self.settings, states, source.progress
            )
        save_trained(student, reports, out)
