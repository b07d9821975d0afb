"""Equalisation of outlier channels: LayerNorms shrink the channels that reach far, and the linears that read
them grow the weights against it. Convolutions do so for the pointwise convolutions that read them.

An activation's grid has one step for all channels, so that a few large ones leave little of it to the rest;
weights' grids have one step an output channel, with the same trouble across inputs. Which of both suffers
more differs from LayerNorm to LayerNorm, so that the strength is searched for each, by the error to be
expected, from what calibration saw of the linears' inputs.

Source: Xiao et al., 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models", arXiv 2211.10438, equations 3 and 4; between convolutions Nagel et al., 2019, "Data-Free Quantization
Through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.1; past a LayerNorm that is
added to, as Wei et al., 2022, "Outlier Suppression: Pushing the Limit of Low-bit Transformer Language
Models", arXiv 2209.13325, section 4.1, move its scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.families.layers.bert import ScaledSum
from pocketvl.network.specification import ACTIVATION_8, Granularity, GridSpec, Range, Scheme
from pocketvl.observe.calibration import Calibration, LayerCalibration
from pocketvl.observe.observer import TensorObserver
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.quantize.arithmetic import activation_grid
from pocketvl.quantize.equalized import Equalized
from pocketvl.quantize.fold import NormReaders, convolution_readers, norm_readers
from pocketvl_runtime.progress import Progress

Floats = NDArray[np.float64]

STRENGTHS: tuple[float, ...] = tuple(step / 20 for step in range(21))
"""From 0, where all inputs' weights reach equally far, to 1, where all channels of the activation do."""
LEAST_GAIN = 0.5
"""A LayerNorm is left alone if its linears' expected error would fall by a smaller part than this.

Channels always differ a little: of 80 LayerNorms in tiny components drawn at random, without outliers, the
search finds more than 5 % to gain in 61, and more than half in 2. A multiplication on the device is worth
more; a convolution scales by its weights, for nothing.
"""
# A channel that reaches less than this part of the farthest one is below a step of a grid for both; were it
# scaled up to the others, what calibration has not seen of it would go out of range.
_LEAST_REACH = 1e-3
_MOST_OUTPUTS = 256  # of a linear, by which strengths are compared; spread evenly
_SETTINGS = CalibrationSettings()


