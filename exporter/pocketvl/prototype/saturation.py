"""Layers that can saturate in int8 kernels that add two products in 16 bits: x86 before VNNI.

Such a kernel (`vpmaddubsw`) multiplies uint8 activations by int8 weights, adds the products of two neighbours
along the input axis, and clamps that sum to -32768..32767; from there on it adds in 32 bits. The sum of the
inputs 2j and 2j+1 of one output is clamped for no activations at all, or for some; weights alone tell which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketvl.network.integers import QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import Mode

_LARGEST_ACTIVATION = 255
_LOWEST_SUM, _HIGHEST_SUM = -(1 << 15), (1 << 15) - 1
_MOST_ABOVE, _MOST_BELOW = _HIGHEST_SUM // _LARGEST_ACTIVATION, -_LOWEST_SUM // _LARGEST_ACTIVATION

SAFE_WEIGHT = min(_MOST_ABOVE, _MOST_BELOW) // 2
"""Weights from -64 to 64 saturate with no activations: 255 * (64 + 64) = 32640. From 65 on some do: 33150."""


@dataclass(frozen=True)
class Saturation:
    """Possible saturation of one layer.

    Attributes:
        name: the module's name for the layer.
        pairs: of neighbouring weights, over all outputs; an input left over is a pair with 0.
        saturating: how many of them some activations saturate.
        largest_weight: the largest absolute integer.
    """

    name: str
    pairs: int
    saturating: int
    largest_weight: int

    @property
    def possible(self) -> bool:
        """Whether any activations make this layer's sums wrong."""
        return self.saturating > 0

    @property
    def share(self) -> float:
        """Saturating pairs among all, 0 to 1."""
        return self.saturating / self.pairs if self.pairs else 0.0


def saturating_layers(component: QuantizedComponent) -> tuple[Saturation, ...]:
    """What the weights of each layer allow whose integers are multiplied, in the component's order.

    It is a proof for layers where nothing saturates, and an upper bound elsewhere: the activations that it
    takes may never come together. Token tables and other layers that are widened to floats are left out.

    Convolutions are taken as ONNX Runtime packs them: it gathers an output's inputs by kernel row, kernel
    column and then channel. A convolution of one input channel for each output (depthwise) has an exact
    kernel there, which weights alone do not tell from others; it is counted like any other.
    """
    return tuple(
        _saturation(name, layer)
        for name, layer in component.layers.items()
        if layer.spec.mode is not Mode.WEIGHT_ONLY
    )


def saturating_pairs(weights: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Which pairs of neighbours some activations saturate.

    With weights v and w, activations a and b of 0..255 give at most 255 * (max(v, 0) + max(w, 0)) and at
    least 255 * (min(v, 0) + min(w, 0)): where both ends are within 16 bits, so is every sum.

    Args:
        weights: int8 [outputs, inputs], in the order in which the kernel reads the inputs.

    Returns:
        bool [outputs, pairs], pairs = inputs / 2 rounded up.
    """
    outputs, inputs = weights.shape
    padded = np.zeros((outputs, inputs + inputs % 2), np.int32)
    padded[:, :inputs] = weights
    pairs = padded.reshape(outputs, -1, 2)
    above = np.maximum(pairs, 0).sum(axis=2)
    below = np.maximum(-pairs, 0).sum(axis=2)
    found: NDArray[np.bool_] = (above > _MOST_ABOVE) | (below > _MOST_BELOW)
    return found


def _saturation(name: str, layer: QuantizedLayer) -> Saturation:
    found = saturating_pairs(_as_packed(layer.weights))
    largest = int(np.abs(layer.weights.astype(np.int32)).max(initial=0))
    return Saturation(name, found.size, int(found.sum()), largest)


def _as_packed(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """[outputs, inputs] in the kernel's order; convolutions come as [outputs, channels, *kernel]."""
    return np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
