"""Cuts a dataset folder in two: one half to choose by, the other to judge what was chosen."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pocketvl.data.dataset import TEMPLATES_FILE, Dataset, read_lines, write_samples
from pocketvl.errors import DataError
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.manifest import Modality

CHOOSING, JUDGING = "choosing", "judging"


@dataclass(frozen=True)
class SplitDataset(Stage):
    """Two dataset folders, `choosing` and `judging`, of one.

    Attributes:
        data: the dataset folder.
        most_choosing: no more samples than this go to `choosing`, and never more than half of them.
    """

    version: ClassVar[int] = 2

    data: Path
    most_choosing: int

    @property
    def title(self) -> str:
        return "split the data"

    def requires(self, source: Inputs) -> None:
        dataset = Dataset.open(source["data"])
        if len(dataset) < 8:
            raise DataError(
                f"{dataset.root}: {len(dataset)} samples are too few to choose by some and judge by others"
            )

    def run(self, source: Inputs, out: Path) -> None:
        dataset = Dataset.open(source["data"])
        rows = [json.loads(line) for _, line in read_lines(dataset.root)]
        for row, sample in zip(rows, dataset.samples, strict=True):  # however the folder writes its paths
            for modality, file in sample.files.items():
                row[modality.value] = file.relative_to(dataset.root).as_posix()
        cut = min(self.most_choosing, len(rows) // 2)
        for name, part in ((CHOOSING, rows[:cut]), (JUDGING, rows[cut:])):
            (out / name).mkdir()
            write_samples(out / name, part)
            if (dataset.root / TEMPLATES_FILE).exists():
                shutil.copyfile(dataset.root / TEMPLATES_FILE, out / name / TEMPLATES_FILE)
            for done, row in enumerate(part, start=1):
                for file in filter(None, (row.get(modality.value) for modality in Modality)):
                    target = out / name / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(dataset.root / file, target)
                source.progress(done, len(part), name)
