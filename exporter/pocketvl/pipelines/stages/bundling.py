"""From graph files to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pocketvl.data.dataset import Dataset
from pocketvl.pipelines.bundle import provenance_of, write_base, write_bundle
from pocketvl.pipelines.stages.components import TORCH, check_source, this_machine
from pocketvl.pipelines.stages.lowering import GraphStage
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.schema import dump_json


@dataclass(frozen=True)
class MakeGoldenPack(Stage):
    """A bundle without graphs: manifest, tokenizer, and the golden pack with torch's answers."""

    version: ClassVar[int] = 5
    tools: ClassVar[tuple[str, ...]] = TORCH

    source: Path
    calibration: Path
    name_in_bundle: str

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def requires(self, source: Inputs) -> None:
        check_source(source["source"])

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import open_checkpoint

        opened = open_checkpoint(source["source"])
        opened.contract = replace(opened.contract, name=self.name_in_bundle)
        write_base(opened, Dataset.open(source["calibration"]), out)


@dataclass(frozen=True)
class AssembleBundle(Stage):
    """A bundle with every variant whose graphs are given, not judged yet."""

    version: ClassVar[int] = 5
    tools: ClassVar[tuple[str, ...]] = ("onnx", "ai-edge-litert")

    base: MakeGoldenPack
    graphs: tuple[GraphStage, ...]

    def environment(self) -> Mapping[str, str]:
        return {
            "provenance": dump_json(provenance_of(self._made_by))
        }  # equal graphs may be made in another way

    @property
    def _made_by(self) -> tuple[Stage, ...]:
        return (self.base, *self.graphs)

    def run(self, source: Inputs, out: Path) -> None:
        folders = source.all("graphs")
        paths = [folder / stage.file for folder, stage in zip(folders, self.graphs, strict=True)]
        write_bundle(source["base"], paths, self._made_by, out)
