"""From a compression recipe's steps to a chain of stages, each a checkpoint of the one before."""

from __future__ import annotations

from pathlib import Path

from pocketvl.compress.settings import LearningSettings, check_answering, shows_mirrored
from pocketvl.errors import RecipeError
from pocketvl.families import family_of
from pocketvl.network.heads import HeadKind
from pocketvl.pipelines.stages.answering import AskAnswers, LearnAnswers, QuestionData
from pocketvl.pipelines.stages.compressing import CompressByTraining, CompressCheckpoint
from pocketvl.pipelines.stages.learning import AskTeacher, Learn, PairData
from pocketvl.pipelines.stages.towers import check_source
from pocketvl.recipes.compress_recipe import CompressRecipe
from pocketvl.stage import Stage
from pocketvl.train.method import CompressionMethod, Trait


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
    family = family_of(source)
    answering = family.head is HeadKind.LABELS
    chain = _Chain(source, QuestionData(source, data) if answering else PairData(source, data))
    traits: frozenset[Trait] = frozenset()
    for step in recipe.steps:
        if step.method is not None:
            _check_method(step.method, family.components, traits)
            traits |= step.method.makes
        if step.learn is not None:
            _check_learning(step.learn, answering)
        chain.begin_step()
        for fraction in step.fractions:
            if step.method is not None:
                chain.compress(step.method, fraction)
            if step.learn is not None:
                chain.learn(step.learn, hold_zeros=Trait.SPARSE in traits)
        traits |= {Trait.CHANGED}
    return tuple(chain.stages)


def _check_method(method: CompressionMethod, components: tuple[str, ...], traits: frozenset[Trait]) -> None:
    """Raises RecipeError for a step that makes no sense for such a model, or after what came before."""
    method.check(components)
    for trait, advice in method.refuses.items():
        if trait in traits:
            raise RecipeError(advice)


def _check_learning(settings: LearningSettings, answering: bool) -> None:
    """Raises RecipeError for a training that makes no sense for such a model."""
    if answering:
        check_answering(settings)
    elif settings.losses.answer > 0:
        raise RecipeError("losses.answer is for models that answer questions; for this one, contrast")


class _Chain:
    """Stages one after the other, and the last checkpoint."""

    def __init__(self, source: Path, data: PairData | QuestionData) -> None:
        self.stages: list[Stage] = []
        self._source, self._data = source, data
        self._last: Path | Stage = source
        self._start: Path | Stage = source

    def begin_step(self) -> None:
        """Makes the last checkpoint the one that rounds are counted from."""
        self._start = self._last

    def compress(self, method: CompressionMethod, fraction: float) -> None:
        """Appends a round of a method."""
        stage = CompressByTraining if method.trains else CompressCheckpoint
        self._append(stage(self._last, self._data, self._start, method, fraction))

    def learn(self, settings: LearningSettings, hold_zeros: bool) -> None:
        """Appends a training."""
        if isinstance(self._data, QuestionData):
            mirrored = shows_mirrored(settings)
            asked = (AskAnswers(self._source, self._data, mirrored),) if settings.losses.response > 0 else ()
            self._append(LearnAnswers(self._last, self._data, asked, settings, hold_zeros))
            return
        answers = (AskTeacher(self._source, self._data),) if settings.needs_teacher else ()
        self._append(Learn(self._last, self._source, self._data, answers, settings, hold_zeros))

    def _append(self, stage: Stage) -> None:
        self.stages.append(stage)
        self._last = stage
