"""From what a user asks for to the stages of every variant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType

from pocketvl.errors import RecipeError
from pocketvl.families import family_of, parameter_counts, read_contract
from pocketvl.families.layers.segments import Blocks
from pocketvl.lower.backends import backend_of
from pocketvl.lower.forms import described, form_of
from pocketvl.network.precisions import PLANS, QUANTIZED, Storage, WeightGrids
from pocketvl.network.specification import LayerSpec
from pocketvl.pipelines.stages.calibrating import (
    CalibrateComponent,
    CalibrateProducts,
    EqualizeComponent,
    NoteCalibration,
)
from pocketvl.pipelines.stages.components import (
    CalibrationFeeds,
    PrepareComponent,
    check_second_head,
)
from pocketvl.pipelines.stages.lowering import CastFp16, GraphStage, LowerGraph, LowerQuantized
from pocketvl.pipelines.stages.quantizing import (
    ChooseLayers,
    QuantizeComponent,
    RankLayers,
    TrainedComponent,
    TrainQat,
)
from pocketvl.pipelines.stages.training import TrainingData, head_training, training_rows
from pocketvl.quantize.settings import Rounding
from pocketvl.recipes.export_recipe import ExportRecipe
from pocketvl_runtime.manifest import Engine, Precision, component_of, variant_name

DEFAULT_VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-fp16", "tflite-int8")
Variants = Mapping[str, tuple[Engine, Precision]]
Prepared = PrepareComponent | EqualizeComponent
_GRIDS = WeightGrids()


def refused_layer(engine: Engine, precision: Precision, grids: WeightGrids = _GRIDS) -> LayerSpec | None:
    """What an engine does not run of the layers of a precision; None where it runs all of them."""
    plan = PLANS[precision].layers
    if plan is None:
        return None
    layers = plan.with_weights(grids)
    wanted = (layers.linear, layers.output, layers.convolution, layers.table)
    forms = backend_of(engine).forms
    return next((spec for spec in wanted if form_of(precision.value, spec) not in forms), None)


_EVERY: Variants = MappingProxyType(
    {
        variant_name(engine, precision): (engine, precision)
        for engine in Engine
        for precision, plan in PLANS.items()
        if plan.base is None and refused_layer(engine, precision) is None
    }
)


def checked_variants(names: Iterable[str]) -> Variants:
    """The variants of these names, sorted.

    Raises:
        RecipeError: there are none, or one is unknown.
    """
    wanted = tuple(names)
    unknown = [name for name in wanted if name not in _EVERY]
    if unknown or not wanted:
        raise RecipeError(f"variants: {', '.join(unknown) or 'none given'}; there are {', '.join(_EVERY)}")
    return {name: _EVERY[name] for name in sorted(wanted)}


@dataclass(frozen=True)
class Fallbacks:
    """Layers moved to a higher precision: by component, pairs of a layer and that precision."""

    layers: Mapping[str, tuple[tuple[str, Precision], ...]] = field(default_factory=dict)

    def of(self, component: str) -> tuple[tuple[str, Precision], ...]:
        """The fallbacks of one component."""
        return tuple(self.layers.get(component, ()))

    def with_group(self, component: str, layers: Iterable[str], precision: Precision) -> Fallbacks:
        """The same, and these layers too."""
        merged = {**dict(self.of(component)), **dict.fromkeys(layers, precision)}
        return replace(self, layers={**self.layers, component: tuple(sorted(merged.items()))})


@dataclass(frozen=True)
class VariantStages:
    """Makes the stages of variants.

    Attributes:
        source: the checkpoint.
        calibration: a dataset folder.
        recipe: how components are quantized.
        is_quantized: whether any variant is, so that components are worth equalizing.
        train: a dataset folder to train on, where the recipe trains.
    """

    source: Path
    calibration: Path
    recipe: ExportRecipe
    is_quantized: bool
    train: Path | None = None

    @property
    def components(self) -> tuple[str, ...]:
        """The components that become graphs, by name."""
        return family_of(self.source).components

    @cached_property
    def parameter_counts(self) -> Mapping[str, Mapping[str, int]]:
        """How many numbers each parameter of each component has."""
        return parameter_counts(read_contract(self.source))

    def with_read(self, components: Collection[str]) -> frozenset[str]:
        """Components, and those whose outputs they read: what is far away after them may come from there."""
        ports = read_contract(self.source).components if components else {}
        inputs = (port.source or "" for name in components for port in ports[name].inputs)
        return frozenset(components) | {component_of(each) for each in inputs if "." in each}

    @property
    def feeds(self) -> CalibrationFeeds:
        """Calibration samples for every component."""
        return CalibrationFeeds(self.source, self.calibration)

    def prepared(self, component: str) -> Prepared:
        """A component ready to be lowered in float, or quantized."""
        prepared = PrepareComponent(self.source, component)
        return (
            EqualizeComponent(prepared, self.calibration_of(component))
            if self.is_quantized and self.recipe.equalize
            else prepared
        )

    def calibration_of(self, component: str) -> CalibrateComponent:
        """Activation statistics of a component's layers on the calibration data, before it is equalized."""
        recipe = self.recipe
        needs_moments = recipe.equalize or recipe.weights.rounding is Rounding.GPTQ
        settings = replace(recipe.calibration, second_moments=needs_moments)
        prepared = PrepareComponent(self.source, component)
        return CalibrateComponent(prepared, self.feeds, settings, recipe.equalize)

    def calibration_notes(self, component: str) -> NoteCalibration:
        """What is doubtful about the calibration data."""
        return NoteCalibration(self.calibration_of(component))

    def products_of(self, component: str) -> CalibrateProducts | None:
        """Activation statistics of attention's products, where the recipe quantizes those."""
        recipe = self.recipe
        if recipe.products is None:
            return None
        return CalibrateProducts(self.prepared(component), self.feeds, recipe.calibration, recipe.products)

    def integers(self, component: str, precision: Precision) -> QuantizeComponent | TrainedComponent:
        """A component quantized to a precision, without fallbacks."""
        qat = self.recipe.qat
        if qat is not None and qat.precision is precision:
            if self.train is None:
                raise RecipeError("the recipe trains: give it a dataset folder with --train")
            check_second_head(self.source, "a recipe that trains")
            prepared = tuple(self.prepared(each) for each in self.components)
            quantized = tuple(self._quantized(each, precision) for each in self.components)
            head = head_training(self.source)
            training = head.planned(qat.training, partial(training_rows, head.kind, self.train))
            trained = TrainQat(prepared, quantized, TrainingData(self.source, self.train), training)
            return TrainedComponent(trained, component)
        return self._quantized(component, precision)

    def floats(self, component: str, precision: Precision) -> Prepared | TrainedComponent:
        """The float component that the integers of a precision belong to."""
        integers = self.integers(component, precision) if precision in QUANTIZED else None
        return integers if isinstance(integers, TrainedComponent) else self.prepared(component)

    def ranking(self, component: str, precision: Precision) -> RankLayers:
        """The layers of a quantized component by how much they cost."""
        return RankLayers(self.floats(component, precision), self.integers(component, precision), self.feeds)

    def graph(self, component: str, engine: Engine, precision: Precision, fallbacks: Fallbacks) -> GraphStage:
        """One graph of a variant."""
        refused = refused_layer(engine, precision, self.recipe.grids)
        if refused is not None:
            raise RecipeError(
                f"{variant_name(engine, precision)} would hold layers that are {described(refused)}, which "
                f"{backend_of(engine).title} does not run: leave out the variant, or the recipe's zero_points"
            )
        plan = PLANS[precision]
        products = self.recipe.products if (plan.base or precision) is Precision.INT8 else None
        in_blocks = products not in (None, Blocks.WHOLE)
        lowered = LowerGraph(self.floats(component, precision), engine, in_blocks)
        if plan.storage is Storage.FLOAT32:
            return lowered
        if plan.storage is Storage.FLOAT16:
            return CastFp16(lowered)
        integers = self.integers(component, plan.base or precision)
        changes = fallbacks.of(component)
        if not changes and plan.base is None:
            return LowerQuantized(lowered, integers, precision)
        others = tuple(p for p in QUANTIZED if p in {fallback for _, fallback in changes})
        choices = (integers, *(self._quantized(component, other) for other in others))
        indices = {other: k for k, other in enumerate(others, start=1)}
        chosen = tuple((layer, indices.get(fallback, -1)) for layer, fallback in changes)
        return LowerQuantized(lowered, ChooseLayers(choices, chosen), precision)

    def graphs(self, engine: Engine, precision: Precision, fallbacks: Fallbacks) -> tuple[GraphStage, ...]:
        """The graphs of a variant, one a component."""
        return tuple(self.graph(name, engine, precision, fallbacks) for name in self.components)

    def _quantized(self, component: str, precision: Precision) -> QuantizeComponent:
        recipe = self.recipe
        return QuantizeComponent(
            self.prepared(component),
            self.calibration_of(component),
            precision,
            recipe.weights,
            recipe.grids,
            self.products_of(component) if precision is Precision.INT8 else None,
        )
