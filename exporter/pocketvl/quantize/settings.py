"""Settings of quantization. (Without torch, so that recipes can be read quickly.)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pocketvl.errors import RecipeError
from pocketvl.settings import Positive, Settings, Weight
from pocketvl.train.settings import BatchSize, Precision, TrainingSettings


class Rounding(StrEnum):
    """Round to nearest, or GPTQ: later weights compensate for the rounding error of earlier ones."""

    NEAREST = "nearest"
    GPTQ = "gptq"


@dataclass(frozen=True)
class QuantizeSettings(Settings):
    """Settings of weight rounding and bias correction.

    Attributes:
        clip_weights: take the scales with the least error instead of those that reach the largest weight.
        rounding: nearest, or gptq.
        correct_bias: give back what rounding moved the mean of an output by.
    """

    clip_weights: bool = True
    rounding: Rounding = Rounding.GPTQ
    correct_bias: bool = True


@dataclass(frozen=True)
class QatSettings(TrainingSettings):
    """Settings of quantization-aware training, distilled from the float components.

    Attributes:
        scale_rate: of scales and offsets, as a factor on the learning rate: what a step moves, relative to
            the grid.
    """

    batch_size: BatchSize = 64
    learning_rate: Positive = 2e-5
    weight_decay: Weight = 0.0
    mirror: bool = False
    scale_rate: Positive = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.runs_teacher:
            raise RecipeError("losses: grids are trained by outputs and labels, not by hidden or attention")
        if self.precision is not Precision.FLOAT32:
            raise RecipeError("precision: grids are trained in float32")
