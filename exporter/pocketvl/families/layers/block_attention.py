"""Attention over segments, each block of its products computed by itself, so that it has grids of its own."""

from __future__ import annotations

import math

import torch
from torch import nn

from pocketvl.errors import RecipeError
from pocketvl.families.layers.blocks import attentions
from pocketvl.families.layers.segments import Segments
from pocketvl.families.layers.split_attention import SegmentAttention, SplitAttention, has_linears


def block_attentions_(module: nn.Module, segments: Segments) -> None:
    """Replace a module's attentions by ones that compute block by block; they share the linears.

    Args:
        module: changed in place.
        segments: of its sequence.

    Raises:
        RecipeError: an attention is not one over the whole sequence, as ViLT's own is.
    """
    for attention in attentions(module):
        owner = module.get_submodule(attention.name)
        module.set_submodule(attention.name, BlockAttention(owner, segments))


class BlockAttention(SegmentAttention):
    """Self-attention over segments: what comes out is that of ViLT's own attention, up to rounding.

    Its products run in the order of `product_shapes` in `quantize`: the blocks of the scores by segment of
    queries, then by segment of keys, and then those of the values.
    """

    def __init__(self, owner: nn.Module, segments: Segments) -> None:
        """Args: owner: the attention in whose place it comes. segments: of the sequence."""
        if not has_linears(owner) or isinstance(owner, SplitAttention):
            raise RecipeError(
                f"{type(owner).__name__} is no whole attention over text and picture, as ViLT's is: "
                "its products have no blocks to quantize"
            )
        super().__init__(owner, segments)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor]:
        """Attend.

        Args:
            hidden_states: float [B, T, width].
            attention_mask: float [B, 1, 1, T], added to the scores.
            output_attentions: refused.

        Returns:
            float [B, T, width], in a tuple.
        """
        if output_attentions:
            raise ValueError("an attention in blocks has no whole maps to give")
        query, key, value = self.project(hidden_states)
        slices = list(self.segments.slices().values())
        scores = [
            torch.cat([query[:, :, rows] @ key[:, :, keys].transpose(-1, -2) for keys in slices], dim=-1)
            for rows in slices
        ]
        found = []
        for each in scores:
            scaled = each / math.sqrt(self.attention_head_size)
            weights = (scaled if attention_mask is None else scaled + attention_mask).softmax(-1)
            parts = [weights[..., keys] @ value[:, :, keys] for keys in slices]
            found.append(torch.stack(parts).sum(0))
        return (torch.cat(found, dim=2).transpose(1, 2).flatten(2),)
