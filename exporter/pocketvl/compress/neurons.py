"""Pruning the neurons of feed-forward layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pocketvl.compress.scores import weight_scores
from pocketvl.compress.settings import Score
from pocketvl.compress.shrink import check_keep, linear, prune_inputs_, prune_outputs_
from pocketvl.families.layers.blocks import FeedForward


def neuron_scores(module: nn.Module, layer: FeedForward, score: Score = Score.MAGNITUDE) -> torch.Tensor:
    """Importance of each neuron: the sum of scores over its incoming and outgoing weights.

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


def prune_neurons_(
    module: nn.Module, layer: FeedForward, keep: Sequence[int], means: torch.Tensor | None = None
) -> None:
    """Prune all neurons except those to keep: both linears become smaller.

    Args:
        module: changed in place.
        layer: whose neurons.
        keep: indices of the neurons to keep, ascending.
        means: [neurons], the mean of each after the activation: those of the removed ones go into the bias.

    Raises:
        RecipeError: none would be left, or there is no such neuron.
    """
    count = linear(module, layer.up).out_features
    check_keep(keep, count, f"neurons of {layer.up}")
    prune_outputs_(module, layer.up, keep)
    prune_inputs_(module, layer.down, keep, means)
