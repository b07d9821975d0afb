"""What a compression would do, how long that takes here, and how much memory: before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.data.dataset import Dataset
from pocketvl.errors import RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.stages.compressing import CompressByTraining, CompressCheckpoint
from pocketvl.pipelines.stages.training import TeacherOutputs, TrainStudent, head_training
from pocketvl.quantize.qat_method import QuantizationAwareTraining
from pocketvl.recipes.compress_recipe import read_compress_recipe
from pocketvl.stage import Stage, plan

if TYPE_CHECKING:
    from pocketvl.compress.effort import Effort
    from pocketvl.tasks.head_training import HeadTraining
    from pocketvl.train.settings import TrainingSettings

_PROGRAM_BYTES = 700_000_000
"""What Python with torch takes before it does anything."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a compression.

    Attributes:
        title: what is done.
        details: of a training its phases: components, steps and batch size.
        seconds: about how long on this machine; None where it is seconds, or nobody knows.
        memory_bytes: at most about so much; None likewise.
    """

    title: str
    details: tuple[str, ...] = ()
    seconds: float | None = None
    memory_bytes: float | None = None


@dataclass(frozen=True)
class Forecast:
    """The stages of a compression, and what it takes in all.

    Attributes:
        stages: in order.
        samples: how many pictures the data has.
    """

    stages: tuple[PlannedStage, ...]
    samples: int

    @property
    def seconds(self) -> float:
        """Of all trainings; what is pruned later is trained faster than that."""
        return sum(each.seconds or 0.0 for each in self.stages)

    @property
    def memory_bytes(self) -> float:
        """Of the largest stage."""
        return max((each.memory_bytes or 0.0 for each in self.stages), default=0.0)

    def to_json(self) -> dict[str, object]:
        """As `--json` prints it."""
        stages = [asdict(each) for each in self.stages]
        total = {"seconds": self.seconds, "memory_bytes": self.memory_bytes}
        return {"samples": self.samples, "stages": stages, **total}


def forecast(source: Path, recipe: str, data: Path) -> Forecast:
    """Plan a compression, check its inputs, and estimate what it takes from a few steps of each component.

    Args:
        source: the checkpoint folder.
        recipe: name of a compression recipe, or a .toml file.
        data: a dataset folder to learn from.

    Raises:
        PocketVLError: the compression could not run.
    """
    from pocketvl.compress.effort import effort_of

    stages = stages_of(source, data, read_compress_recipe(recipe))
    plan([stages[-1]])
    opened = open_checkpoint(source)
    efforts = {name: effort_of(component) for name, component in opened.components.items()}
    estimate = _Estimate(efforts, head_training(source), len(Dataset.open(data)))
    planned = [found for stage in _with_teachers(stages) if (found := estimate.of(stage)) is not None]
    return Forecast(tuple(planned), estimate.samples)


def _with_teachers(stages: tuple[Stage, ...]) -> list[Stage]:
    """The stages, and before the first that learns from it, the run of the teacher."""
    found: list[Stage] = []
    for stage in stages:
        for outputs in stage.outputs if isinstance(stage, TrainStudent) else ():
            if outputs not in found:
                found.append(outputs)
        found.append(stage)
    return found


@dataclass(frozen=True)
class _Estimate:
    efforts: Mapping[str, Effort]
    head: HeadTraining
    samples: int

    def of(self, stage: Stage) -> PlannedStage | None:
        if isinstance(stage, TeacherOutputs):
            ways = 1 + stage.mirrored
            seconds = ways * self.samples * sum(each.forward_s for each in self.efforts.values())
            return PlannedStage(stage.title, (f"{self.samples:,} samples",), seconds)
        if isinstance(stage, TrainStudent):
            return self._training(stage.title, stage.settings)
        if isinstance(stage, CompressByTraining) and isinstance(stage.method, QuantizationAwareTraining):
            return self._training(stage.title, stage.method.training)
        return PlannedStage(stage.title) if isinstance(stage, CompressCheckpoint) else None

    def _training(self, title: str, settings: TrainingSettings) -> PlannedStage:
        details, seconds, memory = [], 0.0, 0.0
        for phase in settings.phases:
            chosen = [self._effort(name) for name in self.head.trained(phase)]
            batch_size = phase.batch_size or settings.batch_size
            taught = settings.losses_of(phase).runs_teacher
            seconds += sum(each.training_s(phase.steps, batch_size) for each in chosen)
            seconds += taught * phase.steps * batch_size * sum(each.forward_s for each in chosen)
            held = sum(each.training_bytes(batch_size) + taught * each.weight_bytes for each in chosen)
            memory = max(memory, _PROGRAM_BYTES + held)
            epochs = phase.steps * batch_size / self.samples
            named = " and ".join(phase.components) or "all components"
            details.append(f"{named}: {phase.steps:,} steps of {batch_size} ({epochs:.2g} epochs)")
        return PlannedStage(title, tuple(details), seconds, memory)

    def _effort(self, name: str) -> Effort:
        if name not in self.efforts:
            raise RecipeError(f"this model has no component {name!r}, only {', '.join(self.efforts)}")
        return self.efforts[name]
