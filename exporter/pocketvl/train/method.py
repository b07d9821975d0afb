"""The base class of compression methods, which recipes name and a stage runs.

Without torch, so that recipes can be read quickly; a method imports what it works with inside `apply`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.errors import RecipeError
from pocketvl.settings import Settings
from pocketvl_runtime.errors import shortened
from pocketvl_runtime.progress import Progress

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.train.samples import TrainingSamples


DROP_FIRST = "which shares its layers and would be left behind; drop-reranker comes first"
"""Why a model with a second head is not compressed, and what to do."""


class Trait(StrEnum):
    """What a step leaves in a checkpoint that a later step may not be able to work with.

    Attributes:
        CHANGED: anything; every step leaves this one.
        FACTORIZED: linears that have become two of a lower rank.
        SPARSE: weights that are 0 and have to stay so.
        TRIMMED: another tokenizer, so that texts have other ids than the training data holds.
        ONE_HEAD: no second head; it is no change of the first.
    """

    CHANGED = "changed"
    FACTORIZED = "factorized"
    SPARSE = "sparse"
    TRIMMED = "trimmed"
    ONE_HEAD = "one head"


@dataclass(frozen=True)
class MethodInputs:
    """The inputs of a method beside the checkpoint.

    Attributes:
        data: the training data, as arrays.
        start: folder of the checkpoint before the first round.
        fraction: progress fraction, above 0 and at most 1: how much of what the settings ask for has to be
            reached after this round, counted from `start`.
        progress: takes (done, total, what).
        work: of a method that trains: a folder for its saved states.
        texts: all texts of the dataset, each once.
    """

    data: TrainingSamples
    start: Path
    fraction: float = 1.0
    progress: Progress = field(default=lambda done, total, what: None)
    work: Path | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class CompressionMethod(Settings, ABC):
    """Base of all methods: a subclass's fields are its settings, and what a recipe's step of its `kind` has.

    Attributes:
        kind: what a recipe calls it.
        version: to be raised when the same settings and inputs give another result than before.
        makes: traits that it leaves in a checkpoint.
        refuses: traits that it cannot work with, and what a recipe's author should know about it.
        trains: it takes long, and goes on from its saved states; it is its own training, so that a step has
            no other one.
        keeps_heads: a second head, whose layers are shared with the first's, answers as before: else it
            would be left behind by what only the first is scored and trained by, and the method refuses.
        renamed: settings of older recipes, and what stands in their place.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    makes: ClassVar[frozenset[Trait]] = frozenset()
    refuses: ClassVar[Mapping[Trait, str]] = {}
    trains: ClassVar[bool] = False
    keeps_heads: ClassVar[bool] = False
    renamed: ClassVar[Mapping[str, str]] = {}

    @property
    def needs_labels(self) -> bool:
        """Whether it follows the loss of the data's own labels."""
        return False

    @property
    def is_progressive(self) -> bool:
        """Whether there can be several rounds, each going further than the one before."""
        return False

    @classmethod
    def obstacle(cls, checkpoint: Checkpoint, component: str) -> str | None:
        """Why it can change nothing in a component of a checkpoint, in a clause; None where it can."""
        return None

    @classmethod
    def able_components(cls, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Names of the components that nothing stands against, at least one.

        Raises:
            RecipeError: there is none; the message has the `obstacle` of each.
        """
        obstacles = {name: cls.obstacle(checkpoint, name) for name in checkpoint.contract.components}
        if all(obstacles.values()):
            named = "; ".join(f"the {name} {obstacle}" for name, obstacle in obstacles.items())
            raise RecipeError(f"{cls.kind}: {named}")
        return tuple(name for name, obstacle in obstacles.items() if obstacle is None)

    @classmethod
    def refusal(cls, checkpoint: Checkpoint, component: str) -> str | None:
        """Why it is not run on a component of a checkpoint: because of a second head, or an `obstacle`."""
        reranker = checkpoint.contract.reranker
        if reranker is not None and not cls.keeps_heads:
            return f"is of a model with a second head ({reranker.component}), {DROP_FIRST}"
        return cls.obstacle(checkpoint, component)

    def run(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        """`apply`, where a second head does not stand against it; see there.

        Raises:
            RecipeError: it does.
        """
        reranker = checkpoint.contract.reranker
        if reranker is not None and not self.keeps_heads:
            raise RecipeError(
                f"{self.kind}: the model has a second head ({reranker.component}), {DROP_FIRST}"
            )
        return self.apply(checkpoint, inputs)

    @abstractmethod
    def title(self, fraction: float) -> str:
        """The title shown while it runs and in the log, with the progress after a round."""

    @abstractmethod
    def check(self, components: Sequence[str]) -> None:
        """Checks, before anything runs, that the settings make sense for a model of these components.

        Raises:
            RecipeError: they do not.
        """

    @abstractmethod
    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        """Change a checkpoint in place.

        Returns:
            What was done, as JSON.

        Raises:
            RecipeError: a target cannot be reached, or the model is not made for this.
            DataError: the data is not enough.
        """


@dataclass(frozen=True, kw_only=True)
class ComponentwiseMethod(CompressionMethod):
    """Base of methods that change some components, or all.

    Attributes:
        components: which are changed; all where none is named.
    """

    renamed: ClassVar[Mapping[str, str]] = {"towers": 'components, as in components = ["image_encoder"]'}

    components: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.components)) < len(self.components):
            named = ", ".join(shortened(each, 30) for each in self.components[:9])
            raise RecipeError(f"components: each once, not {named}")

    @classmethod
    def obstacle(cls, checkpoint: Checkpoint, component: str) -> str | None:
        return no_stack(checkpoint, component)

    def check(self, components: Sequence[str]) -> None:
        check_components(self.components, components)

    def changed(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """The components of a checkpoint that are changed."""
        return self.components or tuple(checkpoint.contract.components)


def no_stack(checkpoint: Checkpoint, component: str) -> str | None:
    """Say so where a component is no stack of transformer layers."""
    return None if component in checkpoint.stacks else "is no stack of transformer layers"


def check_components(asked: Sequence[str], components: Sequence[str]) -> None:
    """Raise RecipeError where a model has no component that is asked for."""
    for name in asked:
        if name not in components:
            raise RecipeError(
                f"this model has no component {shortened(name, 30)!r}, only {', '.join(components)}"
            )
