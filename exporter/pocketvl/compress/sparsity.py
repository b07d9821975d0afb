"""Pruning single weights: the tensors keep their shapes, so that engines run them no faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import parametrize

from pocketvl.compress.scores import weight_scores
from pocketvl.compress.settings import Scope, Score
from pocketvl.compress.shrink import linear
from pocketvl.errors import RecipeError


def sparsity_masks(
    module: nn.Module,
    names: tuple[str, ...],
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
    if not 0 <= sparsity < 1:
        raise RecipeError(f"sparsity must be 0 or above and below 1, not {sparsity}")
    scores = {name: weight_scores(linear(module, name).weight, score) for name in names}
    if scope is Scope.LAYER:
        return {name: _kept(each.flatten(), sparsity).reshape(each.shape) for name, each in scores.items()}
    flat = torch.cat([each.flatten() for each in scores.values()])
    parts = torch.split(_kept(flat, sparsity), [each.numel() for each in scores.values()])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def two_four_masks(
    module: nn.Module, names: tuple[str, ...], score: Score = Score.MAGNITUDE
) -> dict[str, torch.Tensor]:
    """Of every four neighbouring inputs of an output, the two that matter most stay.

    Source: Mishra et al., 2021, "Accelerating Sparse Deep Neural Networks", arXiv 2104.08378. The pattern is
    that of NVIDIA's sparse tensor cores; no engine of phones knows it.

    Raises:
        RecipeError: four does not divide a linear's inputs.
    """
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


def hold_masks_(module: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Keeps weights at 0 while the module is trained; `release_masks_` makes them plain parameters again."""
    for name, mask in masks.items():
        parametrize.register_parametrization(linear(module, name), "weight", _Masked(mask))


def release_masks_(module: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Undoes `hold_masks_`: the weights are parameters again, with zeros where the masks are False."""
    for name in masks:
        parametrize.remove_parametrizations(linear(module, name), "weight")


class _Masked(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.mask: torch.Tensor
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask, weight, 0.0)


def _kept(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Which of [n] scores stay when the least go."""
    going = int(sparsity * len(scores))
    mask = torch.ones(len(scores), dtype=torch.bool)
    mask[scores.argsort(stable=True)[:going]] = False
    return mask


@contextmanager
def held_zeros(module: nn.Module, hold: bool = True) -> Iterator[None]:
    """Keeps all linears' weights at 0 that are so now, while the module is trained.

    Args:
        module: whose linears.
        hold: False does nothing.
    """
    masks = {
        name: child.weight.detach() != 0
        for name, child in module.named_modules()
        if hold and isinstance(child, nn.Linear)
    }
    hold_masks_(module, masks)
    try:
        yield
    finally:
        release_masks_(module, masks)
