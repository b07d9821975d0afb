"""Text and picture in one sequence: the blocks of a fusion model's attention.

In a single-stream fusion model (ViLT: Kim, Son and Kim, 2021, arXiv 2102.03334) text and picture are one
sequence, and each product of its attention is made of four blocks: what text does with text, text with image,
image with text, image with image. A block is named after its product, the segment of its queries and that of
its keys and values, "<attention module>.scores.text_image", and has two grids of its own, like a product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, product
from typing import TYPE_CHECKING

from pocketvl.errors import RecipeError

if TYPE_CHECKING:
    import torch


class Blocks(StrEnum):
    """Which blocks of the products are quantized, and which share a grid."""

    WHOLE = "whole"
    """Each product, with one grid for each of its two operands."""
    EACH = "each"
    """Each product, with grids of their own for each segment's queries, keys, weights and values."""
    CROSS = "cross"
    """Where one segment meets another; what a segment does with itself stays in float."""


@dataclass(frozen=True)
class Segments:
    """The parts of a fusion model's sequence, in its order: {"text": 40, "image": 145}.

    Attributes:
        lengths: in tokens, by the part's name.

    Raises:
        RecipeError: fewer than two, an empty one, or a name that is not letters and digits.
    """

    lengths: Mapping[str, int]

    def __post_init__(self) -> None:
        if len(self.lengths) < 2 or min(self.lengths.values()) < 1:
            raise RecipeError(f"segments are two or more, of a token or more each, not {dict(self.lengths)}")
        if any(not name.isalnum() for name in self.lengths):
            raise RecipeError(f"segments are named in letters and digits, not {', '.join(self.lengths)}")

    @property
    def total(self) -> int:
        """The length of the sequence, in tokens."""
        return sum(self.lengths.values())

    def pairs(self, blocks: Blocks = Blocks.EACH) -> tuple[tuple[str, str], ...]:
        """(the segment of queries, the segment of keys and values) of each block; none of whole products."""
        if blocks is Blocks.WHOLE:
            return ()
        pairs = product(self.lengths, repeat=2)
        return tuple((a, b) for a, b in pairs if a != b or blocks is Blocks.EACH)

    def slices(self) -> dict[str, slice]:
        """The slice of the sequence that each segment takes."""
        ends = accumulate(self.lengths.values())
        return {
            name: slice(end - length, end)
            for (name, length), end in zip(self.lengths.items(), ends, strict=True)
        }

    def span(self, name: str, left: torch.Tensor, right: torch.Tensor) -> bool:
        """Whether queries and keys of a product are the whole sequence, as in self-attention over it."""
        keys = right.shape[-1] if is_scores(name) else right.shape[-2]
        return left.shape[-2] == keys == self.total

    def block(
        self, name: str, pair: tuple[str, str], left: torch.Tensor, right: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The operands of one block: scores [a, K] x [K, b], or weights [a, b] x values [b, N]."""
        rows, keys = (self.slices()[segment] for segment in pair)
        if is_scores(name):
            return left[..., rows, :], right[..., :, keys]
        return left[..., rows, keys], right[..., keys, :]


def block_name(name: str, pair: tuple[str, str]) -> str:
    """The name of a product's block."""
    return f"{name}.{pair[0]}_{pair[1]}"


def is_scores(name: str) -> bool:
    """Whether a product, not a block, is of queries and keys; else it is of attention weights and values."""
    return name.endswith(".scores")
