"""What a checkpoint costs: parameters, multiply-adds, and bytes in int8."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.compress.costs import Cost, Example, cost_of
from pocketvl.pipelines.stages.towers import TORCH, check_source, example_inputs
from pocketvl.stage import Inputs, Stage

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint

_COSTS_FILE = "costs.json"


def costs_of(checkpoint: Checkpoint) -> dict[str, Cost]:
    """What each of a checkpoint's components costs."""
    return {
        name: cost_of(component.module, example_inputs(component))
        for name, component in checkpoint.components.items()
    }


def tower_example(checkpoint: Checkpoint, component: str) -> Example:
    """A component's input for a batch of 1, or all of its inputs."""
    inputs = example_inputs(checkpoint.contract.components[component])
    return inputs[0] if len(inputs) == 1 else inputs


@dataclass(frozen=True)
class MeasureCosts(Stage):
    """What all components of a checkpoint cost together."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = TORCH

    checkpoint: Path | Stage

    @property
    def title(self) -> str:
        return "count parameters and multiply-adds"

    def requires(self, source: Inputs) -> None:
        if isinstance(self.checkpoint, Path):
            check_source(source["checkpoint"])

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import open_checkpoint

        total = sum(costs_of(open_checkpoint(source["checkpoint"])).values(), Cost())
        (out / _COSTS_FILE).write_text(json.dumps(asdict(total)) + "\n", encoding="utf-8")


def read_costs(folder: Path) -> Cost:
    """What a `MeasureCosts` found."""
    return Cost(**json.loads((folder / _COSTS_FILE).read_text(encoding="utf-8")))
