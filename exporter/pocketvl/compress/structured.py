"""Structured pruning: select neurons and heads by score, per layer or globally, to a ratio or a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pocketvl.compress.costs import Cost, linear_cost
from pocketvl.compress.heads import head_scores, prune_heads_
from pocketvl.compress.neurons import neuron_scores, prune_neurons_
from pocketvl.compress.settings import Measure, Scope, Score, Units
from pocketvl.compress.shrink import linear
from pocketvl.errors import RecipeError
from pocketvl.families.layers.blocks import Attention, FeedForward, attentions, feed_forwards
from pocketvl.families.layers.split_attention import SplitAttention

_TINY = 1e-30


@dataclass(frozen=True, eq=False)
class Group:
    """The units of one layer.

    Attributes:
        block: the layer.
        scores: float64 [units], what each matters.
        saves: what a model costs less without one of them.
        original: how many there were before anything was pruned.
    """

    block: FeedForward | Attention
    scores: torch.Tensor
    saves: Cost
    original: int

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.block.up if isinstance(self.block, FeedForward) else self.block.name


def groups_of(
    module: nn.Module, original: nn.Module, units: Sequence[Units], score: Score, rows: Mapping[str, int]
) -> tuple[Group, ...]:
    """The units of a component, scored.

    Args:
        module: the component; for Taylor scores with gradients.
        original: the same before anything was pruned; its weights are not read.
        units: which of them.
        score: what makes a weight matter.
        rows: positions of one sample in each linear, by which multiply-adds are counted.
    """
    found: list[Group] = []
    if Units.NEURONS in units:
        for layer in feed_forwards(module):
            up, down = linear(module, layer.up), linear(module, layer.down)
            seen = rows[layer.up]
            saves = linear_cost(up.in_features, 1, seen) + linear_cost(1, down.out_features, seen)
            saves -= linear_cost(0, down.out_features, seen)  # whose channels and biases stay
            count = linear(original, layer.up).out_features
            found.append(Group(layer, neuron_scores(module, layer, score), saves, count))
    if Units.HEADS in units:
        for each in attentions(module):
            size, hidden = each.head_size, linear(module, each.query).in_features
            asking, asked = rows[each.query], rows[each.key]
            saves = linear_cost(hidden, size, asking) + linear_cost(hidden, 2 * size, asked)
            saves += linear_cost(size, hidden, asking) - linear_cost(0, hidden, asking)
            owner = module.get_submodule(each.name)
            products = owner.least_products if isinstance(owner, SplitAttention) else asking * asked
            saves += Cost(macs=2 * products * size)
            count = linear(original, each.query).out_features // size
            found.append(Group(each, head_scores(module, each, score), saves, count))
    return tuple(found)


def gate_gradients(module: nn.Module, group: Group) -> torch.Tensor:
    """dL/dz of a gate z = 1 on each unit's output, float64 [units], from the accumulated gradients.

    It is the sum over the unit's outgoing weights of w * dL/dw.

    Args:
        module: the component, or the model that it is of.
        group: of it.

    Raises:
        ValueError: no gradient is there.
    """
    block, size = group.block, 1
    if isinstance(block, Attention):
        size = block.head_size
    weight = linear(module, block.down if isinstance(block, FeedForward) else block.output).weight
    if weight.grad is None:
        raise ValueError("gates need gradients: run a loss backwards first")
    return (weight.detach().double() * weight.grad.double()).sum(0).reshape(-1, size).sum(1)


def select_by_ratio(groups: Sequence[Group], ratio: float, scope: Scope) -> list[list[int]]:
    """Which units stay when a part of what there was originally goes, the least first; one a layer stays.

    Args:
        groups: of one component, or of several.
        ratio: part of the original units that goes, 0 or above and below 1; what has gone already counts.
        scope: so much of each layer, or of all units together, by scores relative to their layer's mean.

    Returns:
        The indices of the units to keep, ascending, for each group.

    Raises:
        RecipeError: such a ratio there is not.
    """
    if not 0 <= ratio < 1:
        raise RecipeError(f"ratio must be 0 or above and below 1, not {ratio}")
    if scope is Scope.LAYER:
        going = [max(0, len(g) - max(1, round((1 - ratio) * g.original))) for g in groups]
        return [_kept(g.scores, gone) for g, gone in zip(groups, going, strict=True)]
    left = round((1 - ratio) * sum(g.original for g in groups))
    gone, remaining = [0] * len(groups), sum(map(len, groups))
    for index in _cheapest_first(groups, None):
        if remaining <= left:
            break
        if gone[index] < len(groups[index]) - 1:
            gone[index] += 1
            remaining -= 1
    return [_kept(g.scores, count) for g, count in zip(groups, gone, strict=True)]


def select_to_target(groups: Sequence[Group], cost: Cost, measure: Measure, limit: float) -> list[list[int]]:
    """Which units stay so that a model costs no more than this.

    First go those with the least share of their layer's scores for what they cost.

    Args:
        groups: of all components.
        cost: of all components as they are.
        measure: of what.
        limit: the most it may be.

    Returns:
        The indices of the units to keep, ascending, for each group.

    Raises:
        RecipeError: it costs more even with one unit a layer.
    """
    gone, now = [0] * len(groups), cost.of(measure)
    for index in _cheapest_first(groups, measure):
        if now <= limit:
            break
        if gone[index] < len(groups[index]) - 1:
            gone[index] += 1
            now -= groups[index].saves.of(measure)
    if now > limit:
        raise RecipeError(
            f"{measure.value} = {limit:,.0f} cannot be reached: with one unit left in every layer it is "
            f"{now:,}"
        )
    return [_kept(g.scores, count) for g, count in zip(groups, gone, strict=True)]


def prune_units_(
    module: nn.Module, group: Group, keep: Sequence[int], means: Mapping[str, torch.Tensor]
) -> None:
    """Prune all units of a group except those to keep.

    Args:
        module: the component; changed in place.
        group: of it.
        keep: indices of the units to keep.
        means: of the inputs of linears, by name: those of the removed units go into the bias.
    """
    if len(keep) == len(group):
        return
    if isinstance(group.block, FeedForward):
        prune_neurons_(module, group.block, keep, means.get(group.block.down))
    else:
        prune_heads_(module, group.block, keep, means.get(group.block.output))


def _cheapest_first(groups: Sequence[Group], measure: Measure | None) -> list[int]:
    """The group of each unit, in the order in which units go; within a group by ascending scores."""
    ranked: list[tuple[float, int, int]] = []
    for index, group in enumerate(groups):
        relative = group.scores.sort().values / group.scores.mean().clamp(min=_TINY)
        price = 1 if measure is None else len(group) * max(1, group.saves.of(measure))
        ranked += [(float(value) / price, index, order) for order, value in enumerate(relative)]
    return [index for _, index, _ in sorted(ranked)]


def _kept(scores: torch.Tensor, going: int) -> list[int]:
    """Indices to keep when so many of the least go; of equals the earlier ones go."""
    return sorted(scores.argsort(stable=True)[going:].tolist())
