"""Trimming the vocabulary: tokens that the data's texts never use leave the table and the tokenizer.

In a small model the table of token embeddings is most of the file: 49,408 tokens of width 128 are 6.3 MB in
int8. What it answers to the data's texts stays as it is, bit by bit; other texts are spelt in more tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pocketvl.errors import DataError
from pocketvl.network.ports import token_input
from pocketvl.settings import Count
from pocketvl.train.method import CompressionMethod, MethodInputs, Trait

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint

_FIRST = 4
"""Lowest ids that always stay: CLIP's configurations give id 2 a meaning, and others their special tokens."""


@dataclass(frozen=True)
class TrimVocabulary(CompressionMethod):
    """Takes away the tokens that no text of the data uses.

    Attributes:
        texts: more texts whose tokens stay, such as prompt templates.
        first: how many of the tokens with the lowest ids stay in any case; vocabularies begin with what is
            most common, so that other texts than the data's need fewer tokens.
    """

    kind: ClassVar[str] = "trim-vocabulary"
    makes: ClassVar[frozenset[Trait]] = frozenset({Trait.TRIMMED})
    keeps_heads: ClassVar[bool] = True

    texts: tuple[str, ...] = ()
    first: Count = 0

    @classmethod
    def obstacle(cls, checkpoint: Checkpoint, component: str) -> str | None:
        if token_input(checkpoint.contract.components[component].inputs) is None:
            return "reads no texts"
        if checkpoint.tokenizer.canonicalize:
            return "has a tokenizer that changes texts in Python, which no tokenizer.json can hold"
        return None

    def title(self, fraction: float) -> str:
        return "trim the vocabulary"

    def check(self, components: Sequence[str]) -> None:
        pass

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        from pocketvl.compress.vocabulary import trim_tokenizer
        from pocketvl.families.base import example_inputs
        from pocketvl.observe.structure import token_tables

        readers = self.able_components(checkpoint)
        texts = tuple(dict.fromkeys((*inputs.texts, *self.texts)))
        if not texts:
            raise DataError("trim-vocabulary: the data has no texts that say which tokens are used")
        trimmed = trim_tokenizer(checkpoint.tokenizer_json, texts, max(self.first, _FIRST))
        tables = [
            table
            for name, component in checkpoint.components.items()
            if name in readers
            for table in token_tables(component.module, example_inputs(component))
        ]
        before = checkpoint.trim_vocabulary_(trimmed.content, trimmed.kept, list(dict.fromkeys(tables)))
        return {"texts": len(texts), "tokens": [len(trimmed.kept), before]}
