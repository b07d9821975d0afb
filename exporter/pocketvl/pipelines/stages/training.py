"""Training: a dataset as arrays, teacher outputs, and distilled students."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset, questions_of
from pocketvl.errors import RecipeError
from pocketvl.launch import processes
from pocketvl.network.heads import HeadKind
from pocketvl.pipelines.stages.components import (
    TORCH,
    check_source,
    ids_of,
    this_machine,
    write_media,
)
from pocketvl.stage import Inputs, Stage
from pocketvl.tasks.head_training import HeadTraining
from pocketvl.train.samples import SAMPLES, TextSamples, TrainingSamples
from pocketvl.train.settings import TrainingSettings

LOSSES_FILE = "losses.json"
CURVES_FILE = "losses.png"
"""Beside a checkpoint: the curves of the trainings that it came from."""
_INDEX_FILE = "index.json"
_PIXELS_FILE, _IDS_FILE = "pixels.npy", "ids.npy"
_TEXTS_FILE = "texts.json"
_GPU_DEVICES = ("nvidia*", "nvhost*", "nvgpu*", "dxg", "kfd")  # CUDA's on PCs, on Jetsons and in WSL; ROCm's
_NO_GPU = "none"


def teacher_device() -> str:
    """Where teachers run: on the first GPU, or on the processor."""
    return "cpu" if _accelerator() == _NO_GPU else "cuda"


def teacher_machine() -> Mapping[str, str]:
    """The machine properties that teacher outputs depend on: last digits differ between devices."""
    return {**this_machine(), "accelerator": _accelerator()}


def _accelerator() -> str:
    """The name of the first GPU; torch, slow to import, is asked only where the system has such a device."""
    if not any(next(Path("/dev").glob(pattern), None) for pattern in _GPU_DEVICES):
        return _NO_GPU

    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else _NO_GPU


def training_machine() -> Mapping[str, str]:
    """The machine properties that a training's result depends on."""
    return {**teacher_machine(), "processes": str(processes())}


@dataclass(frozen=True)
class TrainingData(Stage):
    """A dataset's images as pixels or sounds as spectrograms, its texts as ids, and which belong together.

    And all of its texts.
    """

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    data: Path

    @property
    def title(self) -> str:
        return "prepare the training data"

    def requires(self, source: Inputs) -> None:
        from pocketvl.families import family_of

        check_source(source["source"])
        dataset = Dataset.open(source["data"])
        dataset.media(family_of(source["source"]).modality)
        SAMPLES[head_training(source["source"]).kind].check(dataset)

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import read_contract

        opened, dataset = read_contract(source["source"]), Dataset.open(source["data"])
        kind = opened.head.kind
        texts, index = SAMPLES[kind].select(dataset, opened.head)
        if opened.senses:
            write_media(out / _PIXELS_FILE, dataset, opened, source)
        if opened.reads:
            np.save(out / _IDS_FILE, ids_of(texts, opened.tokenizer_json, opened.tokenizer))
        document = {"kind": kind.value, "index": index}
        (out / _INDEX_FILE).write_text(json.dumps(document) + "\n", encoding="utf-8")
        every = list(dict.fromkeys((*texts, *dataset.texts)))
        (out / _TEXTS_FILE).write_text(json.dumps(every), encoding="utf-8")


def read_texts(folder: Path) -> tuple[str, ...]:
    """All texts of the dataset of a result of `TrainingData`, each once."""
    return tuple(json.loads((folder / _TEXTS_FILE).read_text(encoding="utf-8")))


def read_samples(folder: Path) -> TrainingSamples:
    """Read the result of `TrainingData`; images stay on disk.

    Raises:
        DataError: too few for a training.
    """
    document = json.loads((folder / _INDEX_FILE).read_text(encoding="utf-8"))
    sees, reads = ((folder / name).is_file() for name in (_PIXELS_FILE, _IDS_FILE))
    pixels = np.load(folder / _PIXELS_FILE, mmap_mode="r") if sees else np.zeros((0, 0, 0, 3), np.uint8)
    ids = np.load(folder / _IDS_FILE) if reads else np.zeros((0, 0), np.int32)
    return SAMPLES[HeadKind(document["kind"])](pixels, ids, document["index"])


