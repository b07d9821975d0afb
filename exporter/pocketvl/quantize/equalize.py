"""Equalisation of outlier channels: LayerNorms shrink the channels that reach far, and the linears that read
them grow the weights against it.

An activation's grid has one step for all channels, so that a few large ones leave little of it to the rest;
weights' grids have one step an output channel, with the same trouble across inputs. Which of both suffers
more differs from LayerNorm to LayerNorm, so that the strength is searched for each, by the error to be
expected.

Source: Xiao et al., 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models", arXiv 2211.10438, equations 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import length_hint

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.network.specification import ACTIVATION_8, Granularity, GridSpec, Range, Scheme
from pocketvl.observe.calibrate import Feed
from pocketvl.quantize.arithmetic import activation_grid, quantize_weights, weight_scale
from pocketvl.quantize.fold import norm_readers
from pocketvl_runtime.progress import Progress

Floats = NDArray[np.float64]

STRENGTHS: tuple[float, ...] = tuple(step / 20 for step in range(21))
"""From 0, where all inputs' weights reach equally far, to 1, where all channels of the activation do."""
LEAST_GAIN = 0.5
"""A LayerNorm is left alone if its linears' expected error would fall by a smaller part than this.

Channels always differ a little: of 80 LayerNorms in tiny components drawn at random, without outliers, the
search finds more than 5 % to gain in 61, and more than half in 2. A multiplication on the device is worth
more.
"""
# A channel that reaches less than this part of the farthest one is below a step of a grid for both; were it
# scaled up to the others, what calibration has not seen of it would go out of range.
_LEAST_REACH = 1e-3


@dataclass(frozen=True)
class Equalized:
    """The equalization of one LayerNorm.

    Attributes:
        norm: its name in the module.
        linears: names of the linears that read it.
        strength: alpha of the source; None where all was left as it is.
        error_before: expected squared error of the linears' outputs by rounding weights and input, each in
            parts of the output's mean square, summed over the linears.
        error_after: the same with what was decided.
    """

    norm: str
    linears: tuple[str, ...]
    strength: float | None
    error_before: float
    error_after: float


class ChannelStatistics:
    """Streaming statistics of a LayerNorm's output, in fixed memory.

    Attributes:
        low: float64 [channels], the least value of each channel.
        high: float64 [channels], the greatest.
        count: how many vectors were seen.
    """

    def __init__(self, channels: int) -> None:
        self.low: Floats = np.full(channels, np.inf)
        self.high: Floats = np.full(channels, -np.inf)
        self.count = 0
        self._sums: Floats = np.zeros(channels)
        self._products: Floats = np.zeros((channels, channels))

    def observe(self, values: torch.Tensor) -> None:
        """Observe values [..., channels]."""
        rows = values.detach().flatten(0, -2)  # [vectors, channels]
        if len(rows) == 0:
            return
        low, high = torch.aminmax(rows, dim=0)
        self.low, self.high = np.minimum(self.low, low.numpy()), np.maximum(self.high, high.numpy())
        self._sums += rows.sum(0, dtype=torch.float64).numpy()
        self._products += (rows.T @ rows).numpy()
        self.count += len(rows)

    @property
    def second_moment(self) -> Floats:
        """float64 [channels, channels]: the mean of x x^T."""
        return self._products / self.count

    @property
    def reach(self) -> Floats:
        """float64 [channels]: the magnitude that each channel may come to.

        That is the greatest one seen, or, where more is to be expected, the mean plus as many standard
        deviations as the farthest of all values seen, of all channels, would be from it, were they normal:
        sqrt(2 ln n). After a few vectors the greatest ones seen are chance; were channels scaled so that
        these reach equally far, each would leave the grid again and again on other inputs.
        """
        mean = self._sums / self.count
        deviation = np.sqrt(np.maximum(np.diag(self.second_moment) - mean**2, 0))
        expected = np.abs(mean) + np.sqrt(2 * np.log(self.count * len(mean))) * deviation
        reach: Floats = np.maximum.reduce([-self.low, self.high, expected])
        return reach


