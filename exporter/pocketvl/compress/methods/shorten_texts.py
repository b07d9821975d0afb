"""Shorter texts: a graph computes as many tokens of every text as the checkpoint says, most of them padding.

A caption has a dozen tokens, and a CLIP reads 77. Where a model does not read padding, its answers stay as
they are for texts that fit, and a text encoder's time falls about as its tokens do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pocketvl.errors import DataError, RecipeError
from pocketvl.network.ports import token_input
from pocketvl.settings import Count
from pocketvl.train.method import CompressionMethod, MethodInputs, Trait

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint

_MULTIPLE = 8
"""Of this the number of tokens is one, where the data says how many there are: kernels divide rows so."""


@dataclass(frozen=True)
class ShortenTexts(CompressionMethod):
    """Lowers the number of tokens that is computed of every text; longer ones are cut, as by any tokenizer.

    Attributes:
        length: tokens, those that begin and end a text included; 0: as many as the longest text of the data
            has, rounded up to a multiple of 8.
    """

    kind: ClassVar[str] = "shorten-texts"
    makes: ClassVar[frozenset[Trait]] = frozenset({Trait.TRIMMED})
    keeps_heads: ClassVar[bool] = True

    length: Count = 0

    @classmethod
    def obstacle(cls, checkpoint: Checkpoint, component: str) -> str | None:
        if token_input(checkpoint.contract.components[component].inputs) is None:
            return "reads no texts"
        if _longest(checkpoint, component, ("a",)) == checkpoint.tokenizer.max_length:
            return "reads padding like words, so that its answers depend on how much there is"
        return None

    def title(self, fraction: float) -> str:
        return "shorten texts"

    def check(self, components: Sequence[str]) -> None:
        pass

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        readers = self.able_components(checkpoint)
        if not inputs.texts:
            raise DataError("shorten-texts: the data has no texts that say how long they are")
        before = checkpoint.tokenizer.max_length
        longest = max(_longest(checkpoint, name, inputs.texts) for name in readers)
        wanted = self.length or -(-longest // _MULTIPLE) * _MULTIPLE
        if not self.length and wanted >= before:
            raise RecipeError(f"shorten-texts: a text has {longest} of {before} tokens; leave the step out")
        checkpoint.shorten_texts_(wanted)
        return {"texts": len(inputs.texts), "longest": longest, "tokens": [wanted, before]}


def _longest(checkpoint: Checkpoint, component: str, texts: Sequence[str]) -> int:
    """How many tokens of the longest of some texts a component reads."""
    import torch

    from pocketvl.families.layers.prefix import read_lengths
    from pocketvl_runtime.text import Tokenizer

    ids = Tokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer).encode(list(texts)).ids
    return int(read_lengths(checkpoint.component(component).module, torch.from_numpy(ids)).max())
