"""Fake quantization with learned step sizes: LSQ for weights, LSQ+ for activations.

What is stored is how far a grid has moved from where calibration put it, in numbers that begin at 0 and lie
in vectors: so the first forward pass is the calibrated one to the last bit, scales stay positive whatever the
optimizer does, its steps are relative to the grid and not to the unit of the tensor, and weight decay, which
is for matrices, leaves them alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from pocketvl.network.integers import ActivationGrid, QuantizedLayer
from pocketvl.network.specification import Granularity
from pocketvl.quantize.arithmetic import group_scale
from pocketvl.quantize.fake import straight_through

_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


def learned_fake_quantize(
    values: torch.Tensor,
    scale: torch.Tensor,
    offset: torch.Tensor | None,
    lowest: int,
    highest: int,
    gradient_scale: float = 1.0,
) -> torch.Tensor:
    """Fake-quantize, with gradients for values, scale and offset.

    With t = (x - z) / s and q = clamp(round(t), lowest, highest), the answer is s * q + z. Inside the ends,
    lowest < t < highest, its derivatives are 1 by x, q - t by s and 0 by z; outside 0 by x, q by s and 1 by
    z. The offset that is used is z moved to the nearest multiple of s within the grid, in every forward pass:
    lowering rounds it, so training sees it rounded from the first step, and its weights settle on the grid
    that ships. The derivative of that move is taken to be 1 by z and 0 by s, as if it were no move.

    Args:
        values: x, float32 of any shape.
        scale: s, above 0; broadcasts to the values.
        offset: z, as scale; None on symmetric grids.
        lowest: the least integer.
        highest: the greatest integer.
        gradient_scale: factor on the gradients of scale and offset.

    Source: Esser et al., 2019, "Learned Step Size Quantization" (arXiv 1902.08153), equations 1 to 3; with an
    offset Bhalgat et al., 2020, "LSQ+" (arXiv 2004.09576), the derivatives of section 3.1.
    """
    result: torch.Tensor = _LearnedFakeQuantize.apply(  # type: ignore[no-untyped-call]
        values, scale, offset, lowest, highest, gradient_scale
    )
    return result


def zero_point_of(scale: torch.Tensor, offset: torch.Tensor, lowest: int, highest: int) -> torch.Tensor:
    """The zero point, as a float, of the grid whose offset is rounded."""
    return torch.round(-offset / scale).clamp(lowest, highest)


class _LearnedFakeQuantize(torch.autograd.Function):
    """See `learned_fake_quantize`; saves only the inputs for backward, which recomputes the steps."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        scale: torch.Tensor,
        offset: torch.Tensor | None,
        lowest: int,
        highest: int,
        gradient_scale: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(values, scale, offset)
        ctx.ends, ctx.gradient_scale = (lowest, highest), gradient_scale
        steps = torch.round(values / scale)
        if offset is None:
            return steps.clamp_(lowest, highest).mul_(scale)
        zero_point = zero_point_of(scale, offset, lowest, highest)
        return steps.add_(zero_point).clamp_(lowest, highest).sub_(zero_point).mul_(scale)

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, None, None, None]:
        values, scale, offset = ctx.saved_tensors
        lowest, highest = ctx.ends
        steps = values / scale  # t
        if offset is not None:
            steps += zero_point_of(scale, offset, lowest, highest)
        inside = (steps > lowest) & (steps < highest)
        by_scale = torch.where(inside, torch.round(steps) - steps, steps.clamp(lowest, highest))
        to_values = torch.where(inside, gradient, 0.0)
        to_scale = (gradient * by_scale).sum_to_size(scale.shape) * ctx.gradient_scale
        to_offset = None
        if offset is not None:
            to_offset = (gradient - to_values).sum_to_size(offset.shape) * ctx.gradient_scale
        return to_values, to_scale, to_offset, None, None, None


class _LearnedScale(torch.autograd.Function):
    """initial * exp(rate * change); backward does not multiply the gradient by initial * rate.

    Adam's steps do not depend on a positive factor, so long as gradients stand clear of its epsilon of 1e-8.
    Scales of a few thousandths, times LSQ's own factor, would not.
    """

    @staticmethod
    def forward(ctx: Any, change: torch.Tensor, initial: torch.Tensor, rate: float) -> torch.Tensor:
        ratio = torch.exp(rate * change)
        ctx.save_for_backward(ratio)
        return (initial * ratio).clamp_(min=_SMALLEST_SCALE)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (ratio,) = ctx.saved_tensors
        return gradient * ratio, None, None


