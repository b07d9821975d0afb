"""Weight rounding: least-error scales, GPTQ and bias correction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.errors import DataError
from pocketvl.network.integers import spread
from pocketvl.network.specification import MOST_BITS, Granularity, GridSpec, Scheme
from pocketvl.quantize.arithmetic import (
    Doubles,
    Floats,
    as_steps,
    group_scale,
    grouped,
    quantize_weights,
    row_blocks,
    step_ends,
    weight_scale,
    weight_zero_point,
)
from pocketvl.quantize.settings import Rounding

__all__ = [
    "Feedback",
    "Rounding",
    "clipped_scale",
    "correct_bias",
    "error_feedback",
    "round_weights",
]

_CLIPPINGS, _APART_8 = 40, 5
# The least share of the largest weight that a grid still reaches; with fewer bits, more is worth clipping.
_LEAST_REACH, _LEAST_REACH_8 = 0.3, 0.5
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
_DAMPING, _MOST_DAMPING = 0.01, 1.0
_BLOCK = 64
_PANEL = 512


def clipped_scale(
    weights: Floats,
    spec: GridSpec,
    second_moment: NDArray[np.floating] | None = None,
    least_scale: Floats | float = 0.0,
) -> Floats:
    """The scales, from those that cover all weights down, whose rounded weights have the least error.

    The error of a channel or group, or of the tensor, is the sum of (w - s * q)^2, each weight's weighted by
    the mean square of its input: what it would do to the output if inputs were uncorrelated.

    Args:
        weights: [channels, ...]; per group [channels, inputs].
        spec: their grid.
        second_moment: [inputs, inputs], of which the diagonal is read; None to weigh all weights alike.
        least_scale: of channels, no scale is smaller than this: [channels], or one for all.

    Returns:
        float32 scales, shaped and representable as those of `arithmetic.weight_scale`, with an error that
        is at most theirs.

    Raises:
        RecipeError: the groups do not divide the inputs.
        DataError: the second moment is of another number of inputs.
    """
    widest = weight_scale(weights, spec, least_scale)
    # [channels, groups, size]; of a tensor [1, 1, all]
    values: Floats = grouped(weights, spec).astype(np.float32, copy=False)
    zero_point = weight_zero_point(weights, spec)
    low, high = (
        np.broadcast_to(end.reshape(len(end), -1, 1)[: len(values)], (*values.shape[:2], 1))
        for end in step_ends(spec, zero_point, widest.shape)
    )
    wide = widest.reshape(len(weights), -1)[: len(values)]  # those of a tensor are equal
    least_scale = np.broadcast_to(np.maximum(least_scale, _SMALLEST_SCALE), len(weights))
    least = least_scale[:, None] if len(values) > 1 else least_scale.max(keepdims=True)[:, None]
    importance = np.ones(values.shape[1:], np.float32)  # [groups, size]
    if second_moment is not None:
        _check_shape(second_moment, weights[:1].size)
        every = np.diagonal(second_moment) / max(float(second_moment.diagonal().max()), _SMALLEST_SCALE)
        importance = np.resize(every.astype(np.float32), importance.shape)
    found = np.empty_like(wide)
    for part in row_blocks(values):
        ends = low[part], high[part]
        found[part] = _search(values[part], wide[part], least[part], ends, importance, spec)
    return np.broadcast_to(found.reshape(len(values), *widest.shape[1:]), widest.shape).copy()


def _search(
    values: Floats,
    widest: Floats,
    least: NDArray[np.floating],
    ends: tuple[NDArray[np.int16], NDArray[np.int16]],
    importance: Floats,
    spec: GridSpec,
) -> Floats:
    """Of channels [n, groups, size], the best scales [n, groups]; the widest among equals."""
    exact, weighed = torch.from_numpy(values), torch.from_numpy(importance)
    low, high = (torch.from_numpy(end.astype(np.float32)) for end in ends)
    buffer = torch.empty_like(exact)
    share = (spec.bits - 2) / (MOST_BITS - 2)
    reaches = np.linspace(1.0, _LEAST_REACH + (_LEAST_REACH_8 - _LEAST_REACH) * share, _CLIPPINGS)
    best, lowest_error = np.zeros(widest.shape, np.intp), np.full(widest.shape, np.inf, np.float32)

    def scales(chosen: NDArray[np.intp]) -> Floats:
        scale = widest * reaches[chosen]
        if spec.granularity is Granularity.PER_GROUP:
            return group_scale(scale)
        bounded: Floats = np.maximum(scale, least).astype(np.float32)
        return bounded

    def consider(chosen: NDArray[np.intp]) -> None:
        nonlocal best, lowest_error
        steps = torch.from_numpy(scales(chosen))[..., None]
        torch.div(exact, steps, out=buffer).round_()
        if spec.scheme is Scheme.SYMMETRIC:  # ends are the same for all, which takes a fraction of the time
            buffer.clamp_(spec.lowest, spec.highest)
        else:
            buffer.clamp_(low, high)
        buffer.mul_(steps).sub_(exact).square_()
        error = torch.einsum("cgi,gi->cg", buffer, weighed).numpy()
        better = error < lowest_error
        lowest_error = np.where(better, error, lowest_error)
        best = np.where(better, chosen, best)

    # With many steps the error changes slowly, so that every fifth share and those around the best will do.
    apart = _APART_8 if spec.bits == MOST_BITS else 1
    for index in range(0, _CLIPPINGS, apart):
        consider(np.full(widest.shape, index))
    around = best
    for offset in range(1 - apart, apart):
        consider(np.clip(around + offset, 0, _CLIPPINGS - 1))
    return scales(best)


@dataclass(frozen=True, eq=False)
class Feedback:
    """GPTQ's error feedback: how later weights compensate for the rounding of earlier ones.

    Attributes:
        order: int [inputs]: in which order inputs are rounded.
        shares: F, float32 [inputs, inputs], in that order, upper triangular: row j, column k says how much of
            the error of input j is added to input k before that is rounded.
        pivots: D, float64 [inputs], in that order: H and what was added to its diagonal are
            (F + I) D (F + I)^T.
        added: to the diagonal of H, float64 [inputs], in that order.
    """

    order: NDArray[np.intp]
    shares: Floats
    pivots: Doubles
    added: Doubles


def error_feedback(second_moment: NDArray[np.floating]) -> Feedback:
    """The feedback with which greedy rounding leaves the least output error, tr(dW H dW^T).

    Inputs are rounded in order of decreasing mean square. Inputs that are always 0 have no part in it. A
    share of the mean diagonal is added to the diagonal, so that H may be singular, and that directions of
    which calibration saw nothing are not taken to be free.

    Args:
        second_moment: H, [inputs, inputs], the mean of x x^T.

    Raises:
        DataError: this is no second moment: it holds NaNs, or is far from positive semidefinite.

    Source: Frantar et al., 2022 (arXiv 2210.17323), sections 3.2 and 3.3, in the form of Chee et al., 2023
        (arXiv 2307.13304), equation 4 and theorem 6, which needs no inverse: H = (F + I) D (F + I)^T.
    """
    diagonal = np.diagonal(second_moment).astype(np.float64)
    if not np.isfinite(second_moment).all():
        raise DataError("a second moment of inputs holds NaN or infinity; calibrate again")
    alive = diagonal > 0
    mean = float(diagonal[alive].mean()) if alive.any() else 1.0
    order = np.argsort(-diagonal, kind="stable")
    # The Cholesky factor of H back to front, turned round, is upper triangular.
    turned = second_moment[np.ix_(order[::-1], order[::-1])]
    damping = _DAMPING
    while damping <= _MOST_DAMPING:
        damped, added = torch.from_numpy(turned).clone(), np.where(alive[order], damping * mean, mean)
        damped.diagonal().add_(torch.from_numpy(added[::-1].copy()))
        factor, failed = torch.linalg.cholesky_ex(damped)
        if failed:
            damping *= 10
            continue
        shares = factor.flip(0, 1)
        roots = shares.diagonal().clone()
        shares = shares.div_(roots).triu_(1).float()
        return Feedback(order, shares.numpy(), roots.double().square_().numpy(), added)
    raise DataError("a second moment of inputs is not positive semidefinite; calibrate again")


def round_weights(
    weights: Floats,
    scale: Floats,
    spec: GridSpec,
    rounding: Rounding,
    second_moment: NDArray[np.floating] | None = None,
    feedback: Callable[[NDArray[np.floating]], Feedback] = error_feedback,
    zero_point: NDArray[np.uint8] | None = None,
) -> NDArray[np.signedinteger]:
    """Round weights to integers, to nearest or by GPTQ.

    GPTQ keeps an output channel's nearest integers where its own have a larger output error, as may come of
    weights beyond the ends of the grid.

    Args:
        weights: [channels, ...]; convolutions count as [channels, inputs].
        scale: [channels], or [channels, groups].
        spec: their grid.
        rounding: to the nearest, or GPTQ.
        second_moment: [inputs, inputs], the mean of x x^T, not of centred inputs: so means are kept,
            too. Without it, weights are rounded to the nearest.
        feedback: of a second moment; for those who keep it, since layers may share one.
        zero_point: shaped as the scale, where the grid is affine.

    Returns:
        Steps from 0, as those of `quantize_weights`.

    Raises:
        DataError: the second moment is of another number of inputs, or is none.
    """
    nearest = quantize_weights(weights, scale, spec, zero_point)
    if rounding is Rounding.NEAREST or second_moment is None:
        return nearest
    flat = weights.reshape(len(weights), -1)  # [channels, inputs]
    _check_shape(second_moment, flat.shape[1])
    steps = np.broadcast_to(spread(scale, flat.shape), flat.shape)
    ends, found = step_ends(spec, zero_point, flat.shape), feedback(second_moment)
    compensated, error = _round_in_order(flat, steps, ends, found)
    plain = nearest.reshape(flat.shape)
    better = error < _output_error(flat - plain * steps, found)
    return np.where(better[:, None], as_steps(compensated, spec), plain).reshape(weights.shape)


def _round_in_order(
    weights: Floats,
    steps: Floats,
    ends: tuple[NDArray[np.int16], NDArray[np.int16]],
    feedback: Feedback,
) -> tuple[NDArray[np.int16], Doubles]:
    """GPTQ of [channels, inputs], on scales `steps` of that shape, within ends that broadcast to it.

    Returns:
        Integers of the same shape, and the error that they add to each output, as `_output_error` tells.
    """
    order, shares = feedback.order, feedback.shares
    low, high = (np.broadcast_to(end, weights.shape).T[order].astype(np.float32) for end in ends)
    # One input's weights of all channels lie side by side: [inputs, channels].
    wanted, steps = (np.ascontiguousarray(values.T[order]) for values in (weights, steps))
    errors, rounded = np.zeros_like(wanted), np.empty(wanted.shape, np.int16)
    error = np.zeros(wanted.shape[1])
    for start in range(0, len(order), _BLOCK):
        block = slice(start, start + _BLOCK)
        aims = wanted[block] + _product(shares[:start, block].T, errors[:start])
        for at, aim in enumerate(aims, start):
            aim += shares[start:at, at] @ errors[start:at]
            integers = np.rint(aim / steps[at])
            rounded[at] = np.minimum(np.maximum(integers, low[at], out=integers), high[at], out=integers)
            taken = np.multiply(integers, steps[at], out=integers)
            errors[at] = wanted[at] - taken
            aim -= taken  # row `at` of (F + I)^T dW^T
        error += _weighed_squares(aims, feedback.pivots[block])
    result = np.empty_like(rounded)
    result[order] = rounded
    return np.ascontiguousarray(result.T), error - _weighed_squares(errors, feedback.added)


def _output_error(difference: Floats, feedback: Feedback) -> Doubles:
    """The mean square of what changed weights add to each output: the diagonal of dW H dW^T, float64.

    Args:
        difference: dW, [channels, inputs].
        feedback: of H, which is (F + I) D (F + I)^T without what was added to its diagonal.
    """
    ordered = np.ascontiguousarray(difference.T[feedback.order])
    error = -_weighed_squares(ordered, feedback.added)
    for start in range(0, len(ordered), _PANEL):
        panel, end = slice(start, start + _PANEL), start + _PANEL
        moved = ordered[panel] + _product(feedback.shares[:end, panel].T, ordered[:end])
        error += _weighed_squares(moved, feedback.pivots[panel])
    return error


def _weighed_squares(rows: Floats, weights: Doubles) -> Doubles:
    """Of [inputs, channels], the sum of squares over inputs, each times that input's weight: [channels]."""
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        total += weights[block] @ np.square(rows[block], dtype=np.float64)
    return total


