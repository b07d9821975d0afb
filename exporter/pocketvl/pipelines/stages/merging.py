"""Merging an adapter into its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pocketvl.stage import Inputs, Stage


@dataclass(frozen=True)
class MergeAdapter(Stage):
    """A checkpoint folder `name` with an adapter's products in its base's weights."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("torch", "safetensors")

    adapter: Path
    base: Path
    name_of: str

    @property
    def title(self) -> str:
        return "merge the adapter"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families.folders.adapter import write_merged

        (out / self.name_of).mkdir()
        write_merged(source["adapter"], source["base"], out / self.name_of)
