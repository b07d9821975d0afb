"""One stage runs any compression method: a test's own is cached, logged and resumed like the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.pipelines.stages.compressing import STEP_FILE, CompressByTraining, CompressCheckpoint
from pocketvl.pipelines.stages.training import TrainingData
from pocketvl.stage import plan, run
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.train.method import CompressionMethod, MethodInputs
from pocketvl.train.samples import PairSamples
from tests.families.tiny import make_tiny_clip

WEIGHT = "visual_projection.weight"


@dataclass(frozen=True)
class Shrink(CompressionMethod):
    """Makes one matrix smaller in value."""

    kind: ClassVar[str] = "shrink"
    runs: ClassVar[list[float]] = []

    factor: float

    def title(self, fraction: float) -> str:
        return f"shrink by {fraction * self.factor}"

    def check(self, components: Sequence[str]) -> None:
        pass

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        assert isinstance(inputs.data, PairSamples)
        self.runs.append(inputs.fraction)
        start = open_checkpoint(inputs.start).model.get_parameter(WEIGHT)
        with torch.no_grad():
            checkpoint.model.get_parameter(WEIGHT).copy_(start * (1 - inputs.fraction * self.factor))
        if inputs.work is not None:
            inputs.work.mkdir(parents=True, exist_ok=True)
        return {"samples": len(inputs.data.images), "work": inputs.work is not None}


@pytest.fixture
def stage(tmp_path: Path) -> CompressCheckpoint:
    """The first of two rounds."""
    (tmp_path / "data").mkdir()
    write_tabletop(tmp_path / "data", 21, 6, size=40)
    source = make_tiny_clip(tmp_path / "clip")
    Shrink.runs.clear()
    return CompressCheckpoint(source, TrainingData(source, tmp_path / "data"), source, Shrink(0.5), 0.5)


def test_rounds_go_on_from_each_other_and_are_counted_from_the_start(
    stage: CompressCheckpoint, tmp_path: Path
) -> None:
    last = replace(stage, source=stage, fraction=1.0)
    folder = run(plan([last]), tmp_path / "cache")[last].folder
    assert last.title == "shrink by 0.5"
    before, after = (
        open_checkpoint(each).model.get_parameter(WEIGHT) for each in (tmp_path / "clip", folder)
    )
    assert torch.allclose(after, before / 2, rtol=1e-3)
    report = json.loads((folder / STEP_FILE).read_text())
    assert report["done"] == {"samples": 6, "work": False}
    assert report["before"] == report["after"]
    assert set(report["before"]) == {"image_encoder", "text_encoder"}


def test_only_another_setting_fraction_or_version_is_run_again(
    stage: CompressCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (stage, stage, replace(stage, method=Shrink(0.25)), replace(stage, fraction=0.75), stage):
        run(plan([each]), tmp_path / "cache")
    assert Shrink.runs == [0.5, 0.5, 0.75]
    monkeypatch.setattr(Shrink, "version", 2)
    run(plan([stage]), tmp_path / "cache")
    assert len(Shrink.runs) == 4


def test_a_method_that_trains_has_a_folder_for_its_states(
    stage: CompressCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shrink, "trains", True)
    trained = CompressByTraining(stage.source, stage.data, stage.start, stage.method)
    folder = run(plan([trained]), tmp_path / "cache")[trained].folder
    assert json.loads((folder / STEP_FILE).read_text())["done"]["work"]
