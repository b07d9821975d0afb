"""Pruning the neurons of feed-forward layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pocketvl.compress.scores import weight_scores
from pocketvl.compress.settings import Score
from pocketvl.compress.shrink import check_kept, keep_inputs_, keep_outputs_, linear
from pocketvl.families.layers.blocks import FeedForward


def neuron_scores(module: nn.Module, layer: FeedForward, score: Score = Score.MAGNITUDE) -> torch.Tensor:
    """How much each neuron matters: the sum over its incoming and its outgoing weights.

    score(n_i) = sum over j of s(w_ij) + sum over k of s(w_ki), with s as `weight_scores` says. Biases are
    left out, for a neuron that nothing but its bias moves is a constant.

    Args:
        module: holds the layer.
        layer: which one.
        score: of a weight.

    Returns:
        float64 [neurons].
    """
    incoming = weight_scores(linear(module, layer.up).weight, score).sum(1)
    outgoing = weight_scores(linear(module, layer.down).weight, score).sum(0)
    return incoming + outgoing


def keep_neurons_(
    module: nn.Module, layer: FeedForward, kept: Sequence[int], means: torch.Tensor | None = None
) -> None:
    """Removes all neurons but these: both linears become smaller.

    Args:
        module: changed in place.
        layer: whose neurons.
        kept: their places, ascending.
        means: [neurons], what each gives on average, after the activation: what was removed goes on as a
            constant.

    Raises:
        RecipeError: none would be left, or there is no such neuron.
    """
    count = linear(module, layer.up).out_features
    check_kept(kept, count, f"neurons of {layer.up}")
    keep_outputs_(module, layer.up, kept)
    keep_inputs_(module, layer.down, kept, means)
