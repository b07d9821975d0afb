"""The shape of a tower that begins anew. (Without torch, so that recipes can be read quickly.)"""

from __future__ import annotations

from dataclasses import dataclass

from pocketvl.errors import RecipeError


@dataclass(frozen=True)
class TowerShape:
    """The shape of a transformer tower.

    Attributes:
        width: of the hidden states.
        layers: how many.
        heads: of each attention; they divide the width.
        neurons: of each feed-forward layer; four times the width where nothing is said.
    """

    width: int
    layers: int
    heads: int
    neurons: int | None = None

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads, self.neurons or 1) < 1:
            raise RecipeError("width, layers, heads and neurons must be at least 1")
        if self.width % self.heads:
            raise RecipeError(f"{self.heads} heads do not divide a width of {self.width}")
