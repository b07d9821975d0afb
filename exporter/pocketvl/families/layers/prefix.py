"""How much of a text a module reads."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from pocketvl.families.layers.split_attention import SplitAttention


class ReadsPrefix(ABC):
    """Mixin of a module whose output depends on no more than the first tokens of each text.

    A causal encoder that pools the end of a text reads nothing after it; one that masks padding reads none of
    it. Most texts are padding for the most part. What activations are like there says nothing about those
    that count, and takes as long to compute.
    """

    @abstractmethod
    def read_lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """How many tokens the output depends on, from the first on.

        Args:
            ids: int [B, T].

        Returns:
            int64 [B], from 1 to T. Without the others the output is the same, up to the order of sums.
        """


class MasksPadding(ReadsPrefix):
    """Mixin of a module that leaves padding at the end of texts out of its attention.

    Attributes:
        pad_id: the padding token.
    """

    pad_id: int

    def read_lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Up to the last token that is not padding."""
        numbers = torch.arange(1, ids.shape[1] + 1)
        return ((ids != self.pad_id) * numbers).amax(-1).clamp(min=1)


def read_lengths(module: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """How many tokens of each text a module must be given, int64 [B]; all, unless it says otherwise.

    Args:
        module: whatever reads them.
        ids: int [B, T].
    """
    # attention that is split knows where in the sequence pictures begin
    if not isinstance(module, ReadsPrefix) or any(
        isinstance(child, SplitAttention) for child in module.modules()
    ):
        return torch.full((len(ids),), ids.shape[1])
    return module.read_lengths(ids)
