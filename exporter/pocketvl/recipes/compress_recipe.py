"""What a compression recipe (TOML) says: steps, in order, each with its target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from pocketvl.compress.settings import BlockScore, Grain, Measure, Schedule, Scope, Score, Units
from pocketvl.errors import RecipeError
from pocketvl.families.tower_shape import TowerShape
from pocketvl.quantize.settings import QatSettings
from pocketvl.recipes.toml import check_recipe, read_toml
from pocketvl.settings import Layers, Positive, Rounds, Seed, Settings, Share, key_path
from pocketvl.train.settings import TrainingSettings
from pocketvl_runtime.errors import quoted, shortened
from pocketvl_runtime.manifest import Precision, Role

FOLDER = "compressing"
TOWERS: Mapping[str, Role] = {
    "image": Role.IMAGE_ENCODER,
    "text": Role.TEXT_ENCODER,
    "fusion": Role.FUSION,
}


@dataclass(frozen=True)
class PruneStep(Settings):
    """Neurons and heads go, in rounds, with some training after each.

    One of `ratio`, `parameters`, `macs` and `int8_bytes` says how far.

    Attributes:
        units: neurons, heads, or both.
        ratio: part of the original units that goes.
        parameters: the most that both towers may have.
        macs: the most multiply-adds that a picture and a text may take.
        int8_bytes: the most that both towers may take with 8-bit weights, graphs not counted.
        towers: which are pruned.
        score: magnitude, taylor or gate.
        scope: with a ratio: so much of each layer, or of all of them together.
        rounds: how often, with `learn` in between and at the end.
        schedule: linear or cubic.
        learn: the training after each round.
    """

    units: tuple[Units, ...] = (Units.NEURONS,)
    ratio: Share | None = None
    parameters: Positive | None = None
    macs: Positive | None = None
    int8_bytes: Positive | None = None
    towers: tuple[str, ...] = ("image", "text")
    score: Score = Score.MAGNITUDE
    scope: Scope = Scope.LAYER
    rounds: Rounds = 1
    schedule: Schedule = Schedule.CUBIC
    learn: TrainingSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [v for v in (self.ratio, self.parameters, self.macs, self.int8_bytes) if v is not None]
        if len(given) != 1:
            raise RecipeError("say one of ratio, parameters, macs and int8_bytes")
        if not self.units or len(set(self.units)) < len(self.units):
            raise RecipeError("units: neurons, heads, or both, each once")
        _check_towers(self.towers)

    @property
    def target(self) -> tuple[Measure, float] | None:
        """What the model may cost, where no ratio is given."""
        for measure in Measure:
            limit = getattr(self, measure.value)
            if limit is not None:
                return measure, float(limit)
        return None


@dataclass(frozen=True)
class PruneFiltersStep(Settings):
    """Filters of a convolutional image tower go, in rounds, with some training after each.

    Attributes:
        ratio: part of the original filters that goes, of every group of filters that can only go together.
        score: magnitude or taylor.
        rounds: how often, with `learn` in between and at the end.
        schedule: linear or cubic.
        learn: the training after each round.
    """

    ratio: Share
    score: Score = Score.MAGNITUDE
    rounds: Rounds = 1
    schedule: Schedule = Schedule.CUBIC
    learn: TrainingSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weights(self.score)


@dataclass(frozen=True)
class SparsifyStep(Settings):
    """Single weights become 0 and are held there by later training; the graphs keep their shapes.

    Attributes:
        sparsity: part of the weights; or
        two_of_four: of every four neighbouring inputs the two that matter least.
        towers: which are pruned.
        score: magnitude or taylor.
        scope: so much of each layer, or of all of a tower's layers together.
        rounds: how often, with `learn` in between and at the end.
        schedule: linear or cubic.
        learn: the training after each round.
    """

    sparsity: Share | None = None
    two_of_four: bool = False
    towers: tuple[str, ...] = ("image", "text")
    score: Score = Score.MAGNITUDE
    scope: Scope = Scope.LAYER
    rounds: Rounds = 1
    schedule: Schedule = Schedule.CUBIC
    learn: TrainingSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.sparsity is None) != self.two_of_four:
            raise RecipeError("say either sparsity or two_of_four = true")
        _check_weights(self.score)
        if self.two_of_four and self.rounds != 1:
            raise RecipeError("two_of_four is reached in one round")
        _check_towers(self.towers)


@dataclass(frozen=True)
class FreshStep(Settings):
    """A smaller model that knows nothing yet takes the place of the source, which stays the teacher.

    Attributes:
        image: shape of its image tower.
        text: shape of its text tower.
        seed: of its weights.
        learn: the training afterwards.
    """

    image: TowerShape
    text: TowerShape
    seed: Seed = 0
    learn: TrainingSettings | None = None


@dataclass(frozen=True)
class DropLayersStep(Settings):
    """Whole layers go, those first that change their hidden states least.

    Attributes:
        image: layers that stay in the image tower; all where nothing is said.
        text: layers that stay in the text tower.
        fusion: layers that stay in the tower of a model that answers.
        learn: the training afterwards.
    """

    image: Layers | None = None
    text: Layers | None = None
    fusion: Layers | None = None
    learn: TrainingSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kept:
            raise RecipeError("say how many layers stay: image, text, or both; or fusion")

    @property
    def kept(self) -> Mapping[str, int]:
        """How many layers stay, by tower."""
        return {name: count for name in TOWERS if (count := getattr(self, name)) is not None}


@dataclass(frozen=True)
class LowRankStep(Settings):
    """Linears become two of a lower rank, where that saves.

    Attributes:
        energy: part of the squared singular values that is kept, layer by layer; or
        ratio: part of each linear's weights that goes.
        whitened: weigh errors by the inputs that data gives, and not all weights alike.
        towers: which are factorised.
        learn: the training afterwards.
    """

    energy: Share | None = None
    ratio: Share | None = None
    whitened: bool = True
    towers: tuple[str, ...] = ("image", "text")
    learn: TrainingSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.energy is None) == (self.ratio is None):
            raise RecipeError("say either energy or ratio")
        _check_towers(self.towers)


@dataclass(frozen=True)
class PruneCrossModalStep(Settings):
    """What text and picture read of each other goes where it carries little, in rounds.

    Attributes:
        ratio: part of the cross-modal blocks that goes.
        score: value, sum or position.
        grain: head by head, or all heads of a layer at once.
        rounds: how often, with `learn` in between and at the end.
        schedule: linear or cubic.
        learn: the training after each round.
    """

    ratio: Annotated[float, Field(gt=0, le=1)]
    score: BlockScore = BlockScore.VALUE
    grain: Grain = Grain.HEAD
    rounds: Rounds = 1
    schedule: Schedule = Schedule.CUBIC
    learn: TrainingSettings | None = None


@dataclass(frozen=True)
class QatStep(Settings):
    """Weights are trained on the grids of a precision; rounded in an export, they lose less.

    Attributes:
        learn: how; components are distilled from what they were before.
        precision: int8 or int4.
    """

    learn: QatSettings
    precision: Precision = Precision.INT8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in (Precision.INT8, Precision.INT4):
            raise RecipeError(f"precision: int8 or int4, not {self.precision}")


@dataclass(frozen=True)
class LearnStep(Settings):
    """A training: distillation from the source, or on the data's labels.

    Attributes:
        learn: how.
    """

    learn: TrainingSettings


Step = (
    FreshStep
    | PruneStep
    | PruneFiltersStep
    | PruneCrossModalStep
    | SparsifyStep
    | DropLayersStep
    | LowRankStep
    | QatStep
    | LearnStep
)
STEPS: Mapping[str, type[Step]] = {
    "fresh": FreshStep,
    "prune": PruneStep,
    "prune-filters": PruneFiltersStep,
    "sparsify": SparsifyStep,
    "drop-layers": DropLayersStep,
    "low-rank": LowRankStep,
    "prune-cross-modal": PruneCrossModalStep,
    "qat": QatStep,
    "learn": LearnStep,
}


@dataclass(frozen=True)
class CompressRecipe:
    """How a checkpoint becomes smaller.

    Attributes:
        steps: what is done, in order.
    """

    steps: tuple[Step, ...]


def read_compress_recipe(recipe: str) -> CompressRecipe:
    """Reads a recipe by its name or from a .toml file.

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
    return CompressRecipe(tuple(_step(each, recipe, place) for place, each in enumerate(steps)))


def _step(values: dict[str, Any], recipe: str, place: int) -> Step:
    where = f"steps[{place}]."
    given = dict(values)
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in STEPS:
        raise RecipeError(f"recipe {recipe}: {where}kind: {quoted(kind)} is none of {', '.join(STEPS)}")
    return check_recipe(STEPS[kind], given, recipe, where)


def _check_weights(score: Score) -> None:
    if score is Score.GATE:
        raise RecipeError("score: magnitude or taylor; a gate is for neurons and heads")


def _check_towers(towers: tuple[str, ...]) -> None:
    unknown = sorted(set(towers) - set(TOWERS))
    if unknown or not towers:
        named = ", ".join(shortened(each, 30) for each in unknown[:3]) or "none"
        raise RecipeError(f"towers: some of {', '.join(TOWERS)}; not {named}")
    if len(set(towers)) < len(towers):
        raise RecipeError(f"towers: each once, not {', '.join(towers[:9])}")
