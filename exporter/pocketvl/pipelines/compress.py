"""`pocketvl compress`: from a recipe's steps to a chain of stages, each a checkpoint of the one before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.errors import RecipeError
from pocketvl.families.folders.files import CARD_FILE
from pocketvl.launch import is_first
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.stages.compressing import STEP_FILE
from pocketvl.pipelines.stages.costing import MeasureCosts, read_costs
from pocketvl.pipelines.stages.training import CURVES_FILE, LOSSES_FILE
from pocketvl.recipes.compress_recipe import read_compress_recipe
from pocketvl.stage import (
    Event,
    Inputs,
    Stage,
    check_replaceable,
    plan,
    publish,
    read_record,
    run,
    write_record,
)

if TYPE_CHECKING:
    from pocketvl.compress.costs import Cost

LOG_FILE = "compress.json"


@dataclass(frozen=True)
class CompressRequest:
    """A compression request.

    Attributes:
        source: the checkpoint folder; the teacher, too.
        recipe: name of a compression recipe, or a .toml file.
        data: a dataset folder to learn from.
        out: the smaller checkpoint's folder; replaced in one step, unless somebody added to it.
    """

    source: Path
    recipe: str
    data: Path
    out: Path


@dataclass(frozen=True)
class Compressed:
    """The result of a compression: the total cost before and after."""

    before: Cost
    after: Cost


@dataclass(frozen=True)
class FinishCheckpoint(Stage):
    """The last checkpoint with a log of the steps, and the curves of their losses."""

    version: ClassVar[int] = 2
    tools: ClassVar[tuple[str, ...]] = ("matplotlib",)

    checkpoint: Stage
    steps: tuple[Stage, ...]

    def environment(self) -> Mapping[str, str]:
        titles = "; ".join(step.title for step in self.steps)
        return {"steps": titles}  # another step may give an equal result

    def run(self, source: Inputs, out: Path) -> None:
        shutil.copytree(
            source["checkpoint"],
            out,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(LOSSES_FILE, STEP_FILE),
        )
        log: list[dict[str, object]] = []
        curves: list[tuple[str, list[dict[str, float]]]] = []
        for stage, folder in zip(self.steps, source.all("steps"), strict=True):
            entry: dict[str, object] = {"step": stage.title}
            if (folder / STEP_FILE).exists():
                entry.update(json.loads((folder / STEP_FILE).read_text(encoding="utf-8")))
            if (folder / LOSSES_FILE).exists():
                losses = json.loads((folder / LOSSES_FILE).read_text(encoding="utf-8"))
                curves += [(f"{len(log) + 1} {phase}", rows) for phase, rows in losses.items()]
                entry["losses"] = {phase: rows[-1] for phase, rows in losses.items()}
            log.append(entry)
        (out / LOG_FILE).write_text(json.dumps({"steps": log}, indent=1) + "\n", encoding="utf-8")
        if curves:
            _draw(curves, out / CURVES_FILE)
        write_record(out)


def compress(
    request: CompressRequest, cache: Path, progress: Callable[[Event], None] | None = None
) -> Compressed:
    """Compresses a checkpoint; interrupted, it goes on.

    Raises:
        RecipeError: the recipe is not valid, or a target of it cannot be reached.
        SourceError, DataError: source or data cannot be used.
        TrainingError: a training diverged.
        StageError: something else stands at `out`.
    """
    if request.out.resolve() == request.source.resolve():
        raise RecipeError(
            f"{request.out} is the checkpoint to start from: choose another place for the smaller one"
        )
    recipe = read_compress_recipe(request.recipe)
    stages = stages_of(request.source, request.data, recipe)
    final = FinishCheckpoint(stages[-1], stages)
    costs = MeasureCosts(request.source), MeasureCosts(stages[-1])
    planned = plan([final, *costs])
    check_replaceable(request.out, read_record, (CARD_FILE,))
    results = run(planned, cache, progress)
    if is_first():
        publish(results[final].folder, request.out, read_record, (CARD_FILE,))
    before, after = (read_costs(results[each].folder) for each in costs)
    return Compressed(before, after)


def _draw(curves: list[tuple[str, list[dict[str, float]]]], path: Path) -> None:
    """The sum of the losses at every step, one picture a training."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * min(4, len(curves)), 2.6 * -(-len(curves) // 4)), layout="constrained")
    axes = figure.subplots(-(-len(curves) // 4), min(4, len(curves)), squeeze=False)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    for axis, (name, rows) in zip(axes.flat, curves, strict=False):
        totals = np.array([sum(row.values()) for row in rows])
        width = max(1, len(totals) // 50)
        smooth = np.convolve(totals, np.ones(width) / width, "valid")
        axis.plot(np.arange(len(totals)), totals, color="0.8", linewidth=0.6)
        axis.plot(np.arange(len(smooth)) + width - 1, smooth, color="C0")
        axis.set_title(name, fontsize=9)
        axis.set_yscale("log")
        axis.set_xlabel("step", fontsize=8)
    figure.savefig(path, dpi=100, metadata={"Software": None})
