"""What is kept of a row: small JSON files, each written in one step, and read back strictly."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.results.rows import Row
from pocketvl.data.dataset import SAMPLES_FILE
from pocketvl.families.folders.files import COMPRESSION_FILE
from pocketvl.stage import Plan
from pocketvl_runtime.errors import PocketVLError
from pocketvl_runtime.schema import OPTIONAL, decode, dump_json, parse_json

TRAINED_FILE, ROW_FILE, LATENCY_FILE = "trained.json", "row.json", "latency.json"
T = TypeVar("T")
Answers = dict[str, str]
"""By metric, one "1" (right) or "0" a sample."""


@dataclass(frozen=True)
class Trained:
    """How a row's checkpoint came about.

    Attributes:
        key: of everything that it depends on.
        seconds: that took, what all rows share not counted.
        device: on which it was trained.
        samples: of the dataset that it learned from.
        optimizer_steps: in all.
    """

    key: str
    seconds: float
    device: str
    samples: int
    optimizer_steps: int


@dataclass(frozen=True)
class Files:
    """A variant of a row: its graph files.

    Attributes:
        size_bytes: sum of the files.
        answers: what the files answered; {} where they were not asked.
        zstd_bytes: sum of the files, each compressed with zstd; None where that was not measured.
    """

    size_bytes: int
    answers: Answers = field(default_factory=dict)
    zstd_bytes: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Measured:
    """Everything that was measured of a row but its latency.

    Attributes:
        key: of everything that it depends on.
        described: the row's steps.
        parameters: numbers that were learned, all towers.
        macs: multiply-adds of one picture and one text.
        before: answers in torch before anything was learned; {} where nothing is learned.
        after: answers in torch.
        files: by variant.
        trained: how its checkpoint came about.
        seconds: that measuring took.
    """

    key: str
    described: str
    parameters: int
    macs: int
    before: Answers
    after: Answers
    files: dict[str, Files]
    trained: Trained
    seconds: float


def row_folder(work: Path, row: Row) -> Path:
    """Where all of a row is kept."""
    return work / "rows" / row.name


def checkpoint_of(work: Path, row: Row) -> Path:
    """Where a row's checkpoint is: its own, or the teacher's."""
    return row_folder(work, row) / "checkpoint" if row.steps else row.teacher.checkpoint


def write_record(path: Path, record: object) -> None:
    """Write a record in one step."""
    half = path.with_name(f"{path.name}.new")
    half.write_text(dump_json(record), encoding="utf-8", newline="\n")
    half.replace(path)


def read_record(kind: type[T], path: Path) -> T | None:
    """Read a record; None where there is none, or one of another form."""
    try:
        return decode(kind, parse_json(path.read_bytes(), str(path)), str(path))
    except (OSError, PocketVLError):
        return None


def read_measured(work: Path, row: Row) -> Measured | None:
    """What was measured of a row as it is described today."""
    found = read_record(Measured, row_folder(work, row) / ROW_FILE)
    return found if found is not None and found.described == row.described() else None


def key_of(**ingredients: object) -> str:
    """One text for everything that a result depends on."""
    document = json.dumps(ingredients, sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def versions_of(plan: Plan) -> list[list[object]]:
    """The stages of a plan with their versions."""
    return [list(each) for each in sorted({(stage.name, stage.version) for stage in plan.stages})]


def checkpoint_digest(checkpoint: Path) -> str:
    """Of a checkpoint's weights and configuration; its card does not count."""
    digest = hashlib.sha256()
    for name in ("config.json", COMPRESSION_FILE, "model.safetensors"):
        if (checkpoint / name).exists():
            digest.update((checkpoint / name).read_bytes())
    return digest.hexdigest()


def dataset_digest(data: Path) -> str:
    """Of a dataset's samples.jsonl, as in reports."""
    return hashlib.sha256((data / SAMPLES_FILE).read_bytes()).hexdigest()


def packed(correct: NDArray[np.bool_]) -> str:
    """Right and wrong answers as text."""
    return "".join("1" if each else "0" for each in correct)


def unpacked(answers: str) -> NDArray[np.bool_]:
    """Bool [n] of what `packed` wrote."""
    return np.array([each == "1" for each in answers], dtype=np.bool_)