class LearnedWeights(nn.Module):
    """Learned scales of one layer's weights, per tensor, channel or group, and offsets of affine grids.

    Source: Esser et al., 2019 (arXiv 1902.08153); the gradient's factor 1 / sqrt(N * Qp) from section 2.2,
    N being the weights that share a scale. With an offset Bhalgat et al., 2020 (arXiv 2004.09576).
    """

    def __init__(self, layer: QuantizedLayer, rate: float) -> None:
        """Args: layer: gives the initial scales. rate: learning rate of scales relative to weights."""
        super().__init__()
        self._spec, self._shape, self._rate = layer.spec.weights, layer.scale.shape, rate
        scale = torch.from_numpy(layer.scale.reshape(-1).copy())
        if self._spec.granularity is Granularity.PER_TENSOR:
            scale = scale[:1]
        self.initial: torch.Tensor
        self.register_buffer("initial", scale)
        self.change = nn.Parameter(torch.zeros(len(scale)))  # a vector, for weight decay to pass over
        self.shift: nn.Parameter | None = None  # of the offsets, in widths of the first grid
        if layer.zero_point is not None:
            zero_point = torch.from_numpy(layer.zero_point.reshape(-1).astype(np.float32))
            self.initial_offset: torch.Tensor
            self.register_buffer("initial_offset", -zero_point * scale)
            self.shift = nn.Parameter(torch.zeros(len(scale)))

    def scale(self, least: torch.Tensor | None = None) -> torch.Tensor:
        """float32 [channels], equal per tensor; or [channels, groups] of numbers of both fp16 and bfloat16.

        Args:
            least: [channels], no scale is smaller; None where nothing is asked of them.
        """
        learned: torch.Tensor = _LearnedScale.apply(  # type: ignore[no-untyped-call]
            self.change, self.initial, self._rate
        )
        learned = learned.expand(math.prod(self._shape)).reshape(self._shape)
        if self._spec.granularity is Granularity.PER_GROUP:
            fitting = torch.from_numpy(group_scale(learned.detach().cpu().numpy()))
            return straight_through(learned, fitting.to(learned.device))
        if least is not None and self._spec.granularity is Granularity.PER_TENSOR:
            least = least.max()
        return learned if least is None else straight_through(learned, torch.maximum(learned, least))

    def offset(self) -> torch.Tensor | None:
        """float32, shaped as the scales: what the least integers stand for, not yet multiples of these."""
        if self.shift is None:
            return None
        offset = self.initial_offset + self._rate * self._spec.highest * self.initial * self.shift
        return offset.reshape(self._shape)

    def zero_point(self, scale: torch.Tensor) -> torch.Tensor | None:
        """Whole numbers as float32, shaped as the scales: the integers that stand for 0 with these scales."""
        offset = self.offset()
        if offset is None:
            return None
        return zero_point_of(scale, offset, self._spec.lowest, self._spec.highest)

    def forward(self, weights: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Fake-quantize the weights; shape is kept."""
        channels, groups = len(weights), scale.numel() // len(weights)
        split = weights.reshape(channels, groups, -1)  # [channels, groups, weights of a group]
        factor = 1 / math.sqrt(weights.numel() // len(self.initial) * self._spec.highest)
        steps, offset = scale.reshape(channels, groups, 1), self.offset()
        offsets = None if offset is None else offset.reshape(steps.shape)
        fake = learned_fake_quantize(split, steps, offsets, self._spec.lowest, self._spec.highest, factor)
        return fake.reshape(weights.shape)

    def integers(
        self, weights: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Steps from 0, shaped as the weights: those that `forward` multiplies by the scale.

        int8, or int16 where 8 bits have a zero point.
        """
        channels = len(weights)
        steps = torch.round(
            weights.reshape(channels, scale.numel() // channels, -1) / scale.reshape(channels, -1, 1)
        )
        zero = torch.zeros(1) if zero_point is None else zero_point.reshape(channels, -1, 1)
        rounded = steps.clamp(self._spec.lowest - zero, self._spec.highest - zero)
        kind = torch.int16 if self._spec.highest - self._spec.lowest > 254 else torch.int8
        return rounded.to(kind).reshape(weights.shape)


class LearnedActivation(nn.Module):
    """Learned affine scale and offset of one activation tensor.

    A grid of scale 1 from 0 on holds whole numbers as they are, which are pixels; nothing is learned of it.

    Source: Bhalgat et al., 2020 (arXiv 2004.09576); the gradient's factor as in Esser et al., 2019 (arXiv
    1902.08153), section 2.2, N being the values of one sample.
    """

    def __init__(self, grid: ActivationGrid, rate: float) -> None:
        """Args: grid: the initial one. rate: learning rate of scale and offset relative to weights."""
        super().__init__()
        self._bits, self._highest, self._rate = grid.bits, grid.highest, rate
        self.initial: torch.Tensor
        self.initial_offset: torch.Tensor
        self.register_buffer("initial", torch.tensor([grid.scale]))
        self.register_buffer("initial_offset", torch.tensor([-grid.zero_point * grid.scale]))
        self.change = nn.Parameter(torch.zeros(1))
        self.shift = nn.Parameter(torch.zeros(1))  # of the offset, in widths of the first grid
        self.requires_grad_(not (grid.scale == 1 and grid.zero_point == 0))

    def scale(self) -> torch.Tensor:
        """float32 [1]."""
        learned: torch.Tensor = _LearnedScale.apply(  # type: ignore[no-untyped-call]
            self.change, self.initial, self._rate
        )
        return learned

    def offset(self) -> torch.Tensor:
        """float32 [1]: what the least integer stands for, not yet a multiple of the scale."""
        return self.initial_offset + self._rate * self._highest * self.initial * self.shift

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The nearest on the grid; [B, ...], shape is kept, float32 whatever comes in."""
        factor = 1 / math.sqrt(max(1, values[0].numel()) * self._highest)
        return learned_fake_quantize(values.float(), self.scale(), self.offset(), 0, self._highest, factor)

    def grid(self) -> ActivationGrid:
        """The grid that `forward` uses."""
        with torch.no_grad():
            scale = self.scale()
            zero_point = zero_point_of(scale, self.offset(), 0, self._highest)
        return ActivationGrid(float(scale), int(zero_point), self._bits)
