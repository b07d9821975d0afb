"""Quantization-aware training of a checkpoint, whose weights stay floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.observe.settings import CalibrationSettings
from pocketvl.pipelines.stages.compressing import feeds_of
from pocketvl.pipelines.stages.towers import TORCH, example_inputs
from pocketvl.pipelines.stages.training import TrainingData, read_samples, states_of, training_machine
from pocketvl.quantize.settings import QatSettings
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.manifest import Precision, Role

if TYPE_CHECKING:
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.network.integers import QuantizedTower


@dataclass(frozen=True)
class TrainCheckpointQat(Stage):
    """A checkpoint whose float weights were trained on the grids of a precision, distilled from itself.

    Ranges are measured on its training data; those that ship are measured again when it is exported.

    Attributes:
        student: a checkpoint.
        data: what it is trained on.
        precision: int8 or int4.
        settings: how it is trained.
    """

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "accelerate", "scipy")
    resumes: ClassVar[bool] = True

    student: Path | Stage
    data: TrainingData
    precision: Precision
    settings: QatSettings

    @property
    def title(self) -> str:
        return f"train for {self.precision.value}"

    def environment(self) -> Mapping[str, str]:
        return training_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import open_checkpoint
        from pocketvl.quantize.qat import train_qat
        from pocketvl.tasks.training_tasks import training_task

        states = states_of(source)
        student, samples = open_checkpoint(source["student"]), read_samples(source["data"])
        task = training_task(student.contract)
        modules = {name: student.tower(name) for name in task.components}
        towers = {name: self._integers(student, modules[name], name, source) for name in modules}
        trained = train_qat(task, modules, towers, samples, self.settings, states, source.progress)
        for name, module in modules.items():
            module.load_state_dict(trained[name].state)
        student.save(out)

    def _integers(self, student: Checkpoint, module: nn.Module, name: str, source: Inputs) -> QuantizedTower:
        """A component on the grids that it starts from."""
        from pocketvl.observe.calibrate import calibrate
        from pocketvl.quantize.structure import final_linear, token_tables
        from pocketvl.quantize.tower import quantize_tower, tower_spec

        example = example_inputs(student.contract.components[name])
        tables, final = token_tables(module, example), final_linear(module, example)
        spec = tower_spec(module, self.precision, tables, final)
        feeds = feeds_of(student, source, Role(name))
        seen = calibrate(module, feeds, CalibrationSettings(second_moments=True))
        return quantize_tower(module, spec, seen)
