"""Quantization arithmetic: x is stored as the integer q nearest to (x - z) / s, and read as s * q + z."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.errors import RecipeError
from pocketvl.network.integers import ActivationGrid, spread
from pocketvl.network.specification import Granularity, GridSpec, Range, Scheme

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# A scale below the smallest normal float would itself be flushed to 0 by engines that do so.
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
# Engines hold the scale of a group as fp16, and multiply by it as bfloat16: it must be a number of both.
_SMALLEST_GROUP_SCALE, _LARGEST_GROUP_SCALE = 2.0**-14, 65280.0
_WEIGHTS_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class Grid:
    """q = argmin over lowest..highest of |q - (x - offset) / scale|, and q stands for scale * q + offset.

    Attributes:
        scale: s, above 0, of any shape that broadcasts to the values.
        offset: z, of any such shape; 0 on symmetric grids.
        lowest: the least integer.
        highest: the greatest integer.
    """

    scale: NDArray[np.floating]
    offset: NDArray[np.floating]
    lowest: int
    highest: int

    @classmethod
    def of(cls, grid: ActivationGrid) -> Grid:
        """An activation's grid."""
        scale = np.asarray(np.float32(grid.scale))
        return cls(scale, np.asarray(-grid.zero_point * scale.astype(np.float64)), 0, grid.highest)

    def quantize(self, values: NDArray[np.floating]) -> NDArray[np.int16]:
        """The integers of the nearest points, ties to even, within the ends; shape is kept."""
        steps = np.rint((values - self.offset.astype(np.float64)) / self.scale.astype(np.float64))
        clamped: NDArray[np.floating] = np.clip(steps, self.lowest, self.highest)
        return clamped.astype(np.int16)

    def dequantize(self, integers: NDArray[np.integer]) -> Floats:
        """Dequantize integers; shape is kept."""
        return (integers * self.scale.astype(np.float64) + self.offset).astype(np.float32)


