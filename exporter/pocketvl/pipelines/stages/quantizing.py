"""Quantizing and training prepared components."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import TypeAdapter

from pocketvl.errors import RecipeError
from pocketvl.families.base import example_inputs
from pocketvl.families.folders.files import checkpoint_files
from pocketvl.families.layers.segments import Blocks
from pocketvl.network.precisions import WeightGrids
from pocketvl.network.specification import INT8_PRODUCT
from pocketvl.pipelines.stages.calibrating import (
    CalibrateComponent,
    CalibrateProducts,
    EqualizeComponent,
)
from pocketvl.pipelines.stages.components import (
    TORCH,
    CalibrationFeeds,
    Feeds,
    OfComponent,
    PrepareComponent,
    open_component,
    save_weights,
    segments_of,
)
from pocketvl.pipelines.stages.training import TrainingData, read_samples, states_of, training_machine
from pocketvl.quantize.settings import QatSettings, QuantizeSettings
from pocketvl.stage import Inputs, Stage, link_or_copy
from pocketvl_runtime.manifest import Precision

if TYPE_CHECKING:
    from pocketvl.quantize.ranking import LayerSensitivity

_SENSITIVITY_FILE = "sensitivity.json"
_BATCH = 32


@dataclass(frozen=True)
class QuantizeComponent(OfComponent, Stage):
    """One component quantized to one precision, for all engines."""

    version: ClassVar[int] = 8
    tools: ClassVar[tuple[str, ...]] = TORCH
    keeps: ClassVar[bool] = False

    prepared: PrepareComponent | EqualizeComponent
    calibration: CalibrateComponent
    precision: Precision
    weights: QuantizeSettings = field(default_factory=QuantizeSettings)
    grids: WeightGrids = field(default_factory=WeightGrids)
    products: CalibrateProducts | None = None

    @property
    def title(self) -> str:
        return f"quantize {self.component} to {self.precision.value}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.observe.calibration import Calibration
        from pocketvl.observe.structure import final_linear, token_tables
        from pocketvl.quantize.component import component_spec, quantize_component
        from pocketvl.quantize.equalize import equalized_calibration
        from pocketvl.quantize.equalized import read_equalized
        from pocketvl.quantize.products import product_shapes

        component = open_component(self.source, self.component, source["prepared"])
        module, example = component.module, example_inputs(component)
        tables, final = token_tables(module, example), final_linear(module, example)
        aside = component.unquantized, component.dynamic
        spec = component_spec(module, self.precision, tables, final, self.grids, *aside)
        seen = Calibration.load(source["calibration"])
        if isinstance(self.prepared, EqualizeComponent):
            seen = equalized_calibration(seen, read_equalized(source["prepared"]))
        shapes: dict[str, tuple[int, int, int]] = {}
        if self.products is not None:
            seen = dataclasses.replace(seen, products=Calibration.load(source["products"]).products)
            spec = dataclasses.replace(spec, products=dict.fromkeys(seen.products, INT8_PRODUCT))
            every = Blocks.WHOLE if self.products.blocks is Blocks.WHOLE else Blocks.EACH
            inputs = tuple(value.numpy() for value in example)
            shapes = product_shapes(module, inputs, segments_of(component), every)
        quantized = quantize_component(module, spec, seen, self.weights)
        dataclasses.replace(quantized, product_shapes=shapes).save(out)


@dataclass(frozen=True)
class TrainQat(Stage):
    """Quantization-aware training of the components: weights and integers of each."""

    version: ClassVar[int] = 6
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "accelerate")
    resumes: ClassVar[bool] = True

    prepared: tuple[PrepareComponent | EqualizeComponent, ...]
    integers: tuple[QuantizeComponent, ...]
    data: TrainingData
    settings: QatSettings

    @property
    def source(self) -> Path:
        """The checkpoint."""
        return self.prepared[0].source

    @property
    def precision(self) -> Precision:
        """The precision that the components are trained for."""
        return self.integers[0].precision

    @property
    def title(self) -> str:
        return f"train for {self.precision.value}"

    def reads(self) -> Mapping[str, Path]:
        return checkpoint_files(self.source)  # with its weights: the scale of similarities is one of them

    def environment(self) -> Mapping[str, str]:
        return training_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import read_contract
        from pocketvl.network.integers import QuantizedComponent
        from pocketvl.quantize.qat import train_qat
        from pocketvl.tasks.training_tasks import training_task

        states, samples = states_of(source), read_samples(source["data"])
        names = [stage.component for stage in self.prepared]
        modules = {
            name: open_component(self.source, name, folder).module
            for name, folder in zip(names, source.all("prepared"), strict=True)
        }
        integers = zip(names, source.all("integers"), strict=True)
        components = {name: QuantizedComponent.load(folder) for name, folder in integers}
        task = training_task(read_contract(self.source))
        trained = train_qat(task, modules, components, samples, self.settings, states, source.progress)
        for name, (state, component) in trained.items():
            folder = out / name
            folder.mkdir()
            save_weights(state, folder)
            component.save(folder)


@dataclass(frozen=True)
class TrainedComponent(Stage):
    """One of the components of a training: its weights and its integers."""

    version: ClassVar[int] = 1

    training: TrainQat
    component: str

    @property
    def source(self) -> Path:
        """The checkpoint."""
        return self.training.source

    @property
    def precision(self) -> Precision:
        """The precision that it was trained for."""
        return self.training.precision

    @property
    def title(self) -> str:
        return f"take the trained {self.component}"

    def run(self, source: Inputs, out: Path) -> None:
        trained = source["training"] / self.component
        shutil.copytree(trained, out, dirs_exist_ok=True, copy_function=link_or_copy)


@dataclass(frozen=True)
class ChooseLayers(Stage):
    """A quantized component with some layers in other precisions, or in float.

    Attributes:
        quantized: the component, and then the same in other precisions.
        changes: pairs of a layer's name and the index in `quantized` from where it is taken; -1 for float.
    """

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = ("numpy", "safetensors")

    quantized: tuple[QuantizeComponent | TrainedComponent, ...]
    changes: tuple[tuple[str, int], ...]

    @property
    def component(self) -> str:
        """The component's name."""
        return self.quantized[0].component

    @property
    def title(self) -> str:
        return f"choose layers of {self.component}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.network.integers import QuantizedComponent

        first, *others = (QuantizedComponent.load(folder) for folder in source.all("quantized"))
        changes = dict(self.changes)
        unknown = sorted(set(changes) - set(first.layers))
        if unknown:
            raise RecipeError(f"{self.component} has no quantized layer {unknown[0]!r}")
        quantized = (first, *others)
        indices = {name: changes.get(name, 0) for name in first.layers}
        chosen = {name: quantized[k].layers[name] for name, k in indices.items() if k >= 0}
        dataclasses.replace(first, layers=chosen).save(out)


