"""What students learn from: a dataset as arrays, and what their teacher says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pocketvl.compress.settings import LearningSettings
from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError, RecipeError
from pocketvl.launch import processes
from pocketvl.pipelines.stages.towers import TORCH, check_source, ids_of, this_machine, write_pixels
from pocketvl.stage import Inputs, Stage

if TYPE_CHECKING:
    from pocketvl.compress.distil import TeacherAnswers
    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.train.loop import TrainReport
    from pocketvl.train.pairs import PairedData

LOSSES_FILE = "losses.json"
CURVES_FILE = "losses.png"
"""Beside a checkpoint: the curves of the trainings that it came from."""
_BATCH = 64
_GPU_DEVICES = ("nvidia*", "nvhost*", "nvgpu*", "dxg", "kfd")  # CUDA's on PCs, on Jetsons and in WSL; ROCm's
_NO_GPU = "none"


def asking_device() -> str:
    """Where teachers are asked: on the first GPU, or on the processor."""
    return "cpu" if _accelerator() == _NO_GPU else "cuda"


def asking_machine() -> Mapping[str, str]:
    """What a teacher's answers depend on beside its inputs: the last digits differ from device to device."""
    return {**this_machine(), "accelerator": _accelerator()}


def _accelerator() -> str:
    """The name of the first GPU; torch, slow to import, is asked only where the system has such a device."""
    if not any(next(Path("/dev").glob(pattern), None) for pattern in _GPU_DEVICES):
        return _NO_GPU

    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else _NO_GPU


def training_machine() -> Mapping[str, str]:
    """What a training's result depends on beside its inputs."""
    return {**asking_machine(), "processes": str(processes())}


@dataclass(frozen=True)
class PairData(Stage):
    """A dataset's pictures as pixels, its texts as ids, and which belong together."""

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    data: Path

    @property
    def title(self) -> str:
        return "prepare the training data"

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])
        dataset = Dataset.open(source["data"])
        if not all(sample.captions for sample in dataset.samples):
            raise DataError(f"{dataset.root}: training needs a caption for every picture")

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import read_contract

        opened, dataset = read_contract(source["source"]), Dataset.open(source["data"])
        write_pixels(out / "pixels.npy", dataset, opened.preprocess, source)
        chosen = [(sample.captions[0], *sample.negatives) for sample in dataset.samples]
        rows = {text: row for row, text in enumerate(dict.fromkeys(text for each in chosen for text in each))}
        np.save(out / "ids.npy", ids_of(list(rows), opened.tokenizer_json, opened.tokenizer))
        pairs = [[rows[text] for text in each] for each in chosen]
        (out / "pairs.json").write_text(json.dumps(pairs) + "\n", encoding="utf-8")


def read_pairs(folder: Path) -> PairedData:
    """What a `PairData` made; pictures stay on disk.

    Raises:
        DataError: too few for a training.
    """
    from pocketvl.train.pairs import PairedData

    pixels, ids = np.load(folder / "pixels.npy", mmap_mode="r"), np.load(folder / "ids.npy")
    return PairedData(pixels, ids, json.loads((folder / "pairs.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class AskTeacher(Stage):
    """What a model embeds all of the data to: pictures, the same mirrored, and texts."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = TORCH

    teacher: Path
    data: PairData

    @property
    def title(self) -> str:
        return "ask the teacher"

    def environment(self) -> Mapping[str, str]:
        return asking_machine()

    def run(self, source: Inputs, out: Path) -> None:
        import torch

        from pocketvl.families import open_checkpoint

        opened, data = open_checkpoint(source["teacher"]), read_pairs(source["data"])
        device = asking_device()
        image, text = (opened.tower(role).train(False) for role in opened.roles)
        total, done = 2 * len(data.images) + len(data.ids), 0
        parts: list[list[np.ndarray]] = [[], [], []]
        with torch.inference_mode():
            for part, tower, rows in ((0, image, data.images), (1, image, data.images), (2, text, data.ids)):
                tower.to(device)
                for start in range(0, len(rows), _BATCH):
                    batch = np.array(rows[start : start + _BATCH])
                    if part == 1:
                        batch = np.ascontiguousarray(batch[:, :, ::-1])
                    parts[part].append(tower(torch.from_numpy(batch).to(device)).cpu().numpy())
                    done += len(batch)
                    source.progress(done, total, "embedding")
        plain, mirrored, texts = (np.concatenate(each) for each in parts)
        np.save(out / "images.npy", np.stack([plain, mirrored]))
        np.save(out / "texts.npy", texts)


def read_answers(folder: Path) -> TeacherAnswers:
    """What an `AskTeacher` found."""
    from pocketvl.compress.distil import TeacherAnswers

    return TeacherAnswers(np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "texts.npy"))


def states_of(source: Inputs) -> Path:
    """Where a training keeps what it has done so far.

    Raises:
        RecipeError: the stage was given no such place.
    """
    if source.work is None:
        raise RecipeError("training needs a folder for what it has done so far")
    return source.work / "states"


def save_trained(student: Checkpoint, reports: Mapping[str, TrainReport], out: Path) -> None:
    """Writes a trained student's checkpoint, and beside it the losses on the way."""
    student.save(out)
    losses = {name: report.losses for name, report in reports.items()}
    (out / LOSSES_FILE).write_text(json.dumps(losses) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Learn(Stage):
    """A student that has learned: its checkpoint, and the losses on the way.

    Attributes:
        student: a checkpoint.
        teacher: what it learns from.
        data: what it is shown.
        answers: what the teacher says of it; () where labels alone are learned from.
        settings: how.
        hold_zeros: weights that are 0 stay so.
    """

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "accelerate")
    resumes: ClassVar[bool] = True

    student: Path | Stage
    teacher: Path
    data: PairData
    answers: tuple[AskTeacher, ...]
    settings: LearningSettings
    hold_zeros: bool = False

    @property
    def title(self) -> str:
        return "learn from the teacher" if self.settings.needs_teacher else "learn from labels"

    def environment(self) -> Mapping[str, str]:
        return training_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.compress.distil import train_student
        from pocketvl.compress.sparsity import held_zeros
        from pocketvl.families import open_checkpoint

        states = states_of(source)
        student = open_checkpoint(source["student"])
        teacher = open_checkpoint(source["teacher"]) if self.settings.losses.runs_teacher else None
        answers = read_answers(source["answers"]) if self.answers else None
        with held_zeros(student.model, self.hold_zeros):
            reports = train_student(
                student, teacher, read_pairs(source["data"]), answers, self.settings, states, source.progress
            )
        save_trained(student, reports, out)