def equalize_(
    module: nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    feeds: Iterable[Feed],
    bits: int = 8,
    progress: Progress | None = None,
) -> tuple[Equalized, ...]:
    """Scale channels of LayerNorms, and the linears that read them against it, where int8 gains by it.

    The module computes the same as before, but for float rounding. Only LayerNorms that nothing but linears
    reads are looked at; they should have been folded, for then those that are left alone multiply nothing.

    Args:
        module: in eval mode; changed in place.
        example: its input, or a tuple of its inputs.
        feeds: inputs, or tuples of them, read once; what is kept of them is `ChannelStatistics`, a LayerNorm
            each.
        bits: of the weights' grids; activations have 8.
        progress: called after each feed and after each LayerNorm.

    Returns:
        What was decided, a LayerNorm each.

    Raises:
        DataError: no samples, values that are not finite, or a LayerNorm that never ran.
    """
    found = norm_readers(module, example)
    seen = _observe(module, [readers.norm for readers in found], feeds, progress)
    grid = GridSpec(bits, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
    decided = []
    for index, readers in enumerate(found):
        linears = [module.get_submodule(name) for name in readers.linears]
        weights = [linear.get_parameter("weight").detach().double().numpy() for linear in linears]
        strength, factors, before, after = _search(weights, seen[readers.norm], grid)
        if strength is not None:
            _scale_(module.get_submodule(readers.norm), linears, factors)
        decided.append(Equalized(readers.norm, readers.linears, strength, before, after))
        if progress is not None:
            progress(index + 1, len(found), "equalisation")
    return tuple(decided)


def equalizing_factors(
    input_reach: NDArray[np.floating], weight_reach: NDArray[np.floating], strength: float
) -> Floats:
    """By how much each channel of an activation is divided, and the weights that read it multiplied.

    Source: Xiao et al., 2022, arXiv 2211.10438, equation 4; here with a geometric mean of 1.

    Args:
        input_reach: [channels], the greatest magnitude of each.
        weight_reach: [channels], the greatest magnitude among the weights that read each.
        strength: 0 to 1; at 1 all channels reach equally far afterwards, at 0 all channels' weights do.

    Returns:
        float64 [channels], all above 0 and finite.
    """
    logarithms = strength * _log_reach(input_reach) - (1 - strength) * _log_reach(weight_reach)
    factors: Floats = np.exp(logarithms - logarithms.mean())
    return factors


def _log_reach(reach: NDArray[np.floating]) -> Floats:
    largest = float(reach.max(initial=0.0))
    if largest == 0:
        return np.zeros(reach.shape)
    logarithms: Floats = np.log(np.maximum(reach.astype(np.float64) / largest, _LEAST_REACH))
    return logarithms


def expected_error(
    weights: Iterable[NDArray[np.floating]], seen: ChannelStatistics, factors: Floats, grid: GridSpec
) -> float:
    """The error of linears in static int8, with channels divided and weights multiplied by factors.

    With W' the multiplied weights, dW' their rounding, H' the second moment of the divided input and D the
    step of its grid, a linear's output is off by tr(dW' H' dW'^T) + D^2 / 12 * |W'|^2 in the mean square: the
    roundings are taken to be independent, and that of the input to be uniform within a step.

    Args:
        weights: of each linear [outputs, channels].
        seen: of what the linears read.
        factors: [channels].
        grid: of the weights, symmetric and per channel.

    Returns:
        Squared errors, in parts of the mean square of each linear's output, summed over the linears.
    """
    moment = seen.second_moment
    scaled_moment = moment / np.outer(factors, factors)
    ends = Range(float((seen.low / factors).min()), float((seen.high / factors).max()))
    step = activation_grid(ends, ACTIVATION_8.bits).scale
    total = 0.0
    for weight in weights:
        energy = _quadratic(weight, moment)
        if energy <= 0:  # whatever comes of it, it is 0 before and after
            continue
        scaled = (weight * factors).astype(np.float32)
        scale = weight_scale(scaled, grid)
        rounding = quantize_weights(scaled, scale, grid) * scale[:, None].astype(np.float64) - scaled
        noise = _quadratic(rounding, scaled_moment) + step**2 / 12 * float(np.square(scaled).sum(dtype=float))
        total += noise / energy
    return total


def _quadratic(rows: NDArray[np.floating], moment: Floats) -> float:
    """tr(rows moment rows^T): the mean of |rows x|^2."""
    return float(np.vdot(rows @ moment, rows))


def _search(
    weights: list[Floats], seen: ChannelStatistics, grid: GridSpec
) -> tuple[float | None, Floats, float, float]:
    """Strength, factors, and expected errors before and after."""
    untouched = np.ones(len(seen.low))
    before = expected_error(weights, seen, untouched, grid)
    weight_reach = np.max([np.abs(weight).max(axis=0) for weight in weights], axis=0)
    choices = [equalizing_factors(seen.reach, weight_reach, strength) for strength in STRENGTHS]
    errors = [expected_error(weights, seen, factors, grid) for factors in choices]
    best = int(np.argmin(errors))
    if errors[best] > (1 - LEAST_GAIN) * before or before == 0:
        return None, untouched, before, before
    return STRENGTHS[best], choices[best], before, errors[best]


def _scale_(norm: nn.Module, linears: list[nn.Module], factors: Floats) -> None:
    spread = torch.from_numpy(factors)
    with torch.no_grad():
        for name, parameter in norm.named_parameters(recurse=False):
            assert name in ("weight", "bias")
            parameter.copy_(parameter.double() / spread)
        for linear in linears:
            weight = linear.get_parameter("weight")
            weight.copy_(weight.double() * spread)


def _observe(
    module: nn.Module,
    norms: list[str],
    feeds: Iterable[Feed],
    progress: Progress | None,
) -> dict[str, ChannelStatistics]:
    seen = {
        name: ChannelStatistics(len(module.get_submodule(name).get_parameter("weight"))) for name in norms
    }
    total, done = length_hint(feeds), 0
    with torch.inference_mode(), _watched(module, seen):
        for feed in feeds:
            inputs = feed if isinstance(feed, tuple) else (feed,)
            module(*(torch.from_numpy(np.array(values)) for values in inputs))
            done += 1
            if progress is not None:
                progress(done, max(total, done), "calibration")
    if done == 0:
        raise DataError("equalisation needs at least one sample, and got none")
    for name, statistics in seen.items():
        if statistics.count == 0:
            raise DataError(f"calibration never ran {name}, so that it cannot be equalised")
        if not np.isfinite(statistics.reach).all():
            raise DataError(f"calibration: {name} gives NaN or infinity; the model or a sample is broken")
    return seen


@contextmanager
def _watched(module: nn.Module, seen: Mapping[str, ChannelStatistics]) -> Iterator[None]:
    def hook(
        statistics: ChannelStatistics,
    ) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        return lambda norm, inputs, output: statistics.observe(output)

    handles = [
        module.get_submodule(name).register_forward_hook(hook(statistics))
        for name, statistics in seen.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
