"""Cost of a checkpoint: parameters, multiply-adds, and bytes in int8."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pocketvl.compress.costs import Cost, total_cost
from pocketvl.pipelines.stages.components import TORCH, check_source
from pocketvl.stage import Inputs, Stage

_COSTS_FILE = "costs.json"


@dataclass(frozen=True)
class MeasureCosts(Stage):
    """Measure the total cost of a checkpoint's components."""

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

        total = total_cost(open_checkpoint(source["checkpoint"]))
        (out / _COSTS_FILE).write_text(json.dumps(asdict(total)) + "\n", encoding="utf-8")


def read_costs(folder: Path) -> Cost:
    """Read the result of `MeasureCosts`."""
    return Cost(**json.loads((folder / _COSTS_FILE).read_text(encoding="utf-8")))
