"""A randomly initialised model of another shape, to be distilled from the source from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pocketvl.errors import RecipeError
from pocketvl.families.component_shape import ComponentShape
from pocketvl.settings import Seed
from pocketvl.train.method import CompressionMethod, MethodInputs, Trait, check_components

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint


@dataclass(frozen=True)
class Reinitialize(CompressionMethod):
    """Puts randomly initialised components of other shapes in the place of all components.

    Attributes:
        shapes: of every component.
        seed: of the weights.
    """

    kind: ClassVar[str] = "reinitialize"
    refuses: ClassVar[Mapping[Trait, str]] = {
        Trait.CHANGED: "reinitialize throws away what came before it: it has to be the first step"
    }
    renamed: ClassVar[Mapping[str, str]] = {
        "image": "shapes.image_encoder, as in shapes = { image_encoder = {...}, text_encoder = {...} }",
        "text": "shapes.text_encoder, as in shapes = { image_encoder = {...}, text_encoder = {...} }",
    }

    shapes: Mapping[str, ComponentShape] = field(hash=False)
    seed: Seed = 0

    @classmethod
    def obstacle(cls, checkpoint: Checkpoint, component: str) -> str | None:
        if checkpoint.architecture.is_reshapable(checkpoint.config, checkpoint.folder):
            return None
        return "is of a family whose components come in no other shape"

    def title(self, fraction: float) -> str:
        return "initialize a smaller model at random"

    def check(self, components: Sequence[str]) -> None:
        check_components(tuple(self.shapes), components)
        for name in components:
            if name not in self.shapes:
                raise RecipeError(f"shapes.{name}: say which shape this component is to have")

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        checkpoint.reinitialize_(self.shapes, self.seed)
        return {name: asdict(shape) for name, shape in self.shapes.items()}
