"""The compression recipe (TOML): steps, each a method with its settings, a training, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocketvl.compress.methods.drop_layers import DropLayers
from pocketvl.compress.methods.drop_reranker import DropReranker
from pocketvl.compress.methods.low_rank import LowRank
from pocketvl.compress.methods.prune_cross_modal import PruneCrossModal
from pocketvl.compress.methods.prune_filters import PruneFilters
from pocketvl.compress.methods.prune_units import PruneUnits
from pocketvl.compress.methods.reinitialize import Reinitialize
from pocketvl.compress.methods.shorten_texts import ShortenTexts
from pocketvl.compress.methods.sparsify import Sparsify
from pocketvl.compress.methods.trim_vocabulary import TrimVocabulary
from pocketvl.compress.settings import Schedule
from pocketvl.errors import RecipeError
from pocketvl.quantize.qat_method import QuantizationAwareTraining
from pocketvl.recipes.toml import check_recipe, read_toml
from pocketvl.settings import Rounds, Settings, key_path
from pocketvl.train.method import CompressionMethod
from pocketvl.train.settings import TrainingSettings
from pocketvl_runtime.errors import quoted

FOLDER = "compressing"
LEARN = "learn"
"""The kind of a step that is a training and nothing else."""
METHODS: Mapping[str, type[CompressionMethod]] = {
    method.kind: method
    for method in (
        Reinitialize,
        PruneUnits,
        PruneFilters,
        Sparsify,
        DropLayers,
        LowRank,
        PruneCrossModal,
        TrimVocabulary,
        ShortenTexts,
        DropReranker,
        QuantizationAwareTraining,
    )
}
"""All methods by their kinds: a method is added here, and nowhere else."""
_RENAMED_KINDS = {"fresh": Reinitialize.kind}


@dataclass(frozen=True, kw_only=True)
class StepSettings(Settings):
    """Settings that steps of every kind have.

    Attributes:
        learn: the training after each round.
        rounds: how often the method is applied, each time going further.
        schedule: linear or cubic.
    """

    learn: TrainingSettings | None = None
    rounds: Rounds = 1
    schedule: Schedule = Schedule.CUBIC


@dataclass(frozen=True)
class Step(StepSettings):
    """A method in some rounds, with a training after each; or a training alone.

    Attributes:
        method: what is done.
    """

    method: CompressionMethod | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method is None:
            if self.learn is None:
                raise RecipeError("learn: say how the model is trained")
        elif self.method.trains and self.learn is not None:
            raise RecipeError(f"learn: {self.method.kind} is a training; how it goes is in `training`")
        if self.rounds > 1 and (self.method is None or not self.method.is_progressive):
            what = LEARN if self.method is None else self.method.title(1.0)
            raise RecipeError(f"rounds: there is one round of {what!r}, not {self.rounds}")

    @property
    def fractions(self) -> tuple[float, ...]:
        """The progress fraction after each round."""
        return tuple(self.schedule.at(done / self.rounds) for done in range(1, self.rounds + 1))


@dataclass(frozen=True)
class CompressRecipe:
    """A compression recipe.

    Attributes:
        steps: what is done, in order.
    """

    steps: tuple[Step, ...]


def read_compress_recipe(recipe: str) -> CompressRecipe:
    """Read a recipe by its name or from a .toml file.

    Raises:
        RecipeError: there is none, it is not TOML, or a key is unknown, missing or of the wrong type; the
            message names the key.
    """
    values = read_toml(recipe, FOLDER)
    unknown = sorted(set(values) - {"steps"})
    if unknown:
        raise RecipeError(
            f"recipe {recipe}: {key_path(unknown[:1])}: there is no such key; a recipe has [[steps]]"
        )
    steps = values.get("steps")
    if not isinstance(steps, list) or not steps or not all(isinstance(each, dict) for each in steps):
        raise RecipeError(f"recipe {recipe}: steps: a recipe has at least one [[steps]]")
    return CompressRecipe(tuple(_step(each, recipe, index) for index, each in enumerate(steps)))


def _step(values: dict[str, Any], recipe: str, index: int) -> Step:
    where = f"steps[{index}]"
    given = dict(values)
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in (*METHODS, LEARN):
        advice = f"is none of {', '.join((*METHODS, LEARN))}"
        if isinstance(kind, str) and kind in _RENAMED_KINDS:
            advice = f"is called {_RENAMED_KINDS[kind]} now"
        raise RecipeError(f"recipe {recipe}: {where}.kind: {quoted(kind)} {advice}")
    shared = {name: given.pop(name) for name in vars(_NOTHING) if name in given}
    own = check_recipe(_settings_of(kind, given, f"recipe {recipe}: {where}"), given, recipe, f"{where}.")
    common = check_recipe(StepSettings, shared, recipe, f"{where}.")
    try:
        return Step(**vars(common), method=own if isinstance(own, CompressionMethod) else None)
    except RecipeError as error:
        raise RecipeError(f"recipe {recipe}: {where}: {error}") from error


_NOTHING = StepSettings()


def _settings_of(kind: str, given: Mapping[str, Any], where: str) -> type[Settings]:
    """The settings that a step of a kind has beside those of all.

    Raises:
        RecipeError: it says something that has another name now.
    """
    if kind == LEARN:
        return _NoSettings
    for name, new in METHODS[kind].renamed.items():
        if name in given:
            raise RecipeError(f"{where}.{name}: is called {new} now")
    return METHODS[kind]


@dataclass(frozen=True)
class _NoSettings(Settings):
    """Of a step that is a training and nothing else."""
