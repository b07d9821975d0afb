"""Quantization-aware training as a compression step, which leaves weights in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pocketvl.errors import RecipeError
from pocketvl.quantize.settings import QatSettings
from pocketvl.train.method import CompressionMethod, MethodInputs, Trait, check_components
from pocketvl_runtime.manifest import Precision

if TYPE_CHECKING:
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.network.integers import QuantizedComponent


@dataclass(frozen=True)
class QuantizationAwareTraining(CompressionMethod):
    """Fake-quantize components to a precision and distil them from their float originals.

    Ranges are measured on the training data; those that ship are measured again by an export.

    Attributes:
        training: how they are trained.
        precision: int8, int4 or int2.
    """

    kind: ClassVar[str] = "qat"
    refuses: ClassVar[Mapping[Trait, str]] = {
        Trait.SPARSE: "sparsify comes before qat, which would fill the zeros: leave one of them out"
    }
    trains: ClassVar[bool] = True

    training: QatSettings
    precision: Precision = Precision.INT8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in (Precision.INT8, Precision.INT4, Precision.INT2):
            raise RecipeError(f"precision: int8, int4 or int2, not {self.precision}")

    def title(self, fraction: float) -> str:
        return f"train for {self.precision.value}"

    def check(self, components: Sequence[str]) -> None:
        for phase in self.training.phases:
            check_components(phase.components, components)

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        from pocketvl.quantize.qat import train_qat
        from pocketvl.tasks.training_tasks import training_task

        assert inputs.work is not None
        task = training_task(checkpoint.contract)
        modules = {name: checkpoint.component(name).module for name in task.components}
        quantized = {
            name: self._quantize(checkpoint, module, name, inputs) for name, module in modules.items()
        }
        trained = train_qat(
            task, modules, quantized, inputs.data, self.training, inputs.work, inputs.progress
        )
        for name, module in modules.items():
            module.load_state_dict(trained[name].state)
        return {}

    def _quantize(
        self, checkpoint: Checkpoint, module: nn.Module, component: str, inputs: MethodInputs
    ) -> QuantizedComponent:
        """The calibrated, quantized component that training starts from."""
        from pocketvl.families.base import example_inputs
        from pocketvl.observe.calibrate import calibrate
        from pocketvl.observe.feeds import feeds_of
        from pocketvl.observe.settings import CalibrationSettings
        from pocketvl.observe.structure import final_linear, token_tables
        from pocketvl.quantize.component import component_spec, quantize_component

        example = example_inputs(checkpoint.contract.components[component])
        tables, final = token_tables(module, example), final_linear(module, example)
        whole = checkpoint.component(component)
        spec = component_spec(
            module, self.precision, tables, final, unquantized=whole.unquantized, dynamic=whole.dynamic
        )
        feeds = feeds_of(checkpoint, inputs.data, component)
        return quantize_component(
            module, spec, calibrate(module, feeds, CalibrationSettings(second_moments=True))
        )
