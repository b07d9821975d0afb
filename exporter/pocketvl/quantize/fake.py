"""Fake quantization in torch: values are rounded to a quantization grid and stay float."""

from __future__ import annotations

from typing import Any

import torch

from pocketvl.network.integers import ActivationGrid


def fake_quantize(values: torch.Tensor, grid: ActivationGrid) -> torch.Tensor:
    """Fake-quantize with a static activation's scale and zero point; shape and dtype are kept."""
    steps = torch.round(values / grid.scale) + grid.zero_point
    return (steps.clamp(0, grid.highest) - grid.zero_point) * grid.scale


def fake_quantize_dynamic(values: torch.Tensor, bits: int = 8) -> torch.Tensor:
    """Fake-quantize with the affine range of each sample, widened to 0, as a dynamic layer does.

    ONNX Runtime does so for a whole sample; LiteRT for each row of it, which is finer.

    Args:
        values: [B, ...].
        bits: of the grid.
    """
    rest = tuple(range(1, values.ndim))
    low = values.amin(rest, keepdim=True).clamp(max=0)
    high = values.amax(rest, keepdim=True).clamp(min=0)
    highest = (1 << bits) - 1
    scale = ((high - low) / highest).clamp(min=torch.finfo(values.dtype).tiny)
    zero_point = torch.round(-low / scale)
    steps = torch.round(values / scale) + zero_point
    return (steps.clamp(0, highest) - zero_point) * scale


def straight_through(values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """Straight-through estimator: the value of `rounded`, bit by bit, with the gradient of `values`.

    Args:
        values: whose gradient is wanted.
        rounded: what stands in for them; of the same shape. It gets no gradient.

    Source: Bengio, Leonard and Courville, 2013 (arXiv 1308.3432), the straight-through estimator.
    """
    result: torch.Tensor = _StraightThrough.apply(values, rounded.detach())  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    """values + (rounded - values).detach() would do, were it not for what its two additions round off."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None
