"""A checkpoint that a compression method made of another one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pocketvl.pipelines.stages.components import TORCH, this_machine
from pocketvl.pipelines.stages.training import (
    TrainingData,
    read_samples,
    read_texts,
    states_of,
    training_machine,
)
from pocketvl.stage import Inputs, Stage
from pocketvl.train.method import CompressionMethod, MethodInputs

STEP_FILE = "step.json"
"""Beside a checkpoint: what was done, and what components cost before and after."""


@dataclass(frozen=True)
class CompressCheckpoint(Stage):
    """A checkpoint after a round of a compression method.

    Attributes:
        source: the checkpoint that is changed.
        data: what the method looks at.
        start: the checkpoint before the first round.
        method: what is done.
        fraction: progress fraction after this round.
    """

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = (*TORCH, "scipy", "torch-pruning")

    source: Path | Stage
    data: TrainingData
    start: Path | Stage
    method: CompressionMethod
    fraction: float = 1.0

    @property
    def title(self) -> str:
        return self.method.title(self.fraction)

    def environment(self) -> Mapping[str, str]:
        return {**this_machine(), "method": f"{self.method.kind} {self.method.version}"}

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.compress.costs import costs_of
        from pocketvl.families import open_checkpoint

        checkpoint = open_checkpoint(source["source"])
        before = costs_of(checkpoint)
        inputs = MethodInputs(
            data=read_samples(source["data"]),
            start=source["start"],
            fraction=self.fraction,
            progress=source.progress,
            work=states_of(source) if self.method.trains else None,
            texts=read_texts(source["data"]),
        )
        report = {
            "done": self.method.run(checkpoint, inputs),
            "before": {name: asdict(cost) for name, cost in before.items()},
            "after": {name: asdict(cost) for name, cost in costs_of(checkpoint).items()},
        }
        checkpoint.save(out)
        (out / STEP_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class CompressByTraining(CompressCheckpoint):
    """The same for a method that trains: interrupted, it goes on; several processes do it together."""

    tools: ClassVar[tuple[str, ...]] = (*CompressCheckpoint.tools, "accelerate")
    resumes: ClassVar[bool] = True

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), **training_machine()}
