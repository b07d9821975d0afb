"""The shape of a randomly initialised component. (Without torch, so that recipes can be read quickly.)"""

from __future__ import annotations

from dataclasses import dataclass

from pocketvl.errors import RecipeError
from pocketvl.settings import Layers, Settings, Width


@dataclass(frozen=True)
class ComponentShape(Settings):
    """The shape of a transformer encoder.

    Attributes:
        width: of the hidden states.
        layers: how many.
        heads: of each attention; they divide the width.
        neurons: of each feed-forward layer; four times the width where nothing is said.
    """

    width: Width
    layers: Layers
    heads: Width
    neurons: Width | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise RecipeError(f"{self.heads} heads do not divide a width of {self.width}")

    def section(self) -> dict[str, int]:
        """What a section of config.json says of it, in the keys of CLIP and SigLIP."""
        return {
            "hidden_size": self.width,
            "intermediate_size": self.neurons or 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
        }
