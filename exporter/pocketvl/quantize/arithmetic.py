"""The arithmetic of 8-bit grids: x is held as q = clamp(round(x / s) + z), and read as (q - z) * s."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# A scale below the smallest normal float would itself be flushed to 0 by engines that do so.
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Range:
    """The values that a tensor was seen to hold: low <= x <= high."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Grid:
    """An 8-bit grid, for a whole tensor or for each channel of it.

    Attributes:
        scale: s, float32, 0-dimensional, or [channels].
        zero_point: z, the integer that stands for 0.
        axis: the channel axis, None for one grid for the whole tensor.
        dtype: np.uint8 or np.int8.
        lowest: least integer in use; -127 on symmetric grids, so that -q exists for every q.
        highest: greatest integer in use.
    """

    scale: Floats
    zero_point: int
    axis: int | None
    dtype: type[np.uint8] | type[np.int8]
    lowest: int
    highest: int

    def quantize(self, values: NDArray[np.floating]) -> NDArray[np.integer]:
        """Rounds to the grid, ties to even, and clamps to its ends; shape is kept."""
        steps = np.rint(values / self._scale_like(values).astype(np.float64)) + self.zero_point
        clamped: NDArray[np.floating] = np.clip(steps, self.lowest, self.highest)
        return clamped.astype(self.dtype)

    def dequantize(self, integers: NDArray[np.integer]) -> Floats:
        """Reads integers of this grid as float32; shape is kept."""
        centred = integers.astype(np.float64) - self.zero_point
        return (centred * self._scale_like(integers)).astype(np.float32)

    def _scale_like(self, values: NDArray[np.generic]) -> Floats:
        if self.axis is None:
            return self.scale
        return self.scale.reshape([-1 if axis == self.axis else 1 for axis in range(values.ndim)])


def activation_grid(seen: Range) -> Grid:
    """The asymmetric uint8 grid that covers a range, widened to hold 0, which falls on the grid exactly.

    A tensor that was never anything but 0 gets scale 1.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    scale = np.float32(max((high - low) / 255, _SMALLEST_SCALE) if high > low else 1.0)
    zero_point = int(np.clip(np.rint(-low / float(scale)), 0, 255))
    return Grid(np.asarray(scale), zero_point, None, np.uint8, 0, 255)


def weight_grid(weights: Floats, axis: int, least_scale: Floats | float = 0.0) -> Grid:
    """The symmetric int8 grid of each channel: absmax / 127; a channel of zeros gets scale 1.

    Args:
        weights: of any shape.
        axis: the output channels' axis.
        least_scale: no scale is smaller than this; [channels] or one for all.
    """
    others = tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.abs(weights.astype(np.float64)).max(axis=others, initial=0.0)
    scale = np.where(largest > 0, np.maximum(largest / 127, _SMALLEST_SCALE), 1.0)
    return Grid(np.maximum(scale, least_scale).astype(np.float32), 0, axis, np.int8, -127, 127)


def least_weight_scale(bias: Floats, input_scale: Floats) -> Floats:
    """The least scale of each channel's weights with which its bias fits 32 bits, one bit to spare.

    Products that are added to such a bias are too small beside it for the coarser weights to matter.

    Args:
        bias: [channels].
        input_scale: the activation's, 0-dimensional.
    """
    return (np.abs(bias.astype(np.float64)) / (float(input_scale) * 2**30)).astype(np.float32)


def quantize_bias(
    bias: Floats, input_scale: Floats, weight_scale: Floats
) -> tuple[NDArray[np.int32], Floats]:
    """Rounds a bias to the integers in which products of an input and a weight are added up.

    Args:
        bias: [channels].
        input_scale: the activation's, 0-dimensional.
        weight_scale: [channels], none below `least_weight_scale`.

    Returns:
        int32 [channels] and its scales, float32 [channels].

    Raises:
        ValueError: a bias does not fit 32 bits.
    """
    scale = np.maximum(input_scale * weight_scale, np.float32(_SMALLEST_SCALE)).astype(np.float32)
    limits = np.iinfo(np.int32)
    steps = np.rint(bias / scale.astype(np.float64))
    if np.abs(steps).max(initial=0) > limits.max:
        raise ValueError("a bias is too large for the scales of its input and weights")
    return steps.astype(np.int32), scale