def equalize_(
    module: nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    calibration: Calibration,
    settings: CalibrationSettings = _SETTINGS,
    bits: int = 8,
    progress: Progress | None = None,
) -> tuple[Equalized, ...]:
    """Scale channels of LayerNorms, and the linears that read them against it, where int8 gains by it.

    The module computes the same as before, but for float rounding. LayerNorms that nothing but linears reads
    should have been folded, for then those that are left alone multiply nothing. After BERT's sums, what the
    next sum adds to is multiplied back, an operation more. Other LayerNorms are not looked at. Convolutions
    that nothing but pointwise ones reads are scaled alike, which costs nothing at all.

    Args:
        module: in eval mode; changed in place.
        example: its input, or a tuple of its inputs.
        calibration: of the module, with second moments, and some vectors of what `scalable` says is read.
        settings: how ranges are chosen.
        bits: of the weights' grids; activations have 8.
        progress: called after each LayerNorm.

    Returns:
        What was decided, a LayerNorm or convolution each.

    Raises:
        DataError: calibration has not seen a linear that reads a LayerNorm, or kept no moments.
    """
    found = scalable(module, example)
    grid = GridSpec(bits, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
    decided = []
    for index, readers in enumerate(found):
        weights = [
            module.get_submodule(name).get_parameter("weight").detach().flatten(1) for name in readers.linears
        ]
        seen = [_seen_by(name, calibration) for name in readers.linears]
        is_norm = isinstance(module.get_submodule(readers.norm), nn.LayerNorm)
        strength, before, after, factors = _search(weights, seen, grid, LEAST_GAIN if is_norm else 0.0)
        told = None if factors is None else tuple(factors.tolist())
        ends = None if factors is None else _ranges(seen, factors, settings)
        decided.append(
            Equalized(readers.norm, readers.linears, strength, before, after, told, ends, readers.sums)
        )
        apply_equalization_(module, decided[-1])
        if progress is not None:
            progress(index + 1, len(found), "equalization")
    return tuple(decided)


def scalable(module: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[NormReaders, ...]:
    """What `equalize_` may scale, LayerNorms and then convolutions, and the layers that read each.

    Args:
        module: in eval mode; left as it is.
        example: its input, or a tuple of its inputs.
    """
    return (*norm_readers(module, example), *convolution_readers(module, example))


def apply_equalization_(module: nn.Module, decided: Equalized) -> None:
    """Divide a LayerNorm's or convolution's channels by factors, and multiply the weights that read them.

    BERT's sums that read them multiply them, too.

    Args:
        module: changed in place.
        decided: where all is to be left as it is, nothing is changed.
    """
    if decided.factors is None:
        return
    factors = torch.tensor(decided.factors, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in module.get_submodule(decided.norm).named_parameters(recurse=False):
            assert name in ("weight", "bias")
            parameter.copy_(parameter.double() / _along(factors, parameter, 0))
        for linear in decided.linears:
            weight = module.get_submodule(linear).get_parameter("weight")
            weight.copy_(weight.double() * _along(factors, weight, 1))
    for name in decided.sums:
        module.set_submodule(name, ScaledSum(module.get_submodule(name), factors))


def _along(factors: torch.Tensor, parameter: torch.Tensor, axis: int) -> torch.Tensor:
    """Factors in a shape that multiplies a parameter along an axis."""
    return factors.reshape([-1 if index == axis else 1 for index in range(parameter.ndim)])


def equalized_calibration(before: Calibration, decided: Iterable[Equalized]) -> Calibration:
    """What calibration would see of an equalized module.

    Args:
        before: what it saw of the module before.
        decided: what was equalized.
    """
    layers = dict(before.layers)
    for each in decided:
        if each.factors is None or each.inputs is None:
            continue
        distinct = {_tensor_of(layers[name]): layers[name] for name in each.linears}
        divided = {key: _divided(seen, np.array(each.factors)) for key, seen in distinct.items()}
        for name, seen in zip(each.linears, each.inputs, strict=True):
            own = layers[name]
            layers[name] = replace(divided[_tensor_of(own)], input=seen, output=own.output)
        if each.norm in layers:  # a convolution, which is quantized itself; all read the same of it
            layers[each.norm] = replace(layers[each.norm], output=each.inputs[0])
    return replace(before, layers=layers)


def _tensor_of(seen: LayerCalibration) -> int:
    """The same for linears that read the same tensor: they share the arrays of what was seen of it."""
    return id(seen.second_moment)


def _divided(seen: LayerCalibration, factors: Floats) -> LayerCalibration:
    """The statistics of inputs divided by factors, but for the range."""
    assert seen.second_moment is not None
    assert seen.low is not None
    assert seen.high is not None
    products: NDArray[np.float32] = np.outer(factors, factors).astype(np.float32)
    return replace(
        seen,
        input_mean=seen.input_mean / factors,
        second_moment=seen.second_moment / products,
        low=seen.low / factors,
        high=seen.high / factors,
        kept=None,
    )


def _ranges(
    seen: Sequence[LayerCalibration], factors: Floats, settings: CalibrationSettings
) -> tuple[Range, ...]:
    """Of each linear the range of its input divided by factors."""
    distinct = {_tensor_of(each): each for each in seen}
    ranges = {key: _range(each, factors, settings) for key, each in distinct.items()}
    return tuple(ranges[_tensor_of(each)] for each in seen)


def _range(seen: LayerCalibration, factors: Floats, settings: CalibrationSettings) -> Range:
    """The range of inputs divided by factors: by the vectors that were kept, within the ends of all."""
    assert seen.kept is not None
    observer = TensorObserver("an equalized input", settings)
    observer.observe(torch.from_numpy(seen.kept / factors.astype(np.float32)))
    observer.observe(torch.tensor(_ends(seen, factors)))
    return observer.range()


def _ends(seen: LayerCalibration, factors: Floats) -> tuple[float, float]:
    """The least and the greatest value of inputs divided by factors."""
    assert seen.low is not None
    assert seen.high is not None
    return float((seen.low / factors).min()), float((seen.high / factors).max())


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


def channel_reach(seen: LayerCalibration) -> Floats:
    """The magnitude that each channel of a linear's input may come to, float64 [channels].

    That is the greatest one seen, or, where more is to be expected, the mean plus as many standard deviations
    as the farthest of all values seen, of all channels, would be from it, were they normal: sqrt(2 ln n).
    After a few vectors the greatest ones seen are chance; were channels scaled so that these reach equally
    far, each would leave the grid again and again on other inputs.
    """
    assert seen.second_moment is not None
    assert seen.low is not None
    assert seen.high is not None
    mean = seen.input_mean
    deviation = np.sqrt(np.maximum(np.diag(seen.second_moment) - mean**2, 0))
    expected = np.abs(mean) + np.sqrt(2 * np.log(seen.count * len(mean))) * deviation
    reach: Floats = np.maximum.reduce([-seen.low, seen.high, expected])
    return reach


def _log_reach(reach: NDArray[np.floating]) -> Floats:
    largest = float(reach.max(initial=0.0))
    if largest == 0:
        return np.zeros(reach.shape)
    logarithms: Floats = np.log(np.maximum(reach.astype(np.float64) / largest, _LEAST_REACH))
    return logarithms


def _seen_by(linear: str, calibration: Calibration) -> LayerCalibration:
    """What calibration saw of a linear's input."""
    seen = calibration.layers.get(linear)
    if seen is None or seen.second_moment is None or seen.kept is None:
        raise DataError(f"{linear} cannot be equalized: calibration kept no second moments or vectors of it")
    return seen


def expected_error(
    weights: Iterable[torch.Tensor],
    energies: Iterable[float],
    seen: Iterable[LayerCalibration],
    factors: Floats,
    grid: GridSpec,
) -> float:
    """The error of linears in static int8, with channels divided and weights multiplied by factors.

    With W' the multiplied weights, dW' their rounding, x' the divided input and D the step of its grid, a
    linear's output is off by E|dW' x'|^2 + D^2 / 12 * |W'|^2 in the mean square. All roundings are taken to
    be independent, so that of x' the mean squares are enough, and that of the input to be uniform within a
    step.

    Args:
        weights: of each linear float32 [outputs, channels]; a part of the outputs will do.
        energies: of each linear the mean square of its output without a bias, as `output_energy` gives it.
        seen: of what each of the linears reads.
        factors: [channels].
        grid: of the weights, symmetric and per channel.

    Returns:
        Squared errors, in parts of the mean square of each linear's output, summed over the linears.
    """
    spread, total = torch.from_numpy(factors).float(), 0.0
    for weight, energy, own in zip(weights, energies, seen, strict=True):
        if energy <= 0:  # whatever comes of it, it is 0 before and after
            continue
        assert own.second_moment is not None
        square = torch.from_numpy(own.second_moment.diagonal().copy())
        step = activation_grid(Range(*_ends(own, factors)), ACTIVATION_8.bits).scale
        scaled = weight * spread
        rounding = (_rounded(scaled, grid) - scaled) / spread  # of the weights as they were
        noise = float((rounding.square_() @ square).sum(dtype=torch.float64))
        noise += step**2 / 12 * float(scaled.square_().sum(dtype=torch.float64))
        total += noise / energy
    return total


def output_energy(weight: torch.Tensor, seen: LayerCalibration) -> float:
    """The mean square of what a linear with weights [outputs, channels] makes of what was seen."""
    assert seen.second_moment is not None
    return float(((weight @ torch.from_numpy(seen.second_moment)) * weight).sum(dtype=torch.float64))


def _rounded(weights: torch.Tensor, grid: GridSpec) -> torch.Tensor:
    """Weights on the symmetric grids that cover each channel of them."""
    reach = weights.abs().amax(dim=1, keepdim=True)
    scale = torch.where(reach > 0, reach / grid.highest, 1.0)
    return (weights / scale).round_().mul_(scale)


def _search(
    weights: list[torch.Tensor], seen: list[LayerCalibration], grid: GridSpec, least_gain: float
) -> tuple[float | None, float, float, Floats | None]:
    """Strength, expected errors before and after, and factors, for linears of these weights and inputs."""
    weight_reach = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0).double().numpy()
    tried = [weight[:: -(-len(weight) // _MOST_OUTPUTS)].contiguous() for weight in weights]
    energies = [output_energy(weight, own) for weight, own in zip(tried, seen, strict=True)]
    before = expected_error(tried, energies, seen, np.ones(len(weight_reach)), grid)
    reach = np.maximum.reduce([channel_reach(own) for own in seen])
    choices = [equalizing_factors(reach, weight_reach, strength) for strength in STRENGTHS]
    errors = [expected_error(tried, energies, seen, factors, grid) for factors in choices]
    best = int(np.argmin(errors))
    if errors[best] > (1 - least_gain) * before or before == 0:
        return None, before, before, None
    return STRENGTHS[best], before, errors[best], choices[best]