def activation_grid(seen: Range, bits: int = 8) -> ActivationGrid:
    """The affine grid that covers a range, widened to hold 0, which falls on the grid exactly.

    A tensor that was never anything but 0 gets scale 1.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    highest = 2**bits - 1
    scale = np.float32(max((high - low) / highest, _SMALLEST_SCALE) if high > low else 1.0)
    zero_point = int(np.clip(np.rint(-low / float(scale)), 0, highest))
    return ActivationGrid(float(scale), zero_point, bits)


def weight_scale(weights: Floats, spec: GridSpec, least_scale: Floats | float = 0.0) -> Floats:
    """Scales that cover the weights of each channel or group, or of the tensor.

    What holds nothing but zeros gets scale 1.

    Args:
        weights: [channels, ...]; per group [channels, inputs].
        spec: their grid.
        least_scale: of channels, no scale is smaller than this: [channels], or one for all.

    Returns:
        float32 [channels], equal ones per tensor; or [channels, groups], each of those a number that fp16 and
        bfloat16 both have.

    Raises:
        RecipeError: the groups do not divide the inputs.
    """
    low, high = weight_ends(grouped(weights, spec), spec)
    extent = high - low
    scale = np.where(extent > 0, np.maximum(extent / (spec.highest - spec.lowest), _SMALLEST_SCALE), 1.0)
    if spec.granularity is Granularity.PER_GROUP:
        return group_scale(scale)
    found = np.maximum(scale[:, 0], least_scale)
    if spec.granularity is Granularity.PER_TENSOR:
        found = found.max(keepdims=True)
    return np.broadcast_to(found, len(weights)).astype(np.float32)


def weight_ends(values: NDArray[np.generic], spec: GridSpec) -> tuple[Doubles, Doubles]:
    """The ends of [n, groups, weights], widened to 0, equally far if symmetric: float64 [n, groups] each."""
    low = values.min(axis=-1, initial=0).astype(np.float64)
    high = values.max(axis=-1, initial=0).astype(np.float64)
    if spec.scheme is Scheme.AFFINE:
        return low, high
    largest = np.maximum(-low, high)
    return -largest, largest


def weight_zero_point(weights: Floats, spec: GridSpec) -> NDArray[np.uint8] | None:
    """The integers that stand for 0 on affine grids, whatever share of the weights' range a scale covers.

    Returns:
        uint8, shaped as the scales of `weight_scale`; None where the grid is symmetric.
    """
    if spec.scheme is Scheme.SYMMETRIC:
        return None
    low, high = weight_ends(grouped(weights, spec), spec)
    below = np.rint(spec.highest * -low / np.where(high > low, high - low, 1.0))
    if spec.granularity is not Granularity.PER_GROUP:
        below = np.broadcast_to(below[:, 0], len(weights))
    return below.astype(np.uint8)


def step_ends(
    spec: GridSpec, zero_point: NDArray[np.uint8] | None, shape: tuple[int, ...]
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """The least and greatest weights of a grid, in steps from 0, in a shape that broadcasts to `shape`."""
    zero = np.zeros(1, np.int16) if zero_point is None else spread(zero_point.astype(np.int16), shape)
    return spec.lowest - zero, spec.highest - zero


def group_scale(scale: NDArray[np.floating]) -> Floats:
    """The nearest scales that fp16 and bfloat16 both have."""
    fits = np.clip(scale, _SMALLEST_GROUP_SCALE, _LARGEST_GROUP_SCALE).astype(np.float32)
    rounded: Floats = torch.from_numpy(fits).bfloat16().float().numpy()
    return rounded


def grouped(weights: NDArray[np.generic], spec: GridSpec) -> NDArray[np.generic]:
    """Weights as [channels, groups, weights of a group]; per channel one group, per tensor [1, 1, all]."""
    flat = weights.reshape(1 if spec.granularity is Granularity.PER_TENSOR else len(weights), -1)
    size = spec.group_size or flat.shape[1]
    if spec.group_size is not None and (weights.ndim != 2 or flat.shape[1] % size):
        raise RecipeError(f"groups of {size} do not divide weights of shape {list(weights.shape)}")
    return flat.reshape(len(flat), -1, size)


def quantize_weights(
    weights: Floats, scale: Floats, spec: GridSpec, zero_point: NDArray[np.uint8] | None = None
) -> NDArray[np.signedinteger]:
    """Round weights to nearest.

    Args:
        weights: [channels, ...].
        scale: [channels], or [channels, groups].
        spec: their grid.
        zero_point: shaped as the scale, where the grid is affine.

    Returns:
        Steps from 0, shaped as the weights: int8, or int16 where 8 bits have a zero point.
    """
    integers = np.empty(weights.shape, _steps_dtype(spec))
    for rows in row_blocks(weights):
        part = weights[rows]
        steps = np.rint(part.astype(np.float64) / spread(scale[rows].astype(np.float64), part.shape))
        zero = None if zero_point is None else zero_point[rows]
        integers[rows] = np.clip(steps, *step_ends(spec, zero, part.shape))
    return integers


def row_blocks(weights: NDArray[np.generic]) -> Iterator[slice]:
    """Slices of rows so small that they stay in a core's cache, and a token table is there once."""
    rows = max(1, _WEIGHTS_AT_ONCE // max(1, weights[:1].size))
    yield from (slice(start, start + rows) for start in range(0, len(weights), rows))


def as_steps(steps: NDArray[np.generic], spec: GridSpec) -> NDArray[np.signedinteger]:
    """Rounded weights in the type that holds them: int8, or int16 where 8 bits have a zero point."""
    return steps.astype(_steps_dtype(spec))


def _steps_dtype(spec: GridSpec) -> type[np.signedinteger]:
    return np.int16 if (spec.highest - spec.lowest) > 254 else np.int8


def least_weight_scale(bias: Floats, input_scale: float) -> Floats:
    """The least scale of each channel's weights with which its bias fits 32 bits, one bit to spare.

    Products that are added to such a bias are too small beside it for the coarser weights to matter.

    Args:
        bias: [channels].
        input_scale: the activation's.
    """
    return (np.abs(bias.astype(np.float64)) / (input_scale * 2**30)).astype(np.float32)


def quantize_bias(bias: Floats, input_scale: float, weight_scale: Floats) -> NDArray[np.int32]:
    """Round a bias to the integers in which products of an input and a weight are added up.

    Args:
        bias: [channels].
        input_scale: the activation's, a float32 value.
        weight_scale: [channels], none below `least_weight_scale`.

    Raises:
        ValueError: a bias does not fit 32 bits.
    """
    scale = np.maximum(np.float32(input_scale) * weight_scale, np.float32(_SMALLEST_SCALE))
    steps = np.rint(bias / scale.astype(np.float64))
    if np.abs(steps).max(initial=0) > np.iinfo(np.int32).max:
        raise ValueError("a bias is too large for the scales of its input and weights")
    integers: NDArray[np.int32] = steps.astype(np.int32)
    return integers
