"""What an image tower of an open_clip model has to say of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import nn

from pocketvl.families.base import LayerStack

if TYPE_CHECKING:
    import torch

VISUAL = "visual."
"""What the names of an image tower's tensors begin with, in a folder and here."""


class ImageTower(ABC):
    """An image tower as a configuration describes it, of shapes that are checked.

    Its module takes float32 [B, 3, H, W], normalised, and gives float32 [B, D], which are not normalised.
    Where it pools one position of its last layer, it is a `PoolsOnePosition`.
    """

    @property
    def num_hidden_layers(self) -> int:
        """How many layers there are, of which each has tensors of its own."""
        return 0

    @property
    def stack(self) -> LayerStack | None:
        """Its transformer layers, if it is a stack of them."""
        return None

    def unquantized(self, module: nn.Module) -> tuple[str, ...]:
        """Names of the layers in `module`, which holds the tower, that no precision quantizes."""
        return ()

    def dynamic(self, module: nn.Module) -> tuple[str, ...]:
        """Names of the layers in `module` that are dynamic where others are static; see `Component`."""
        return ()

    @property
    @abstractmethod
    def identity(self) -> object:
        """What outputs depend on and no tensor's shape tells; as JSON."""

    @abstractmethod
    def build(self, initialised: bool) -> nn.Module:
        """Its module, fp32.

        Args:
            initialised: whether weights are random, of torch's present state; else they are uninitialised.
        """

    @abstractmethod
    def unpack_(self, weights: dict[str, torch.Tensor]) -> None:
        """Change, in place, the tensors of a folder whose names begin with `VISUAL` into those of the module.

        What is missing or of a wrong shape is left as it is, and found when both are compared.
        """

    @abstractmethod
    def pack_(self, weights: dict[str, torch.Tensor]) -> None:
        """Change, in place, the module's tensors, which may be compressed, into those of a folder."""
