"""Pruning the heads of attentions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pocketvl.compress.scores import weight_scores
from pocketvl.compress.settings import Score
from pocketvl.compress.shrink import check_keep, linear, prune_inputs_, prune_outputs_
from pocketvl.families.layers.blocks import Attention, set_head_count_
from pocketvl.families.layers.split_attention import SplitAttention


def head_scores(module: nn.Module, attention: Attention, score: Score = Score.MAGNITUDE) -> torch.Tensor:
    """Importance of each head: the sum of scores over its weights in queries, keys, values and projection.

    Args:
        module: holds the attention.
        attention: which one.
        score: of a weight.

    Returns:
        float64 [heads].
    """
    size = attention.head_size
    inward = [weight_scores(linear(module, name).weight, score).sum(1) for name in attention.inward]
    outward = weight_scores(linear(module, attention.output).weight, score).sum(0)
    return torch.stack([*inward, outward]).sum(0).reshape(-1, size).sum(1)


def prune_heads_(
    module: nn.Module, attention: Attention, keep: Sequence[int], means: torch.Tensor | None = None
) -> None:
    """Prune all heads except those to keep: all four linears become smaller.

    Args:
        module: changed in place.
        attention: whose heads.
        keep: indices of the heads to keep, ascending.
        means: [heads * head size], the mean of what heads give: those of the removed ones go into the bias.

    Raises:
        RecipeError: none would be left, or there is no such head.
    """
    size = attention.head_size
    check_keep(keep, linear(module, attention.query).out_features // size, f"heads of {attention.name}")
    indices = [head * size + channel for head in keep for channel in range(size)]
    for name in attention.inward:
        prune_outputs_(module, name, indices)
    prune_inputs_(module, attention.output, indices, means)
    set_head_count_(module, attention, len(keep))
    owner = module.get_submodule(attention.name)
    if isinstance(owner, SplitAttention):
        owner.keep_heads_(keep)
