"""Quantization-aware training as a step of a compression: weights stay floats, and lose less when rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pocketvl.errors import RecipeError
from pocketvl.quantize.settings import QatSettings
from pocketvl.train.method import CompressionMethod, MethodInputs, Trait
from pocketvl_runtime.manifest import Precision

if TYPE_CHECKING:
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.network.integers import QuantizedTower

_TRAINED = ("image_encoder", "text_encoder")


@dataclass(frozen=True)
class LearnOnGrids(CompressionMethod):
    """Quantization-aware training of both encoders, distilled from themselves in float.

    Ranges are measured on the training data; those that ship are measured again by an export.

    Attributes:
        precision: int8 or int4.
        training: how it is trained.
    """

    kind: ClassVar[str] = "qat"
    refuses: ClassVar[Mapping[Trait, str]] = {
        Trait.SPARSE: "sparsify comes before qat, which would fill the zeros: leave one of them out"
    }
    trains: ClassVar[bool] = True

    precision: Precision = Precision.INT8
    training: QatSettings = field(default_factory=QatSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in (Precision.INT8, Precision.INT4):
            raise RecipeError(f"precision: int8 or int4, not {self.precision}")

    def title(self, fraction: float) -> str:
        return f"train for {self.precision.value}"

    def check(self, components: Sequence[str]) -> None:
        if tuple(components) != _TRAINED:
            raise RecipeError(
                f"qat is for models with an {' and a '.join(_TRAINED)}; the components of this one: "
                f"{', '.join(components)}"
            )

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        from pocketvl.quantize.qat import train_qat
        from pocketvl.train.pairs import PairedData

        assert isinstance(inputs.data, PairedData)
        assert inputs.work is not None
        image, text = (checkpoint.component(name).module for name in _TRAINED)
        quantized = (
            self._quantize(checkpoint, image, _TRAINED[0], inputs),
            self._quantize(checkpoint, text, _TRAINED[1], inputs),
        )
        trained = train_qat(
            (image, text),
            quantized,
            checkpoint.logit_scale,
            inputs.data,
            self.training,
            inputs.work,
            inputs.progress,
        )
        for module, finished in zip((image, text), trained, strict=True):
            module.load_state_dict(finished.state)
        return {}

    def _quantize(
        self, checkpoint: Checkpoint, module: nn.Module, component: str, inputs: MethodInputs
    ) -> QuantizedTower:
        """A component with the grids that training starts from."""
        from pocketvl.families.base import example_inputs
        from pocketvl.observe.calibrate import calibrate
        from pocketvl.observe.feeds import feeds_of
        from pocketvl.observe.settings import CalibrationSettings
        from pocketvl.observe.structure import final_linear, token_tables
        from pocketvl.quantize.tower import quantize_tower, tower_spec

        example = example_inputs(checkpoint.contract.components[component])
        tables, final = token_tables(module, example), final_linear(module, example)
        spec = tower_spec(module, self.precision, tables, final)
        feeds = feeds_of(checkpoint, inputs.data, component)
        return quantize_tower(
            module, spec, calibrate(module, feeds, CalibrationSettings(second_moments=True))
        )