@dataclass(frozen=True)
class RankLayers(OfComponent, Stage):
    """Quantization sensitivity of each group of a component's layers, measured on calibration data."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = TORCH

    prepared: PrepareComponent | EqualizeComponent | TrainedComponent
    integers: QuantizeComponent | TrainedComponent
    feeds: CalibrationFeeds
    samples: int = 32

    @property
    def title(self) -> str:
        return f"rank the layers of {self.component} in {self.integers.precision.value}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.network.integers import QuantizedComponent
        from pocketvl.quantize.sensitivity import measure_sensitivity

        module = open_component(self.source, self.component, source["prepared"]).module
        feeds = Feeds(source["feeds"], self.component, _BATCH, self.samples)
        component = QuantizedComponent.load(source["integers"])
        ranked = measure_sensitivity(module, component, feeds, source.progress)
        document = [dataclasses.asdict(each) for each in ranked]
        (out / _SENSITIVITY_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_ranking(folder: Path) -> tuple[LayerSensitivity, ...]:
    """Read the result of `RankLayers`, worst first."""
    from pocketvl.quantize.ranking import LayerSensitivity

    text = (folder / _SENSITIVITY_FILE).read_text(encoding="utf-8")
    return TypeAdapter(tuple[LayerSensitivity, ...]).validate_json(text)


def loss_by_layer(ranking: Iterable[LayerSensitivity]) -> dict[str, float]:
    """The loss of each layer; layers that were measured together share theirs."""
    return {layer: group.loss / len(group.layers) for group in ranking for layer in group.layers}
