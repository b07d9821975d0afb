"""From prepared towers to their integers."""

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
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.pipelines.stages.towers import (
    TORCH,
    CalibrationFeeds,
    EqualizeTower,
    Feeds,
    OfTower,
    PrepareTower,
    open_component,
    save_weights,
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
class CalibrateTower(OfTower, Stage):
    """What a tower's layers saw of calibration data; every precision of the tower is made of it."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "scipy")

    tower: PrepareTower | EqualizeTower
    feeds: CalibrationFeeds
    settings: CalibrationSettings = field(default_factory=CalibrationSettings)

    @property
    def title(self) -> str:
        return f"calibrate {self.component}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.observe.calibrate import calibrate

        module = open_component(self.source, self.component, source["tower"]).module
        calibrate(module, Feeds(source["feeds"], self.component), self.settings, source.progress).save(out)


@dataclass(frozen=True)
class QuantizeTower(OfTower, Stage):
    """One tower's integers in one precision; both engines get them."""

    version: ClassVar[int] = 6
    tools: ClassVar[tuple[str, ...]] = TORCH

    tower: PrepareTower | EqualizeTower
    calibration: CalibrateTower
    precision: Precision
    weights: QuantizeSettings = field(default_factory=QuantizeSettings)
    group_size: int = 32

    @property
    def title(self) -> str:
        return f"quantize {self.component} to {self.precision.value}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.observe.calibration import Calibration
        from pocketvl.observe.structure import final_linear, token_tables
        from pocketvl.quantize.tower import quantize_tower, tower_spec

        component = open_component(self.source, self.component, source["tower"])
        module, example = component.module, example_inputs(component)
        tables, final = token_tables(module, example), final_linear(module, example)
        spec = tower_spec(module, self.precision, tables, final, self.group_size)
        quantize_tower(module, spec, Calibration.load(source["calibration"]), self.weights).save(out)


@dataclass(frozen=True)
class TrainQat(Stage):
    """Components trained on their grids: weights and integers of each."""

    version: ClassVar[int] = 4
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "accelerate")
    resumes: ClassVar[bool] = True

    towers: tuple[PrepareTower | EqualizeTower, ...]
    integers: tuple[QuantizeTower, ...]
    data: TrainingData
    settings: QatSettings

    @property
    def source(self) -> Path:
        """The checkpoint."""
        return self.towers[0].source

    @property
    def precision(self) -> Precision:
        """What the towers are trained for."""
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
        from pocketvl.network.integers import QuantizedTower
        from pocketvl.quantize.qat import train_qat
        from pocketvl.tasks.training_tasks import training_task

        states, samples = states_of(source), read_samples(source["data"])
        names = [stage.component for stage in self.towers]
        modules = {
            name: open_component(self.source, name, folder).module
            for name, folder in zip(names, source.all("towers"), strict=True)
        }
        integers = zip(names, source.all("integers"), strict=True)
        towers = {name: QuantizedTower.load(folder) for name, folder in integers}
        task = training_task(read_contract(self.source))
        trained = train_qat(task, modules, towers, samples, self.settings, states, source.progress)
        for name, (state, tower) in trained.items():
            folder = out / name
            folder.mkdir()
            save_weights(state, folder)
            tower.save(folder)


@dataclass(frozen=True)
class TrainedTower(Stage):
    """One of the towers of a training: its weights and its integers."""

    version: ClassVar[int] = 1

    training: TrainQat
    component: str

    @property
    def source(self) -> Path:
        """The checkpoint."""
        return self.training.source

    @property
    def precision(self) -> Precision:
        """What it was trained for."""
        return self.training.precision

    @property
    def title(self) -> str:
        return f"take the trained {self.component}"

    def run(self, source: Inputs, out: Path) -> None:
        trained = source["training"] / self.component
        shutil.copytree(trained, out, dirs_exist_ok=True, copy_function=link_or_copy)


@dataclass(frozen=True)
class ChooseLayers(Stage):
    """A tower of which some layers are taken from others, or stay in float.

    Attributes:
        towers: the tower, and then the same in other precisions.
        changes: pairs of a layer's name and the place in `towers` from where it is taken; -1 for float.
    """

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("numpy", "safetensors")

    towers: tuple[QuantizeTower | TrainedTower, ...]
    changes: tuple[tuple[str, int], ...]

    @property
    def component(self) -> str:
        """Whose layers they are."""
        return self.towers[0].component

    @property
    def title(self) -> str:
        return f"choose layers of {self.component}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.network.integers import QuantizedTower

        first, *others = (QuantizedTower.load(folder) for folder in source.all("towers"))
        changes = dict(self.changes)
        unknown = sorted(set(changes) - set(first.layers))
        if unknown:
            raise RecipeError(f"{self.component} has no quantized layer {unknown[0]!r}")
        towers = (first, *others)
        places = {name: changes.get(name, 0) for name in first.layers}
        chosen = {name: towers[place].layers[name] for name, place in places.items() if place >= 0}
        QuantizedTower(chosen).save(out)


@dataclass(frozen=True)
class RankLayers(OfTower, Stage):
    """What quantizing each group of a tower's layers alone costs, measured on calibration data."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = TORCH

    tower: PrepareTower | EqualizeTower | TrainedTower
    integers: QuantizeTower | TrainedTower
    feeds: CalibrationFeeds
    samples: int = 128

    @property
    def title(self) -> str:
        return f"rank the layers of {self.component} in {self.integers.precision.value}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.network.integers import QuantizedTower
        from pocketvl.quantize.sensitivity import measure_sensitivity

        module = open_component(self.source, self.component, source["tower"]).module
        feeds = Feeds(source["feeds"], self.component, _BATCH, self.samples)
        tower = QuantizedTower.load(source["integers"])
        ranked = measure_sensitivity(module, tower, feeds, source.progress)
        told = [dataclasses.asdict(each) for each in ranked]
        (out / _SENSITIVITY_FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_ranking(folder: Path) -> tuple[LayerSensitivity, ...]:
    """What a `RankLayers` found, worst first."""
    from pocketvl.quantize.ranking import LayerSensitivity

    text = (folder / _SENSITIVITY_FILE).read_text(encoding="utf-8")
    return TypeAdapter(tuple[LayerSensitivity, ...]).validate_json(text)


def loss_by_layer(ranking: Iterable[LayerSensitivity]) -> dict[str, float]:
    """What each layer loses; layers that were measured together share their loss."""
    return {layer: group.loss / len(group.layers) for group in ranking for layer in group.layers}
