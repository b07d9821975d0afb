"""What a checkpoint costs: parameters, multiply-adds, and bytes in int8."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.compress.costs import Cost, Example, cost_of
from pocketvl.pipelines.stages.towers import TORCH, check_source, example_of
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.manifest import Role

if TYPE_CHECKING:
    from pocketvl.families.trainable import Trainable

_COSTS_FILE = "costs.json"


def costs_of(checkpoint: Trainable) -> dict[Role, Cost]:
    """What each of a checkpoint's towers costs."""
    return {
        role: cost_of(checkpoint.tower(role), tower_example(checkpoint, role)) for role in checkpoint.roles
    }


def tower_example(checkpoint: Trainable, role: Role) -> Example:
    """An input of batch 1 for a tower, or all of its inputs."""
    if role is Role.FUSION:
        both = (Role.IMAGE_ENCODER, Role.TEXT_ENCODER)
        return tuple(example_of(checkpoint.preprocess, checkpoint.tokenizer, each) for each in both)
    return example_of(checkpoint.preprocess, checkpoint.tokenizer, role)


@dataclass(frozen=True)
class MeasureCosts(Stage):
    """What all towers of a checkpoint cost together."""

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
        from pocketvl.families import open_trainable

        total = sum(costs_of(open_trainable(source["checkpoint"])).values(), Cost())
        (out / _COSTS_FILE).write_text(json.dumps(asdict(total)) + "\n", encoding="utf-8")


def read_costs(folder: Path) -> Cost:
    """What a `MeasureCosts` found."""
    return Cost(**json.loads((folder / _COSTS_FILE).read_text(encoding="utf-8")))
