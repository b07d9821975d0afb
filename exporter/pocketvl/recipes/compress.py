"""`pocketvl compress`: from a recipe's steps to a chain of stages, each a checkpoint of the one before."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.compress.settings import LearningSettings, check_answering, shows_mirrored
from pocketvl.errors import RecipeError
from pocketvl.families import answers_questions
from pocketvl.recipes.compress_recipe import (
    TOWERS,
    CompressRecipe,
    DropLayersStep,
    LowRankStep,
    PruneCrossModalStep,
    PruneStep,
    SparsifyStep,
    Step,
    read_compress_recipe,
)
from pocketvl.recipes.publishing import publish_if_changed
from pocketvl.recipes.stages.answering import AskAnswers, LearnAnswers, QuestionData
from pocketvl.recipes.stages.compressing import (
    PRUNED_FILE,
    DropLayers,
    Factorise,
    PruneCrossModal,
    PruneUnits,
    SparsifyWeights,
    costs_of,
)
from pocketvl.recipes.stages.learning import LOSSES_FILE, AskTeacher, Learn, PairData
from pocketvl.recipes.stages.towers import check_source
from pocketvl.stage import Event, Inputs, Stage, check_replaceable, plan, run

if TYPE_CHECKING:
    from pocketvl.compress.costs import Cost

LOG_FILE = "compress.json"
CURVES_FILE = "losses.png"
_CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class CompressRequest:
    """What to compress.

    Attributes:
        source: the checkpoint folder; the teacher, too.
        recipe: name of a compression recipe, or a .toml file.
        data: a dataset folder to learn from.
        out: the smaller checkpoint's folder; replaced in one step.
    """

    source: Path
    recipe: str
    data: Path
    out: Path


@dataclass(frozen=True)
class Compressed:
    """What came out: the towers' costs together, before and after."""

    before: Cost
    after: Cost


@dataclass(frozen=True)
class FinishCheckpoint(Stage):
    """The last checkpoint with a log of the steps, and the curves of their losses."""

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ("matplotlib",)

    checkpoint: Stage
    steps: tuple[Stage, ...]

    def run(self, source: Inputs, out: Path) -> None:
        shutil.copytree(
            source["checkpoint"],
            out,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(LOSSES_FILE, PRUNED_FILE),
        )
        log: list[dict[str, object]] = []
        curves: list[tuple[str, list[dict[str, float]]]] = []
        for stage, folder in zip(self.steps, source.all("steps"), strict=True):
            entry: dict[str, object] = {"step": stage.title}
            if (folder / PRUNED_FILE).exists():
                entry.update(json.loads((folder / PRUNED_FILE).read_text(encoding="utf-8")))
            if (folder / LOSSES_FILE).exists():
                losses = json.loads((folder / LOSSES_FILE).read_text(encoding="utf-8"))
                curves += [(f"{len(log) + 1} {phase}", rows) for phase, rows in losses.items()]
                entry["losses"] = {phase: rows[-1] for phase, rows in losses.items()}
            log.append(entry)
        (out / LOG_FILE).write_text(json.dumps({"steps": log}, indent=1) + "\n", encoding="utf-8")
        if curves:
            _draw(curves, out / CURVES_FILE)


