"""How weights become integers: which scales, and which of the two nearest integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.integers import spread
from pocketvl.quantize.arithmetic import Floats, group_scale, grouped, quantize_weights, weight_scale
from pocketvl.quantize.settings import Rounding
from pocketvl.specification import Granularity, GridSpec

__all__ = ["Compensation", "Rounding", "clipped_scale", "compensation", "corrected_bias", "round_weights"]

Moments = NDArray[np.float64]

_STEPS = 25
_LEAST_SHRINK_FEW_BITS, _LEAST_SHRINK = 0.4, 0.7
_FEW_BITS = 5
_DAMPING = 0.01
_BLOCK = 128


def clipped_scale(
    weights: Floats, spec: GridSpec, second_moment: Moments | None = None, least_scale: Floats | float = 0.0
) -> Floats:
    """The scales with the least squared error, which may cut off the largest weights.

    Every channel's, or group's, scale is tried between the one that reaches its largest weight and 0.7 of that
    (0.4 for 5 bits and fewer). Errors of inputs that are large count for more: each is weighted by the mean
    square of its input.

    Args:
        weights: [channels, ...]; per group [channels, inputs].
        spec: a symmetric grid per channel or per group.
        second_moment: [inputs, inputs], the mean of x x^T of what goes in; None counts all inputs alike.
        least_scale: of channels, no scale is smaller than this: [channels], or one for all.

    Returns:
        float32 [channels], or [channels, groups], as `weight_scale`.
    """
    widest = weight_scale(weights, spec, least_scale)
    values = torch.from_numpy(np.ascontiguousarray(grouped(weights, spec)))  # [channels, groups, size]
    importance = _importance(values, second_moment)
    best = torch.from_numpy(widest.reshape(values.shape[:2]))
    least = torch.full(best.shape, torch.inf)
    floor = _LEAST_SHRINK if spec.bits > _FEW_BITS else _LEAST_SHRINK_FEW_BITS
    for shrink in np.linspace(1.0, floor, _STEPS):
        scale = _shrunk(widest, float(shrink), spec, least_scale).reshape(best.shape)
        wide = torch.from_numpy(scale)[..., None]
        points = torch.round(values / wide).clamp_(spec.lowest, spec.highest).mul_(wide)
        error = ((points - values).square_() * importance).sum(-1)
        better = error < least
        least = torch.where(better, error, least)
        best = torch.where(better, wide[..., 0], best)
    found: Floats = best.numpy().reshape(widest.shape)
    return found


def _importance(values: torch.Tensor, second_moment: Moments | None) -> torch.Tensor:
    """Weights of errors, [groups, size], 1 on the average."""
    if second_moment is None:
        return torch.ones(())
    squares = np.diagonal(second_moment)
    mean = squares.mean()
    if not mean > 0:
        return torch.ones(())
    # an input that was never seen to be anything but 0 may still come
    weighted = np.maximum(squares / mean, 1e-6).astype(np.float32)
    return torch.from_numpy(weighted.reshape(values.shape[1:]))


def _shrunk(widest: Floats, shrink: float, spec: GridSpec, least_scale: Floats | float) -> Floats:
    if spec.granularity is Granularity.PER_GROUP:
        return group_scale(widest * shrink)
    return np.maximum(widest * np.float32(shrink), least_scale).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Compensation:
    """How the rounding error of one input's weights is made up for by the weights that come after it.

    Attributes:
        order: the inputs in the order in which they are rounded.
        factor: float64 [inputs, inputs], in that order: the upper Cholesky factor of the inverse moment.
    """

    order: torch.Tensor
    factor: torch.Tensor


def compensation(second_moment: Moments) -> Compensation:
    """Prepares GPTQ for a layer's inputs; layers that read the same tensor can share it.

    Inputs of large mean square are rounded first, as long as many others are left to make up for them. A
    hundredth of the mean square is added to the diagonal, so that no error is made up for by inputs that say
    almost the same.

    Args:
        second_moment: [inputs, inputs], the mean of x x^T of what goes in.

    Source: Frantar et al., 2022, "GPTQ" (arXiv 2210.17323), section 3 and algorithm 1; the order is that of
        its authors' code, "act-order".
    """
    moment = torch.from_numpy(np.array(second_moment, np.float64))
    squares = moment.diagonal()
    mean = float(squares.mean())
    damping = _DAMPING * mean if mean > 0 else 1.0
    order = torch.argsort(squares, descending=True, stable=True)
    moment = moment[order][:, order]
    moment.diagonal().add_(damping)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
    return Compensation(order, torch.linalg.cholesky(inverse, upper=True))


def round_weights(
    weights: Floats,
    scale: Floats,
    spec: GridSpec,
    rounding: Rounding = Rounding.NEAREST,
    compensated: Compensation | None = None,
) -> NDArray[np.int8]:
    """Rounds weights to integers of their grid.

    Args:
        weights: [channels, ...].
        scale: [channels], or [channels, groups].
        spec: a symmetric grid.
        rounding: nearest, or GPTQ.
        compensated: the layer's inputs; without it all weights go to their nearest integer.

    Returns:
        int8, shaped as the weights.

    Source: Frantar et al., 2022, "GPTQ" (arXiv 2210.17323), algorithm 1.
    """
    if rounding is Rounding.NEAREST or compensated is None:
        return quantize_weights(weights, scale, spec)
    flat = weights.reshape(len(weights), -1)
    wide = torch.from_numpy(np.broadcast_to(spread(scale, flat.shape), flat.shape).astype(np.float64))
    order = compensated.order
    rounded = _compensated(
        torch.from_numpy(flat.astype(np.float64))[:, order], wide[:, order], spec, compensated.factor
    )
    integers = torch.empty_like(rounded)
    integers[:, order] = rounded
    found: NDArray[np.int8] = integers.to(torch.int8).numpy().reshape(weights.shape)
    return found


def _compensated(
    weights: torch.Tensor, scale: torch.Tensor, spec: GridSpec, factor: torch.Tensor
) -> torch.Tensor:
    """Rounds column after column, and takes what each lost out of the columns after it.

    Args:
        weights: [channels, inputs], changed in place.
        scale: [channels, inputs].
        spec: a symmetric grid.
        factor: [inputs, inputs], upper triangular.
    """
    integers = torch.empty_like(weights)
    count = weights.shape[1]
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = torch.empty_like(weights[:, start:end])
        for column in range(start, end):
            step = scale[:, column]
            nearest = torch.round(weights[:, column] / step).clamp_(spec.lowest, spec.highest)
            integers[:, column] = nearest
            error = (weights[:, column] - nearest * step) / factor[column, column]
            weights[:, column + 1 : end] -= torch.outer(error, factor[column, column + 1 : end])
            errors[:, column - start] = error
        weights[:, end:] -= errors @ factor[start:end, end:]
    return integers


def corrected_bias(bias: Floats, weights: Floats, quantized: Floats, input_mean: Moments) -> Floats:
    """The bias with which the mean of a layer's output is what it was before its weights were quantized.

    Args:
        bias: [channels].
        weights: [channels, ...], in float.
        quantized: of the same shape, what the integers stand for.
        input_mean: [inputs], the mean of what goes in.

    Source: Nagel et al., 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction"
        (arXiv 1906.04721), section 4.2, with the mean measured instead of derived.
    """
    lost = (weights.astype(np.float64) - quantized).reshape(len(weights), -1)
    if lost.shape[1] == len(input_mean):
        shift = lost @ input_mean
    else:  # a convolution of several groups has the inputs of one group after those of the other
        by_group = input_mean.reshape(-1, lost.shape[1])  # [groups, inputs of one]
        shift = (lost * by_group.repeat(len(lost) // len(by_group), axis=0)).sum(axis=1)
    return (bias + shift).astype(np.float32)
