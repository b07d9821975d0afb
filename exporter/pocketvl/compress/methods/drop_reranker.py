"""Dropping the second head of a model that reranks what its first one finds.

What is left is the first head's components: a smaller bundle, and a model that the other methods know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pocketvl.errors import RecipeError
from pocketvl.train.method import CompressionMethod, MethodInputs, Trait

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint


@dataclass(frozen=True)
class DropReranker(CompressionMethod):
    """Drops the second head's component; what the first answers stays as it is, bit by bit.

    Its weights stay in the checkpoint, unread, so that other tools open that as before.
    """

    kind: ClassVar[str] = "drop-reranker"
    makes: ClassVar[frozenset[Trait]] = frozenset({Trait.ONE_HEAD})
    keeps_heads: ClassVar[bool] = True

    @classmethod
    def obstacle(cls, checkpoint: Checkpoint, component: str) -> str | None:
        reranker = checkpoint.contract.reranker
        if reranker is None:
            return "is of a model without a second head"
        return None if component == reranker.component else "is of the first head"

    def title(self, fraction: float) -> str:
        return "drop the second head"

    def check(self, components: Sequence[str]) -> None:
        pass

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        reranker = checkpoint.contract.reranker
        if reranker is None:
            raise RecipeError("drop-reranker: the model has no second head; leave the step out")
        checkpoint.drop_reranker_()
        return {"dropped": reranker.component}
