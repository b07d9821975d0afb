"""A model that open_clip knows by name, as a folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pocketvl.stage import Inputs, Stage


@dataclass(frozen=True)
class ArrangePretrained(Stage):
    """A checkpoint folder `name_of` with a model's description and a copy of its weights.

    Attributes:
        weights: the file that open_clip downloaded, or one of the user's.
        description: the content of open_clip_config.json.
        name_of: of the folder.
    """

    version: ClassVar[int] = 1

    weights: Path
    description: str
    name_of: str

    @property
    def title(self) -> str:
        return "arrange open_clip's files"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families.folders.files import OPEN_CLIP_CONFIG
        from pocketvl.families.folders.weights import OPEN_CLIP_PICKLED, OPEN_CLIP_SAFETENSORS

        folder = out / self.name_of
        folder.mkdir()
        (folder / OPEN_CLIP_CONFIG).write_text(self.description + "\n", encoding="utf-8")
        is_safe = self.weights.suffix == ".safetensors"
        target = folder / (OPEN_CLIP_SAFETENSORS if is_safe else OPEN_CLIP_PICKLED)
        shutil.copyfile(source["weights"], target)