def compress(
    request: CompressRequest, cache: Path, tell: Callable[[Event], None] | None = None
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
    planned = plan([final])
    check_replaceable(request.out, _is_compressed)
    folder = run(planned, cache, tell)[final].folder
    with tempfile.TemporaryDirectory(prefix="pocketvl-") as scratch:
        whole = Path(scratch) / "checkpoint"
        shutil.copytree(folder, whole)
        if (request.out / _CARD).exists():
            shutil.copyfile(request.out / _CARD, whole / _CARD)
        publish_if_changed(whole, request.out, _is_compressed)

    from pocketvl.compress.costs import Cost
    from pocketvl.families import open_trainable

    before, after = (
        sum(costs_of(open_trainable(each)).values(), Cost()) for each in (request.source, request.out)
    )
    return Compressed(before, after)


def stages_of(source: Path, data: Path, recipe: CompressRecipe) -> tuple[Stage, ...]:
    """The chain of stages that a recipe asks for, each a checkpoint.

    Args:
        source: the checkpoint to start from.
        data: a dataset folder.
        recipe: what is done.

    Raises:
        SourceError: the source is no checkpoint of a known family.
        RecipeError: a step makes no sense for such a model, or not after those before it.
    """
    check_source(source)
    chain = _Chain(source, data, answers_questions(source))
    for step in recipe.steps:
        chain.add(step)
    return tuple(chain.stages)


class _Chain:
    """Stages one after the other, and the last checkpoint."""

    def __init__(self, source: Path, data: Path, answering: bool) -> None:
        """Args: answering: whether the model answers questions, and does not embed."""
        self.stages: list[Stage] = []
        self._source, self._answering = source, answering
        self._data = QuestionData(source, data) if answering else PairData(source, data)
        self._last: Path | Stage = source
        self._zeros, self._factorised = False, False

    def add(self, step: Step) -> None:
        """Appends the stages of a step.

        Raises:
            RecipeError: what came before makes it impossible.
        """
        self._check(step)
        if self._factorised and isinstance(step, PruneStep):
            raise RecipeError("low-rank comes before prune: factorised linears have no neurons; prune first")
        if self._factorised and isinstance(step, PruneCrossModalStep):
            raise RecipeError(
                "low-rank comes before prune-cross-modal, which measures whole linears: factorise last"
            )
        if self._zeros and isinstance(step, LowRankStep):
            raise RecipeError("sparsify comes before low-rank, which would fill the zeros: factorise first")
        self._factorised = self._factorised or isinstance(step, LowRankStep)
        if isinstance(step, PruneStep):
            self._prune(step)
        elif isinstance(step, SparsifyStep):
            self._sparsify(step)
        elif isinstance(step, DropLayersStep):
            keep = tuple((TOWERS[name], count) for name, count in step.kept.items())
            self._append(DropLayers(self._last, self._data, keep))
            self._learn(step.learn)
        elif isinstance(step, LowRankStep):
            towers = tuple(TOWERS[name] for name in step.towers)
            self._append(Factorise(self._last, self._data, towers, step.energy, step.ratio, step.whitened))
            self._learn(step.learn)
        elif isinstance(step, PruneCrossModalStep):
            for done in range(1, step.rounds + 1):
                ratio = step.ratio * step.schedule.at(done / step.rounds)
                self._append(PruneCrossModal(self._last, self._data, ratio, step.score, step.grain))
                self._learn(step.learn)
        else:
            self._learn(step.learn)

    def _check(self, step: Step) -> None:
        """Raises RecipeError for a step that makes no sense for such a model."""
        if isinstance(step, PruneCrossModalStep) and not self._answering:
            raise RecipeError(
                "prune-cross-modal is for models in which text and picture meet in attention, as in ViLT"
            )
        there = ("fusion",) if self._answering else ("image", "text")
        asked: Iterable[str] = ()
        if isinstance(step, DropLayersStep):
            asked = step.kept
        elif isinstance(step, PruneStep | SparsifyStep | LowRankStep):
            asked = step.towers
        for name in asked:
            if name not in there:
                raise RecipeError(f"this model has no {name} tower; its towers: {', '.join(there)}")
        if step.learn is None:
            return
        if self._answering:
            check_answering(step.learn)
        elif step.learn.losses.answer > 0:
            raise RecipeError("losses.answer is for models that answer questions; for this one, contrast")

    def _prune(self, step: PruneStep) -> None:
        start, towers = self._last, tuple(TOWERS[name] for name in step.towers)
        measure, limit = step.target or (None, None)
        for done in range(1, step.rounds + 1):
            way = step.schedule.at(done / step.rounds)
            ratio = None if step.ratio is None else way * step.ratio
            self._append(
                PruneUnits(
                    self._last, self._data, start, step.units, towers, step.score, step.scope, ratio, measure,
                    limit, way,
                )
            )  # fmt: skip
            self._learn(step.learn)

    def _sparsify(self, step: SparsifyStep) -> None:
        towers = tuple(TOWERS[name] for name in step.towers)
        self._zeros = True
        for done in range(1, step.rounds + 1):
            way = step.schedule.at(done / step.rounds)
            sparsity = None if step.sparsity is None else way * step.sparsity
            self._append(SparsifyWeights(self._last, self._data, towers, step.score, step.scope, sparsity))
            self._learn(step.learn)

    def _learn(self, settings: LearningSettings | None) -> None:
        if settings is None:
            return
        if isinstance(self._data, QuestionData):
            mirrored = shows_mirrored(settings)
            asked = (AskAnswers(self._source, self._data, mirrored),) if settings.losses.response > 0 else ()
            self._append(LearnAnswers(self._last, self._data, asked, settings, self._zeros))
            return
        answers = (AskTeacher(self._source, self._data),) if settings.needs_teacher else ()
        self._append(Learn(self._last, self._source, self._data, answers, settings, self._zeros))

    def _append(self, stage: Stage) -> None:
        self.stages.append(stage)
        self._last = stage


def _is_compressed(folder: Path) -> bool:
    return (folder / LOG_FILE).is_file() and (folder / "model.safetensors").is_file()


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
