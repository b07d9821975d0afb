"""From a compression recipe's steps to a chain of stages, each a checkpoint of the one before."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from pocketvl.errors import RecipeError
from pocketvl.families import family_of
from pocketvl.network.heads import HeadKind
from pocketvl.pipelines.stages.components import check_source
from pocketvl.pipelines.stages.compressing import CompressByTraining, CompressCheckpoint
from pocketvl.pipelines.stages.training import (
    TeacherOutputs,
    TrainingData,
    TrainStudent,
    head_training,
    training_rows,
)
from pocketvl.quantize.qat_method import QuantizationAwareTraining
from pocketvl.recipes.compress_recipe import CompressRecipe, Step
from pocketvl.stage import Stage
from pocketvl.tasks.head_training import HeadTraining
from pocketvl.train.method import DROP_FIRST, CompressionMethod, Trait
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
    head = head_training(source)
    chain = _Chain(source, data, head)
    second = family_of(source).reranker
    traits: frozenset[Trait] = frozenset()
    last = ""
    for step in (_planned(each, head, data) for each in recipe.steps):
        makes = frozenset() if step.method is None else step.method.makes
        if Trait.TRIMMED in makes and step.method is not None:
            last = step.method.kind
        if last and (Trait.TRIMMED not in makes or step.learn is not None):
            raise RecipeError(f"{last} comes last: trainings read texts as they were tokenized before it")
        if second is not None and Trait.ONE_HEAD not in traits:
            _check_second_head(step, second)
        if step.method is not None:
            _check_method(step.method, head, traits)
            traits |= step.method.makes
        if step.learn is not None:
            head.check(step.learn)
        chain.begin_step()
        for fraction in step.fractions:
            if step.method is not None:
                chain.compress(step.method, fraction)
            if step.learn is not None:
                chain.learn(step.learn, hold_zeros=Trait.SPARSE in traits)
        if Trait.ONE_HEAD not in makes:
            traits |= {Trait.CHANGED}
    return tuple(chain.stages)


def _planned(step: Step, head: HeadTraining, data: Path) -> Step:
    """The step with phases that name this model's components, and with as many steps as the data asks for."""
    rows = partial(training_rows, head.kind, data)
    learn = None if step.learn is None else head.planned(step.learn, rows)
    method = step.method
    if isinstance(method, QuantizationAwareTraining):
        method = replace(method, training=head.planned(method.training, rows))
    return replace(step, method=method, learn=learn)


def _check_second_head(step: Step, second: str) -> None:
    """Raise RecipeError for a step that would leave a second head behind."""
    if step.learn is not None or (step.method is not None and not step.method.keeps_heads):
        what = "learn" if step.method is None else step.method.kind
        raise RecipeError(f"{what}: the model has a second head ({second}), {DROP_FIRST}")


def _check_method(method: CompressionMethod, head: HeadTraining, traits: frozenset[Trait]) -> None:
    """Raise RecipeError for a step that makes no sense for such a model, or after what came before."""
    method.check(head.components)
    if method.needs_labels and not head.answers:
        raise RecipeError(
            f"{method.kind}: taylor follows the loss of labels, and an encoder by itself learns from none; "
            'set score = "magnitude", or "gate" for neurons and heads'
        )
    if Trait.TRIMMED in method.makes and head.kind is HeadKind.IMAGE_EMBEDDING:
        raise RecipeError(f"{method.kind}: an image encoder reads no texts; leave the step out")
    if isinstance(method, QuantizationAwareTraining):
        head.check(method.training)
    for trait, advice in method.refuses.items():
        if trait in traits:
            raise RecipeError(advice)


class _Chain:
    """Stages one after the other, and the last checkpoint."""

    def __init__(self, source: Path, data: Path, head: HeadTraining) -> None:
        self.stages: list[Stage] = []
        self._source, self._data, self._head = source, TrainingData(source, data), head
        self._last: Path | Stage = source
        self._start: Path | Stage = source

    def begin_step(self) -> None:
        """Make the last checkpoint the one that rounds are counted from."""
        self._start = self._last

    def compress(self, method: CompressionMethod, fraction: float) -> None:
        """Append a round of a method."""
        stage = CompressByTraining if method.trains else CompressCheckpoint
        self._append(stage(self._last, self._data, self._start, method, fraction))

    def learn(self, settings: TrainingSettings, hold_zeros: bool) -> None:
        """Append a training."""
        outputs: tuple[TeacherOutputs, ...] = ()
        if self._head.needs_teacher(settings):
            outputs = (TeacherOutputs(self._source, self._data, self._head.needs_mirrored(settings)),)
        self._append(TrainStudent(self._last, self._source, self._data, outputs, settings, hold_zeros))

    def _append(self, stage: Stage) -> None:
        self.stages.append(stage)
        self._last = stage
