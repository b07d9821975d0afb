"""Unstructured pruning: single weights become 0; tensors keep their shapes, so that engines run no faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pocketvl.compress.settings import Scope, Score
from pocketvl.errors import RecipeError
from pocketvl.settings import Share
from pocketvl.train.method import ComponentwiseMethod, MethodInputs, Trait

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint


@dataclass(frozen=True)
class Sparsify(ComponentwiseMethod):
    """Sets the weights of layers' linears that matter least to 0; later trainings hold them there.

    Attributes:
        sparsity: part of the weights; or
        two_of_four: of every four neighbouring inputs the two that matter least.
        score: magnitude or taylor.
        scope: so much of each layer, or of all of a component's layers together.
    """

    kind: ClassVar[str] = "sparsify"
    makes: ClassVar[frozenset[Trait]] = frozenset({Trait.SPARSE})
    refuses: ClassVar[Mapping[Trait, str]] = {
        Trait.FACTORIZED: (
            "low-rank comes before sparsify, which passes over what it made: leave one of them out"
        )
    }

    sparsity: Share | None = None
    two_of_four: bool = False
    score: Score = Score.MAGNITUDE
    scope: Scope = Scope.LAYER

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.sparsity is None) != self.two_of_four:
            raise RecipeError("say either sparsity or two_of_four = true")
        self.score.check_of_weights()

    @property
    def needs_labels(self) -> bool:
        return self.score is Score.TAYLOR

    @property
    def is_progressive(self) -> bool:
        return not self.two_of_four

    def title(self, fraction: float) -> str:
        if self.sparsity is None:
            return "prune two of four weights"
        return f"prune {fraction * self.sparsity:.0%} of weights"

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        from pocketvl.compress.gradients import loss_gradients_
        from pocketvl.compress.shrink import layer_linears
        from pocketvl.compress.sparsity import hold_masks_, release_masks_

        if self.score is Score.TAYLOR:
            loss_gradients_(checkpoint, inputs.data)
        done: dict[str, object] = {}
        for component in self.changed(checkpoint):
            names = layer_linears(checkpoint, component)
            if self.sparsity is None:
                masks = two_four_masks(checkpoint.model, names, self.score)
            else:
                sparsity = inputs.fraction * self.sparsity
                masks = sparsity_masks(checkpoint.model, names, sparsity, self.scope, self.score)
            hold_masks_(checkpoint.model, masks)
            release_masks_(checkpoint.model, masks)
            done.update({name: float(1 - mask.float().mean()) for name, mask in masks.items()})
        checkpoint.model.zero_grad(set_to_none=True)
        return done


def sparsity_masks(
    module: nn.Module,
    names: Sequence[str],
    sparsity: float,
    scope: Scope = Scope.LAYER,
    score: Score = Score.MAGNITUDE,
) -> dict[str, torch.Tensor]:
    """Which weights stay when a part of them goes, the least first; of equals the earlier ones go.

    Args:
        module: holds the linears.
        names: of the linears.
        sparsity: part of the weights that goes, 0 or above and below 1.
        scope: in each linear, or among all of them.
        score: what makes a weight matter.

    Returns:
        bool [outputs, inputs] by linear; True stays.

    Raises:
        RecipeError: such a sparsity there is not.
    """
    import torch

    from pocketvl.compress.scores import weight_scores
    from pocketvl.compress.shrink import linear

    if not 0 <= sparsity < 1:
        raise RecipeError(f"sparsity must be 0 or above and below 1, not {sparsity}")
    scores = {name: weight_scores(linear(module, name).weight, score) for name in names}
    if scope is Scope.LAYER:
        return {name: _kept(each.flatten(), sparsity).reshape(each.shape) for name, each in scores.items()}
    flat = torch.cat([each.flatten() for each in scores.values()])
    parts = torch.split(_kept(flat, sparsity), [each.numel() for each in scores.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def two_four_masks(
    module: nn.Module, names: Sequence[str], score: Score = Score.MAGNITUDE
) -> dict[str, torch.Tensor]:
    """Of every four neighbouring inputs of an output, the two that matter most stay.

    Source: Mishra et al., 2021, "Accelerating Sparse Deep Neural Networks", arXiv 2104.08378. The pattern is
    that of NVIDIA's sparse tensor cores; no engine of phones knows it.

    Raises:
        RecipeError: four does not divide a linear's inputs.
    """
    import torch

    from pocketvl.compress.scores import weight_scores
    from pocketvl.compress.shrink import linear

    masks = {}
    for name in names:
        scores = weight_scores(linear(module, name).weight, score)
        if scores.shape[1] % 4:
            raise RecipeError(f"{name} has {scores.shape[1]} inputs, which four does not divide")
        fours = scores.reshape(-1, 4)
        best = fours.argsort(dim=1, descending=True, stable=True)[:, :2]
        mask = torch.zeros(fours.shape, dtype=torch.bool).scatter_(1, best, True)
        masks[name] = mask.reshape(scores.shape)
    return masks


def _kept(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Which of [n] scores stay when the least go."""
    import torch

    going = int(sparsity * len(scores))
    mask = torch.ones(len(scores), dtype=torch.bool)
    mask[scores.argsort(stable=True)[:going]] = False
    return mask
