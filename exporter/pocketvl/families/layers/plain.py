"""Modules shared by several families, in ops that every engine has."""

from __future__ import annotations

import torch
from torch import nn

from pocketvl_runtime.manifest import ImageProcessor

MASKED = -30000.0
"""Added to the scores of positions that are not attended to: exp() of it is 0, and fp16 can hold it, unlike
fp32's least value."""
_TINY = 1e-12


def l2_normalize(embedding: torch.Tensor) -> torch.Tensor:
    """L2-normalises [B, D] along D, in float32; a zero vector stays zero."""
    if embedding.dtype != torch.float32:  # under autocast
        embedding = embedding.float()
    squares = (embedding * embedding).sum(-1, keepdim=True)  # [B, 1]
    return embedding / torch.sqrt(squares.clamp(min=_TINY * _TINY))


def first_output(found: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What a component gives, or the first of what it gives: hidden states for another come after it."""
    return found if isinstance(found, torch.Tensor) else found[0]


class NormalizePixels(nn.Module):
    """uint8 RGB [B, H, W, 3] -> float32 [B, 3, H, W], rescaled and normalised.

    `quantize/fold.py` folds the arithmetic into the convolution that reads it, and puts a `RawPixels` in its
    place.
    """

    def __init__(self, preprocess: ImageProcessor) -> None:
        """Args: preprocess: whose rescale, mean and std are applied."""
        super().__init__()
        known = preprocess.normalized_in_graph
        self.mean, self.std, self.rescale = known.mean, known.std, known.rescale
        self.factor: torch.Tensor
        self.shift: torch.Tensor
        mean, std = (torch.tensor(v)[:, None, None] for v in (known.mean, known.std))
        self.register_buffer("factor", known.rescale / std)  # [3, 1, 1]
        self.register_buffer("shift", mean / std)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise a batch of images."""
        return pixels.to(torch.float32).permute(0, 3, 1, 2) * self.factor - self.shift


class Constant(nn.Module):
    """float32 [B, ...], the same whatever comes in: what a layer gives of a parameter.

    `quantize/fold.py` puts it in the place of such a layer, since converters compute it and leave no layer.
    """

    def __init__(self, value: torch.Tensor) -> None:
        """Args: value: float32 [1, ...]."""
        super().__init__()
        self.value: torch.Tensor
        self.register_buffer("value", value)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Repeat it for each sample."""
        return self.value.expand(len(given), *self.value.shape[1:])


class RawPixels(nn.Module):
    """uint8 RGB [B, H, W, 3] -> float32 [B, 3, H, W], 0 to 255."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Reorder a batch of images."""
        return pixels.to(torch.float32).permute(0, 3, 1, 2)
