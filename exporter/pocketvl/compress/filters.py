"""Pruning the filters of convolutional towers.

What a filter is coupled to (its BatchNorm, the convolutions and linears that read it, everything that meets
it in a residual sum, the depthwise convolution behind it) has to go with it. Which that is tells the
dependency graph of torch-pruning (Fang et al., 2023, "DepGraph: Towards Any Structural Pruning", arXiv
2301.12900).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pocketvl.compress.scores import weight_scores
from pocketvl.compress.settings import Score
from pocketvl.compress.shrink import check_kept
from pocketvl.errors import RecipeError

_ROOTS = (nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class FilterGroup:
    """Filters that can only go together, one of each layer at a time.

    Attributes:
        root: name of the layer by which the group is known, the first that makes them; a convolution, or a
            linear where a tower writes pointwise convolutions so.
        layers: names of all layers that change.
        scores: float64 [filters]: the sum over the weights of what makes a filter, and of what reads it.
    """

    root: str
    layers: tuple[str, ...]
    scores: torch.Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def keep(self, ratio: float, original: int) -> list[int]:
        """Which filters stay, ascending, when a part of them goes; of equals the earlier ones go, one stays.

        Args:
            ratio: part of the original filters that goes; what has gone already counts.
            original: how many there were before anything was pruned.
        """
        going = max(0, len(self) - max(1, round((1 - ratio) * original)))
        return sorted(self.scores.argsort(stable=True)[going:].tolist())


def filter_groups(
    module: nn.Module,
    example: torch.Tensor,
    fixed: Sequence[str] = (),
    score: Score = Score.MAGNITUDE,
) -> tuple[FilterGroup, ...]:
    """The groups of filters of a module, in the order in which it runs them.

    Args:
        module: a convolutional tower; for Taylor scores with gradients. Left as it is.
        example: its input of batch 1.
        fixed: names of layers whose outputs have to stay, as a projection into a space that others share.
        score: what makes a weight matter.

    Raises:
        RecipeError: a name in `fixed` is of no layer.
    """
    if score is Score.TAYLOR:
        module = _of_scores(module, score)
    names = {child: name for name, child in module.named_modules()}
    return tuple(
        FilterGroup(names[group[0].dep.target.module], _layers(group, names), scores)
        for group, scores in _scored(module, example, fixed)
    )


def keep_filters_(
    module: nn.Module, example: torch.Tensor, kept: Mapping[str, Sequence[int]], fixed: Sequence[str] = ()
) -> None:
    """Removes all filters but these, and what is coupled to them: tensors become smaller.

    Args:
        module: changed in place.
        example: its input of batch 1.
        kept: for the root of each group that changes, the places of the filters that stay, ascending.
        fixed: as `filter_groups`.

    Raises:
        RecipeError: no filter of a group would stay, there is no such filter, or no such group.
    """
    groups = {group.root: len(group) for group in filter_groups(module, example, fixed)}
    for root in kept:
        if root not in groups:
            raise RecipeError(f"{root} is the root of no group of filters; there are {', '.join(groups)}")
        check_kept(kept[root], groups[root], f"filters of {root}")
    graph = _graph(module, example)
    for root, places in kept.items():
        going = sorted(set(range(groups[root])) - set(places))
        if going:
            child = module.get_submodule(root)
            prune = graph.get_pruner_of_module(child).prune_out_channels
            graph.get_pruning_group(child, prune, going).prune()


def _of_scores(module: nn.Module, score: Score) -> nn.Module:
    """A copy that has, in the place of its layers' weights, what each of them matters."""
    scored = copy.deepcopy(module)  # without gradients
    for layer, copied in zip(module.modules(), scored.modules(), strict=True):
        if isinstance(layer, _ROOTS):
            copied.get_parameter("weight").data = weight_scores(layer.weight, score).float()
    return scored


def _scored(module: nn.Module, example: torch.Tensor, fixed: Sequence[str]) -> list[tuple[Any, torch.Tensor]]:
    """The groups of torch-pruning, and their scores."""
    import torch_pruning

    ignored = []
    for name in fixed:
        try:
            ignored.append(module.get_submodule(name))
        except AttributeError:
            raise RecipeError(f"{name} is no layer of this model") from None
    score = torch_pruning.importance.GroupMagnitudeImportance(
        p=1, group_reduction="sum", normalizer=None, target_types=list(_ROOTS)
    )
    groups = _graph(module, example).get_all_groups(ignored_layers=ignored, root_module_types=list(_ROOTS))
    return [(group, score(group).double()) for group in groups]


def _graph(module: nn.Module, example: torch.Tensor) -> Any:
    """How the layers of a module are coupled; it is found by a forward pass with gradients."""
    import torch_pruning

    trained = {parameter: parameter.requires_grad for parameter in module.parameters()}
    try:
        module.requires_grad_(True)
        return torch_pruning.DependencyGraph().build_dependency(module, example_inputs=example, verbose=False)
    finally:
        for parameter, was in trained.items():
            parameter.requires_grad_(was)


def _layers(group: Any, names: Mapping[nn.Module, str]) -> tuple[str, ...]:
    found = (names.get(dep.target.module) for dep, _ in group)
    return tuple(dict.fromkeys(name for name in found if name))
