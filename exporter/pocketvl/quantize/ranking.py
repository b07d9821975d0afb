"""Groups of layers and the sensitivity of each to quantization.

Without torch, so that a ranking is read quickly.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from pocketvl.network.integers import QuantizedComponent


@dataclass(frozen=True)
class LayerSensitivity:
    """The sensitivity of one group of layers.

    Attributes:
        layers: the names of the group's layers.
        bits: of their weights.
        loss: of cosine (`EmbeddingLoss.cosine`), where only this group is quantized. Losses do not add up:
            errors of one layer are carried, clipped or drowned by those after it.
        squared: the same of the mean squared error.
    """

    layers: tuple[str, ...]
    bits: int
    loss: float
    squared: float

    @property
    def name(self) -> str:
        """Of one layer its name, of several "parent.{k_proj,q_proj,v_proj}"."""
        if len(self.layers) == 1:
            return self.layers[0]
        parent = _parent(self.layers[0])
        own = ",".join(layer.rpartition(".")[2] for layer in self.layers)
        return f"{parent}.{{{own}}}" if parent else f"{{{own}}}"


def layer_groups(component: QuantizedComponent) -> tuple[tuple[str, ...], ...]:
    """The layers that are quantized together or not at all, as the component orders them.

    Static layers of one parent that are quantized alike and have the very same input grid read the same
    tensor: an attention's queries, keys and values. As one of them in float keeps that tensor in float beside
    its grid, they belong together. Any other layer stands alone.
    """
    groups: dict[Hashable, list[str]] = {}
    for name, layer in component.layers.items():
        key = name if layer.input is None else (_parent(name), layer.spec, layer.input)
        groups.setdefault(key, []).append(name)
    return tuple(tuple(names) for names in groups.values())


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
