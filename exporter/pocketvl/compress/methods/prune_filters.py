"""Structured pruning of convolutional components: filters.

What a filter is coupled to (its BatchNorm, the convolutions and linears that read it, everything that meets
it in a residual sum, the depthwise convolution behind it) has to go with it. Which that is tells the
dependency graph of torch-pruning (Fang et al., 2023, "DepGraph: Towards Any Structural Pruning", arXiv
2301.12900).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pocketvl.compress.settings import Score
from pocketvl.errors import RecipeError
from pocketvl.settings import Share
from pocketvl.train.method import CompressionMethod, MethodInputs, check_components

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint


@dataclass(frozen=True)
class PruneFilters(CompressionMethod):
    """Removes the filters of a convolutional component that matter least; its outputs keep their width.

    Attributes:
        ratio: part of the original filters that goes, of every group of filters that can only go together.
        score: magnitude or taylor.
        component: which is pruned.
    """

    kind: ClassVar[str] = "prune-filters"

    ratio: Share
    score: Score = Score.MAGNITUDE
    component: str = "image_encoder"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.score.check_of_weights()

    @property
    def needs_labels(self) -> bool:
        return self.score is Score.TAYLOR

    @property
    def is_progressive(self) -> bool:
        return True

    @classmethod
    def obstacle(cls, checkpoint: Checkpoint, component: str) -> str | None:
        from torch import nn

        modules = checkpoint.component(component).module.modules()
        found = [each for each in modules if isinstance(each, nn.Conv2d)]
        if len(found) < 2:
            return "has no convolutions but its patch embedding, so there are no filters to prune"
        if any(1 < each.groups != each.out_channels for each in found):  # torch-pruning fails at these
            return "has grouped convolutions that give several channels a group, whose filters are not pruned"
        return None

    def title(self, fraction: float) -> str:
        return f"prune {fraction * self.ratio:.0%} of filters"

    def check(self, components: Sequence[str]) -> None:
        check_components([self.component], components)

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        from pocketvl.compress.gradients import loss_gradients_
        from pocketvl.families.base import example_inputs
        from pocketvl.observe.structure import final_linear

        obstacle = self.obstacle(checkpoint, self.component)
        if obstacle is not None:
            advice = 'prune its neurons and heads instead (kind = "prune")'
            raise RecipeError(f"the {self.component} {obstacle}; {advice}")
        component = checkpoint.component(self.component)
        module, (example,) = component.module, example_inputs(component)
        if self.score is Score.TAYLOR:
            loss_gradients_(checkpoint, inputs.data)
        projection = final_linear(module, example)
        fixed = [] if projection is None else [projection]
        groups = filter_groups(module, example, fixed, self.score)
        checkpoint.model.zero_grad(set_to_none=True)
        original = checkpoint.original()
        counts = {group.root: len(original.get_parameter(f"{group.root}.weight")) for group in groups}
        ratio = inputs.fraction * self.ratio
        keep = {group.root: group.select(ratio, counts[group.root]) for group in groups}
        prune_filters_(module, example, keep, fixed)
        return {root: [len(indices), counts[root]] for root, indices in keep.items()}


@dataclass(frozen=True)
class FilterGroup:
    """Filters that can only go together, one of each layer at a time.

    Attributes:
        root: name of the layer by which the group is known, the first that makes them; a convolution, or a
            linear where a model writes pointwise convolutions so.
        layers: names of all layers that change.
        scores: float64 [filters]: the sum over the weights of what makes a filter, and of what reads it.
    """

    root: str
    layers: tuple[str, ...]
    scores: torch.Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, ratio: float, original: int) -> list[int]:
        """Indices of the filters to keep, ascending, when a part goes; of equals the earlier go, one stays.

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
        module: convolutional; for Taylor scores with gradients. Left as it is.
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


def prune_filters_(
    module: nn.Module, example: torch.Tensor, keep: Mapping[str, Sequence[int]], fixed: Sequence[str] = ()
) -> None:
    """Remove all filters but these, and what is coupled to them: tensors become smaller.

    Args:
        module: changed in place.
        example: its input of batch 1.
        keep: for the root of each group that changes, the indices of the filters to keep, ascending.
        fixed: as `filter_groups`.

    Raises:
        RecipeError: no filter of a group would stay, there is no such filter, or no such group.
    """
    from pocketvl.compress.shrink import check_keep

    groups = {group.root: len(group) for group in filter_groups(module, example, fixed)}
    for root in keep:
        if root not in groups:
            raise RecipeError(f"{root} is the root of no group of filters; there are {', '.join(groups)}")
        check_keep(keep[root], groups[root], f"filters of {root}")
    graph = _graph(module, example)
    for root, indices in keep.items():
        going = sorted(set(range(groups[root])) - set(indices))
        if going:
            child = module.get_submodule(root)
            prune = graph.get_pruner_of_module(child).prune_out_channels
            graph.get_pruning_group(child, prune, going).prune()


def _roots() -> tuple[type[nn.Module], ...]:
    """Layers that make filters."""
    from torch import nn

    return nn.Conv2d, nn.Linear


def _of_scores(module: nn.Module, score: Score) -> nn.Module:
    """A copy with importance scores in place of its layers' weights."""
    from pocketvl.compress.scores import weight_scores

    scored = copy.deepcopy(module)  # without gradients
    for layer, copied in zip(module.modules(), scored.modules(), strict=True):
        if isinstance(layer, _roots()):
            weight = layer.get_parameter("weight")
            copied.get_parameter("weight").data = weight_scores(weight, score).float()
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
        p=1, group_reduction="sum", normalizer=None, target_types=list(_roots())
    )
    groups = _graph(module, example).get_all_groups(ignored_layers=ignored, root_module_types=list(_roots()))
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
