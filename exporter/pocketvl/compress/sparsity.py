"""Weights that are 0, and are held there while a model is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import parametrize

from pocketvl.compress.shrink import linear


def hold_masks_(module: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Keep weights at 0 while the module is trained; `release_masks_` makes them plain parameters again."""
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


@contextmanager
def held_zeros(module: nn.Module, hold: bool = True) -> Iterator[None]:
    """Keep all linears' weights at 0 that are so now, while the module is trained.

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
