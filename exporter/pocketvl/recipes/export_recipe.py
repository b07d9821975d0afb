"""The export recipe (TOML): calibration, rounding, quantization-aware training and fallback."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from pocketvl.errors import RecipeError
from pocketvl.families.layers.segments import Blocks
from pocketvl.network.precisions import PLANS, WeightGrids
from pocketvl.network.specification import GROUP_SIZES
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.quantize.settings import QatSettings, QuantizeSettings
from pocketvl.recipes.toml import check_recipe, read_toml
from pocketvl.settings import Settings, Size
from pocketvl_runtime.manifest import Precision

FOLDER = "exporting"
DEFAULT = "default"


@dataclass(frozen=True)
class QatRecipe(Settings):
    """Quantization-aware training of one precision; all others are quantized after training.

    Attributes:
        precision: int8, int8dyn, int4 or int2.
        training: how.
    """

    precision: Precision
    training: QatSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        if not PLANS[self.precision].is_trainable:
            known = ", ".join(precision.value for precision, plan in PLANS.items() if plan.is_trainable)
            raise RecipeError(f"qat.precision is {self.precision.value}; there are {known}")


@dataclass(frozen=True)
class ExportRecipe(Settings):
    """How components are quantized.

    Attributes:
        equalize: even out outlier channels first.
        calibration: how activations' ranges are found.
        weights: how weights are rounded.
        group_size: weights of few bits that share a scale.
        zero_points: each group of 4-bit weights has a zero point, which ONNX Runtime alone runs; groups of 2
            bits always have one.
        per_tensor: the 8-bit weights of a layer share one scale, instead of those of an output channel.
        products: of static int8, which of attention's products of two activations are quantized too: "whole"
            ones, "each" block of text and image by itself, or the "cross"-modal blocks alone; by default
            none, for engines are slower with them (docs/CROSS_MODAL.md).
        most_growth: where the gate fails, layers move to a higher precision until it passes, or until the
            variant's files are this many times as large as they were.
        qat: trains one precision's components with their quantization in them.
    """

    equalize: bool = True
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    weights: QuantizeSettings = field(default_factory=QuantizeSettings)
    group_size: Size = 32
    zero_points: bool = False
    per_tensor: bool = False
    products: Blocks | None = None
    most_growth: Annotated[float, Field(ge=1)] = 1.5
    qat: QatRecipe | None = None

    @property
    def grids(self) -> WeightGrids:
        """What it chooses of a precision's grids for weights."""
        return WeightGrids(self.group_size, self.zero_points, self.per_tensor)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size not in GROUP_SIZES:
            raise RecipeError(
                f"group_size is {self.group_size}; there are {', '.join(map(str, GROUP_SIZES))}"
            )


def read_export_recipe(recipe: str) -> ExportRecipe:
    """Read a recipe by its name or from a .toml file.

    Raises:
        RecipeError: there is none, it is not TOML, or a key is unknown, missing or of the wrong type; the
            message names the key.
    """
    return check_recipe(ExportRecipe, read_toml(recipe, FOLDER), recipe)
