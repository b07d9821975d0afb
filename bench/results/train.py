"""Rows' checkpoints: what `pocketvl compress` would make of their steps."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.results.progress import StageProgress, rows_shown
from bench.results.record import (
    TRAINED_FILE,
    Trained,
    checkpoint_digest,
    checkpoint_of,
    dataset_digest,
    key_of,
    read_record,
    row_folder,
    versions_of,
    write_record,
)
from bench.results.rows import Row, TrainingData
from pocketvl.data.dataset import Dataset
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.stages.training import TeacherOutputs
from pocketvl.pipelines.stages.training import TrainingData as SampleStage
from pocketvl.stage import Event, Plan, Stage, plan, run
from pocketvl_runtime.isa import cpu_name

_SPENT_FILE = "spent.txt"


@dataclass
class Stopwatch:
    """Seconds spent on a row, those of interrupted runs included."""

    path: Path

    def __post_init__(self) -> None:
        self._before = float(self.path.read_text()) if self.path.exists() else 0.0
        self._begin = self._written = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._begin

    def tick(self) -> None:
        """Write down what was spent so far, at most once a second."""
        if time.perf_counter() - self._written > 1:
            half = self.path.with_suffix(".new")
            half.write_text(f"{self.seconds:.3f}")
            half.replace(self.path)
            self._written = time.perf_counter()


def train_rows(rows: Sequence[Row], data: TrainingData, work: Path, cache: Path) -> None:
    """Make the checkpoints of all rows that have none yet; interrupted, the same call goes on.

    Args:
        rows: which.
        data: what they learn from.
        work: where rows are kept.
        cache: where results of stages are kept.
    """
    made = [row for row in rows if row.steps]
    with rows_shown(made, "train") as started:
        for row in made:
            train_row(row, data.of(row), work, cache, started(row))


def train_row(row: Row, data: Path, work: Path, cache: Path, progress: StageProgress | None = None) -> bool:
    """Make one row's checkpoint.

    Returns:
        Whether anything was to be done.
    """
    stages = stages_of(row.teacher.checkpoint, data, row.recipe)
    planned, folder = plan(stages), row_folder(work, row)
    key = training_key(row, data, planned)
    trained = read_record(Trained, folder / TRAINED_FILE)
    if trained is not None and trained.key == key and checkpoint_of(work, row).is_dir():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    run(plan(_shared(planned)), cache, progress)  # what rows share is no row's time
    watch = Stopwatch(folder / _SPENT_FILE)

    def ticking(event: Event) -> None:
        watch.tick()
        if progress is not None:
            progress(event)

    last = run(planned, cache, ticking)[stages[-1]].folder
    copy, kept = folder / "checkpoint.new", checkpoint_of(work, row)
    for old in (copy, kept):  # in a folder that is nobody's but the benchmark's
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(last, copy)
    copy.rename(kept)
    samples = len(Dataset.open(data).samples)
    record = Trained(key, watch.seconds, device_name(), samples, row.training_steps)
    write_record(folder / TRAINED_FILE, record)
    watch.path.unlink(missing_ok=True)
    return True


def training_key(row: Row, data: Path, planned: Plan) -> str:
    """Of all that a row's checkpoint depends on."""
    return key_of(
        described=row.described(),
        teacher=checkpoint_digest(row.teacher.checkpoint),
        data=dataset_digest(data),
        versions=versions_of(planned),
    )


def device_name() -> str:
    """What trainings run on here."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()


def _shared(planned: Plan) -> list[Stage]:
    return [stage for stage in planned.stages if isinstance(stage, SampleStage | TeacherOutputs)]