@dataclass(frozen=True)
class TeacherOutputs(Stage):
    """Teacher outputs for all of the training data, by component.

    Attributes:
        teacher: a checkpoint.
        data: what it is shown.
        mirrored: show images mirrored, too.
    """

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = TORCH

    teacher: Path
    data: TrainingData
    mirrored: bool

    @property
    def title(self) -> str:
        return "run the teacher"

    def environment(self) -> Mapping[str, str]:
        return teacher_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import open_checkpoint
        from pocketvl.tasks.training import teacher_outputs
        from pocketvl.tasks.training_tasks import training_task

        opened, samples = open_checkpoint(source["teacher"]), read_samples(source["data"])
        task, device = training_task(opened.contract), teacher_device()
        components = {name: opened.component(name).module.train(False).to(device) for name in task.components}
        found = teacher_outputs(task, components, samples, self.mirrored, source.progress)
        for port, values in found.items():
            np.save(out / f"{port}.npy", values)


def read_outputs(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Read the result of `TeacherOutputs`, by port; memory-mapped."""
    files = sorted(folder.glob("*.npy"))
    return {path.name.removesuffix(".npy"): np.load(path, mmap_mode="r") for path in files}


def states_of(source: Inputs) -> Path:
    """Where a training keeps its states.

    Raises:
        RecipeError: the stage was given no such folder.
    """
    if source.work is None:
        raise RecipeError("training needs a folder for its states")
    return source.work / "states"


@dataclass(frozen=True)
class TrainStudent(Stage):
    """A trained student: its checkpoint, and its losses.

    Attributes:
        student: a checkpoint.
        teacher: what it is distilled from.
        data: what it is trained on.
        outputs: the teacher's; () where it is trained on labels alone.
        settings: how.
        hold_zeros: weights that are 0 stay so.
    """

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "accelerate")
    resumes: ClassVar[bool] = True

    student: Path | Stage
    teacher: Path
    data: TrainingData
    outputs: tuple[TeacherOutputs, ...]
    settings: TrainingSettings
    hold_zeros: bool = False

    @property
    def title(self) -> str:
        return "distil from the teacher" if self.outputs else "train on labels"

    def environment(self) -> Mapping[str, str]:
        return training_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.compress.distil import train_student
        from pocketvl.compress.sparsity import held_zeros
        from pocketvl.families import open_checkpoint
        from pocketvl.tasks.training_tasks import training_task

        states = states_of(source)
        student = open_checkpoint(source["student"])
        teacher = open_checkpoint(source["teacher"]) if self.settings.runs_teacher else None
        outputs = read_outputs(source["outputs"]) if self.outputs else None
        samples, task = read_samples(source["data"]), training_task(student.contract)
        with held_zeros(student.model, self.hold_zeros):
            reports = train_student(
                task, student, teacher, samples, outputs, self.settings, states, source.progress
            )
        student.save(out)
        losses = {name: report.losses for name, report in reports.items()}
        (out / LOSSES_FILE).write_text(json.dumps(losses) + "\n", encoding="utf-8")


def head_training(source: Path) -> HeadTraining:
    """How the head of a checkpoint is trained; imports no torch.

    Raises:
        SourceError: it is no checkpoint of a known family.
    """
    from pocketvl.families import family_of

    family = family_of(source)
    return HeadTraining(family.head, family.trained)


def training_rows(kind: HeadKind, data: Path) -> int:
    """How many samples an epoch of a dataset has: images, questions where the head answers those, or texts
    where it is of a text encoder by itself.

    Raises:
        DataError: it is no dataset.
    """
    dataset = Dataset.open(data)
    if kind is HeadKind.TEXT_EMBEDDING:
        return len(TextSamples.texts(dataset))
    return len(questions_of(dataset)) if kind is HeadKind.LABELS else len(dataset)
