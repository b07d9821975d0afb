"""From a compression recipe's steps to a chain of stages, each a checkpoint of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pocketvl.errors import RecipeError
from pocketvl.network.heads import HeadKind
from pocketvl.pipelines.stages.checkpoint_qat import TrainCheckpointQat
from pocketvl.pipelines.stages.compressing import (
    DropLayers,
    Factorise,
    FreshStudent,
    PruneCrossModal,
    PruneFilters,
    PruneUnits,
    SparsifyWeights,
)
from pocketvl.pipelines.stages.towers import check_source
from pocketvl.pipelines.stages.training import (
    TeacherOutputs,
    TrainingData,
    TrainStudent,
    head_training,
)
from pocketvl.recipes.compress_recipe import (
    TOWERS,
    CompressRecipe,
    DropLayersStep,
    FreshStep,
    LowRankStep,
    PruneCrossModalStep,
    PruneFiltersStep,
    PruneStep,
    QatStep,
    SparsifyStep,
    Step,
)
from pocketvl.stage import Stage
from pocketvl.tasks.head_training import HeadTraining
from pocketvl.train.settings import TrainingSettings


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
    chain = _Chain(source, data, head_training(source))
    for step in recipe.steps:
        chain.add(step)
    return tuple(chain.stages)


def _ways(step: PruneStep | PruneFiltersStep | PruneCrossModalStep | SparsifyStep) -> Iterator[float]:
    """For each of a step's rounds the part of the way that has been gone after it."""
    return (step.schedule.at(done / step.rounds) for done in range(1, step.rounds + 1))


class _Chain:
    """Stages one after the other, and the last checkpoint."""

    def __init__(self, source: Path, data: Path, head: HeadTraining) -> None:
        """Args: head: of the source."""
        self.stages: list[Stage] = []
        self._source, self._head, self._data = source, head, TrainingData(source, data)
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
        if self._factorised and isinstance(step, SparsifyStep):
            raise RecipeError(
                "low-rank comes before sparsify, which passes over what it made: leave one of them out"
            )
        if self._zeros and isinstance(step, QatStep):
            raise RecipeError("sparsify comes before qat, which would fill the zeros: leave one of them out")
        if self._zeros and isinstance(step, LowRankStep):
            raise RecipeError(
                "sparsify comes before low-rank, which would fill the zeros: leave one of them out"
            )
        if self.stages and isinstance(step, FreshStep):
            raise RecipeError("fresh throws away what came before it: it has to be the first step")
        self._factorised = self._factorised or isinstance(step, LowRankStep)
        if isinstance(step, PruneStep):
            self._prune(step)
        elif isinstance(step, PruneFiltersStep):
            for way in _ways(step):
                self._append(PruneFilters(self._last, self._data, step.score, way * step.ratio))
                self._learn(step.learn)
        elif isinstance(step, SparsifyStep):
            self._sparsify(step)
        elif isinstance(step, FreshStep):
            shapes = ((TOWERS["image"], step.image), (TOWERS["text"], step.text))
            self._append(FreshStudent(self._last, self._data, shapes, step.seed))
            self._learn(step.learn)
        elif isinstance(step, DropLayersStep):
            keep = tuple((TOWERS[name], count) for name, count in step.kept.items())
            self._append(DropLayers(self._last, self._data, keep))
            self._learn(step.learn)
        elif isinstance(step, LowRankStep):
            towers = tuple(TOWERS[name] for name in step.towers)
            self._append(Factorise(self._last, self._data, towers, step.energy, step.ratio, step.whitened))
            self._learn(step.learn)
        elif isinstance(step, PruneCrossModalStep):
            for way in _ways(step):
                cut = PruneCrossModal(self._last, self._data, way * step.ratio, step.score, step.grain)
                self._append(cut)
                self._learn(step.learn)
        elif isinstance(step, QatStep):
            self._append(TrainCheckpointQat(self._last, self._data, step.precision, step.learn))
        else:
            self._learn(step.learn)

    def _check(self, step: Step) -> None:
        """Raises RecipeError for a step that makes no sense for such a model."""
        if isinstance(step, PruneCrossModalStep) and self._head.kind is not HeadKind.LABELS:
            raise RecipeError(
                "prune-cross-modal is for models in which text and picture meet in attention, as in ViLT"
            )
        there = tuple(name for name, role in TOWERS.items() if role.value in self._head.components)
        asked: Iterable[str] = ()
        if isinstance(step, DropLayersStep):
            asked = step.kept
        elif isinstance(step, FreshStep):
            asked = ("image", "text")
        elif isinstance(step, PruneFiltersStep):
            asked = ("image",)
        elif isinstance(step, PruneStep | SparsifyStep | LowRankStep):
            asked = step.towers
        for name in asked:
            if name not in there:
                raise RecipeError(f"this model has no {name} tower; its towers: {', '.join(there)}")
        if step.learn is not None:
            self._head.check(step.learn)

    def _prune(self, step: PruneStep) -> None:
        start, towers = self._last, tuple(TOWERS[name] for name in step.towers)
        measure, limit = step.target or (None, None)
        for way in _ways(step):
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
        for way in _ways(step):
            sparsity = None if step.sparsity is None else way * step.sparsity
            self._append(SparsifyWeights(self._last, self._data, towers, step.score, step.scope, sparsity))
            self._learn(step.learn)

    def _learn(self, settings: TrainingSettings | None) -> None:
        if settings is None:
            return
        outputs: tuple[TeacherOutputs, ...] = ()
        if self._head.needs_teacher(settings):
            outputs = (TeacherOutputs(self._source, self._data, self._head.needs_mirrored(settings)),)
        self._append(TrainStudent(self._last, self._source, self._data, outputs, settings, self._zeros))

    def _append(self, stage: Stage) -> None:
        self.stages.append(stage)
        self._last = stage