def _product(left: Floats, right: Floats) -> Floats:
    """The product of two large matrices, by torch's threads."""
    product: Floats = (torch.from_numpy(left) @ torch.from_numpy(right)).numpy()
    return product


def correct_bias(
    bias: Floats,
    weights: Floats,
    integers: NDArray[np.signedinteger],
    scale: Floats,
    input_mean: Doubles,
) -> Floats:
    """The bias with which a layer of rounded weights keeps the means of its outputs.

    Args:
        bias: [channels].
        weights: [channels, ...], before rounding.
        integers: what they were rounded to, in steps from 0.
        scale: [channels], or [channels, groups].
        input_mean: [inputs], or of a grouped convolution [groups * inputs], one group after the other.

    Returns:
        float32 [channels].

    Raises:
        DataError: the means are not those of this layer's inputs.

    Source: Nagel et al., 2019 (arXiv 1906.04721), section 4.2; Finkelstein et al., 2019 (arXiv 1906.03193).
    """
    error = weights.astype(np.float64) - integers * spread(scale.astype(np.float64), weights.shape)
    inputs = error[:1].size
    groups = input_mean.size // inputs
    if groups * inputs != input_mean.size or groups == 0 or len(error) % groups:
        raise DataError(f"weights of shape {list(weights.shape)}, and means of {input_mean.size} inputs")
    by_group = error.reshape(groups, -1, inputs)  # [groups, channels of a group, inputs]
    moved = np.einsum("gci,gi->gc", by_group, input_mean.reshape(groups, inputs)).reshape(-1)
    corrected: Floats = (bias + moved).astype(np.float32)
    return corrected


def _check_shape(second_moment: NDArray[np.floating], inputs: int) -> None:
    if second_moment.shape != (inputs, inputs):
        raise DataError(f"{inputs} inputs have a second moment of shape {list(second_moment.shape)}")
