"""A checkpoint whose weights have learned to live on a grid of few bits, and stay floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.observe.settings import CalibrationSettings
from pocketvl.pipelines.stages.compressing import feeds_of
from pocketvl.pipelines.stages.learning import PairData, read_pairs, states_of, training_machine
from pocketvl.pipelines.stages.towers import TORCH, example_inputs
from pocketvl.quantize.settings import QatSettings
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.manifest import Precision, Role

if TYPE_CHECKING:
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.network.integers import QuantizedTower


@dataclass(frozen=True)
class LearnOnGrids(Stage):
    """Quantization-aware training of a checkpoint, taught by itself in float.

    Ranges are measured on its training data; those that ship are measured again when it is exported.

    Attributes:
        student: a checkpoint.
        data: what it is shown.
        precision: int8 or int4.
        settings: how it is trained.
    """

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "accelerate", "scipy")
    resumes: ClassVar[bool] = True

    student: Path | Stage
    data: PairData
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

        states = states_of(source)
        student = open_checkpoint(source["student"])
        image, text = (student.tower(name) for name in student.roles)
        towers = (
            self._integers(student, image, student.roles[0], source),
            self._integers(student, text, student.roles[1], source),
        )
        data = read_pairs(source["data"])
        trained = train_qat(
            (image, text), towers, student.logit_scale, data, self.settings, states, source.progress
        )
        for module, finished in zip((image, text), trained, strict=True):
            module.load_state_dict(finished.state)
        student.save(out)

    def _integers(
        self, student: Checkpoint, module: nn.Module, component: str, source: Inputs
    ) -> QuantizedTower:
        """A tower on the grids that it starts from."""
        from pocketvl.observe.calibrate import calibrate
        from pocketvl.quantize.structure import final_linear, token_tables
        from pocketvl.quantize.tower import quantize_tower, tower_spec

        example = example_inputs(student.contract.components[component])
        tables, final = token_tables(module, example), final_linear(module, example)
        spec = tower_spec(module, self.precision, tables, final)
        seen = calibrate(
            module, feeds_of(student, source, Role(component)), CalibrationSettings(second_moments=True)
        )
        return quantize_tower(module, spec, seen)
