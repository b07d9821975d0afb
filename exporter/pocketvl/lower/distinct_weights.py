"""Keeps layers of equal weights apart while their module is lowered.

Converters make one constant of equal ones, and one op of two that multiply the same input by them; but each
layer has integers, and a precision, of its own. Equal weights are those of copied layers, of layers that
begin at 0 (a model that grew from another has both) and of a fresh model's constant ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float32]


class StandIns:
    """Random weights in a lowered graph, to be replaced by those that they stand for."""

    def __init__(self, pairs: Mapping[str, tuple[Floats, Floats]]) -> None:
        """Args: pairs: by the layer's name the random weights, and its own, both as in torch."""
        self._pairs = dict(pairs)

    def own_weights(self, name: str, found: Floats, axes: tuple[int, ...]) -> Floats | None:
        """The layer's own weights for a constant that is their stand-in; None for others.

        Args:
            name: the layer's.
            found: the constant.
            axes: how torch's weights are transposed to lie as the constant does.
        """
        if name not in self._pairs:
            return None
        stand_in, own = self._pairs[name]
        if stand_in.ndim != len(axes) or not np.array_equal(stand_in.transpose(axes), found):
            return None
        del self._pairs[name]
        return np.ascontiguousarray(own.transpose(axes))

    @property
    def left(self) -> tuple[str, ...]:
        """Layers whose stand-in has not been found yet."""
        return tuple(self._pairs)


@contextmanager
def distinct_weights(module: nn.Module) -> Iterator[StandIns]:
    """Inside, linears and convolutions whose weights equal another's, or are one number, have random ones.

    Weights that two modules share as one parameter stay as they are.

    Args:
        module: changed in place, and as before afterwards.

    Yields:
        What the random weights stand for; the same module gives the same.
    """
    layers = {
        name: child for name, child in module.named_modules() if isinstance(child, nn.Linear | nn.Conv2d)
    }
    owners = Counter(id(child.weight) for child in layers.values())
    digests = {name: content_digest(child.weight.detach().numpy()) for name, child in layers.items()}
    counts = Counter(digests.values())
    generator = torch.Generator().manual_seed(0)
    pairs: dict[str, tuple[Floats, Floats]] = {}
    kept: dict[str, torch.Tensor] = {}
    for name, child in layers.items():
        weight = child.weight.detach()
        is_constant = bool((weight == weight.flatten()[0]).all())
        if owners[id(child.weight)] == 1 and (counts[digests[name]] > 1 or is_constant):
            kept[name] = weight.clone()
            stand_in = torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
            pairs[name] = stand_in.numpy(), kept[name].numpy()
            weight.copy_(stand_in)
    try:
        yield StandIns(pairs)
    finally:
        for name, weight in kept.items():
            layers[name].weight.detach().copy_(weight)


def content_digest(values: Floats) -> str:
    """A hash of an array's shape and values."""
    digest = hashlib.sha256(f"{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
