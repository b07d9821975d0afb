"""Observers: streaming histograms of activations, and the clipping range chosen from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.errors import DataError
from pocketvl.network.specification import Range
from pocketvl.observe.settings import CalibrationSettings, Observer

__all__ = [
    "BINS",
    "CalibrationSettings",
    "Histogram",
    "Observer",
    "TensorObserver",
    "entropy_range",
    "mse_range",
    "percentile_range",
]

Doubles = NDArray[np.float64]
Cost = Callable[[Doubles, Doubles], Doubles]

BINS = 4096
# A bin is no narrower than this part of the largest value, so that a constant has a width too.
_FINEST = 2.0**-30
_LEAST_EXPONENT = -1000
_CHUNK = 1 << 16  # values binned at once: they stay in the processor's cache
_MOST_COUNTED = 1 << 18  # values of one tensor that are counted at a time; ends are those of all
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
# The search for a clip: each end at sixteenths of its extreme, then around the best at finer and finer parts.
_COARSE, _FINER, _ROUNDS = 16, 4, 3


@dataclass(frozen=True, eq=False)
class Points:
    """A tensor's values as few weighted points, in rising order.

    Attributes:
        values: [points]: the mean of the values in each bin that holds any.
        counts: [points]: how many they are.
        low: the least value.
        high: the greatest value.
        width: of a bin.
    """

    values: Doubles
    counts: Doubles
    low: float
    high: float
    width: float


class Histogram:
    """At most `BINS` bins over all the values seen; more than half of them span the range.

    Bin k holds k w <= x < (k + 1) w, and w is the least power of two with which the range fits. So when the
    range grows, pairs of bins become one and no count is ever split: the counts are the same in whatever
    order and batches the values came.

    Attributes:
        low: the least value seen, exactly.
        high: the greatest.
        width: of a bin.
        first: the k of the first bin.
        counts: int64 [BINS].
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.counts = np.zeros(BINS, np.int64)
        self.first = 0
        self._exponent = _LEAST_EXPONENT
        # of the values in a bin, the distances from its lower end, in widths, added up
        self._excess = np.zeros(BINS, np.float64)

    @property
    def width(self) -> float:
        """Of a bin."""
        return math.ldexp(1.0, self._exponent)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.counts.nbytes + self._excess.nbytes

    def add(self, values: torch.Tensor, seen: Range | None = None) -> None:
        """Count finite values.

        Args:
            values: of any shape.
            seen: their least and greatest value, or of those that they are a part of, where that is known.
        """
        if values.numel() == 0:
            return
        if seen is None:
            seen = Range(*(float(value) for value in torch.aminmax(values.detach())))
        self._reach_(min(seen.low, self.low), max(seen.high, self.high))
        for chunk in torch.split(values.detach().flatten(), _CHUNK):
            steps = chunk.double() * (1.0 / self.width)
            floors = steps.floor()
            excess = steps.sub_(floors)
            bins = floors.sub_(self.first).long()
            self.counts += torch.bincount(bins, minlength=BINS).numpy()
            self._excess += torch.bincount(bins, excess, minlength=BINS).numpy()

    def points(self) -> Points:
        """The bins that hold something."""
        (held,) = np.nonzero(self.counts)
        counts = self.counts[held].astype(np.float64)
        values = (self.first + held + self._excess[held] / counts) * self.width
        return Points(values.clip(self.low, self.high), counts, self.low, self.high, self.width)

    def quantile(self, share: float) -> float:
        """The value below which a share (0 to 1) of the values lies, to within a bin."""
        below = np.cumsum(self.counts)
        target = share * float(below[-1])
        index = int(np.searchsorted(below, target)) if target > 0 else int(np.argmax(self.counts > 0))
        inside = (target - float(below[index] - self.counts[index])) / float(self.counts[index])
        return min(max((self.first + index + inside) * self.width, self.low), self.high)

    def _reach_(self, low: float, high: float) -> None:
        """Merge and move bins until they span a range that holds all that was seen before."""
        exponent = _exponent_of(low, high)
        first = math.floor(math.ldexp(low, -exponent))
        if self.high >= self.low and (exponent, first) != (self._exponent, self.first):
            (held,) = np.nonzero(self.counts)
            before, shift = self.first + held, exponent - self._exponent
            merged = before >> min(shift, 63)
            inside = np.ldexp(before.astype(np.float64), -shift) - merged  # of the lower ends, in new widths
            excess = inside * self.counts[held] + np.ldexp(self._excess[held], -shift)
            self._excess = np.bincount(merged - first, excess, BINS).astype(np.float64)
            counts = np.zeros(BINS, np.int64)
            np.add.at(counts, merged - first, self.counts[held])
            self.counts = counts
        self.low, self.high, self._exponent, self.first = low, high, exponent, first


def _exponent_of(low: float, high: float) -> int:
    """The least e with which bins of 2^e reach from low to high."""
    largest = max(abs(low), abs(high))
    exponent = max(math.frexp(largest * _FINEST)[1], _LEAST_EXPONENT) if largest else _LEAST_EXPONENT
    if high > low:
        exponent = max(math.frexp(high / BINS - low / BINS)[1] - 2, exponent)
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= BINS:
        exponent += 1
    return exponent


class TensorObserver:
    """Streams the values of one tensor; its memory does not grow with them."""

    def __init__(self, name: str, settings: CalibrationSettings) -> None:
        """Args: name: says in errors what is observed. settings: how the range is chosen."""
        self.name = name
        self.settings = settings
        self._seen: Range | None = None
        self._average: Range | None = None
        counted = settings.observer not in (Observer.MIN_MAX, Observer.MOVING_AVERAGE)
        self._histogram = Histogram() if counted else None

    @property
    def nbytes(self) -> int:
        """Bytes held in arrays."""
        return 0 if self._histogram is None else self._histogram.nbytes

    def observe(self, values: torch.Tensor, samples: int = 1) -> None:
        """Add values.

        Args:
            values: of any shape; an empty tensor is not seen.
            samples: how many the first axis holds, each as many rows of it; where they do not divide it, the
                whole is taken for one.

        Raises:
            DataError: they are not all finite.
        """
        if values.numel() == 0:
            return
        values = values.detach()
        low, high = (float(value) for value in torch.aminmax(values))  # NaN goes through
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(
                f"calibration: {self.name} holds NaN or infinity; the model or a sample is broken"
            )
        before = self._seen or Range(low, high)
        self._seen = Range(min(low, before.low), max(high, before.high))
        if self._histogram is not None:
            self._histogram.add(_thinned(values), Range(low, high))
        if self.settings.observer is Observer.MOVING_AVERAGE:
            self._move_average(values, samples)

    def range(self) -> Range:
        """The range that the settings' observer chooses.

        Raises:
            DataError: nothing was seen.
        """
        if self._seen is None:
            raise DataError(f"calibration never ran {self.name}, so that it cannot be quantized")
        if self._average is not None:
            return self._average
        if self._histogram is None:
            return self._seen
        if self.settings.observer is Observer.PERCENTILE:
            return percentile_range(self._histogram, self.settings.percentile)
        if self.settings.observer is Observer.ENTROPY:
            return entropy_range(self._histogram, self.settings.bits)
        return mse_range(self._histogram, self.settings.bits)

    def _move_average(self, values: torch.Tensor, samples: int) -> None:
        divides = values.ndim > 1 and samples > 0 and values.shape[0] % samples == 0
        rows = values.reshape(samples if divides else 1, -1)  # [samples, values of a sample]
        lows, highs = (ends.double().tolist() for ends in torch.aminmax(rows, dim=1))
        for low, high in zip(lows, highs, strict=True):
            before, kept = self._average or Range(low, high), self.settings.momentum
            self._average = Range(
                kept * before.low + (1 - kept) * low, kept * before.high + (1 - kept) * high
            )


def _thinned(values: torch.Tensor) -> torch.Tensor:
    """A tensor's values, or where these are many a part of them, spread evenly over all its axes."""
    step = -(-values.numel() // _MOST_COUNTED)
    if step <= 1:
        return values
    while math.gcd(step, values.numel()) > 1:  # else some channels would always be left out
        step += 1
    return values.flatten()[::step]


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """The range of this percentile, clipped evenly at both ends; to within a bin."""
    beyond = (1 - percentile / 100) / 2
    return Range(histogram.quantile(beyond), histogram.quantile(1 - beyond))


def mse_range(histogram: Histogram, bits: int) -> Range:
    """The range whose affine grid, which holds 0, gives the least squared error, clipped values included.

    Low and high are searched independently. The error is that of the bins' means, from sums over all bins up
    to each: a candidate costs as much as the grid has points, not bins. A clip is weighed by the error it
    makes as in Banner et al., who solve for it on a known distribution; the search is our own.

    Source: Banner, Nahshan, Hoffer, Soudry 2018, "Post training 4-bit quantization of convolutional networks
    for rapid-deployment", arXiv 1810.05723.

    Args:
        histogram: not empty.
        bits: of the grid.
    """
    points = histogram.points()
    sums = [_up_to(points.counts * points.values**power) for power in range(3)]

    def cost(low: Doubles, high: Doubles) -> Doubles:
        levels, cuts = _levels(points, low, high, bits)
        count, total, squares = (np.diff(upto[cuts]) for upto in sums)  # [candidates, levels]
        error: Doubles = (squares - 2 * levels * total + levels**2 * count).sum(axis=1)
        return error

    return _search(points, cost)


def entropy_range(histogram: Histogram, bits: int) -> Range:
    """The range that loses least information: by the Kullback-Leibler divergence to the quantized histogram.

    P is the histogram within the range, with all that is outside added to its outermost bins; Q is the
    histogram within the range, each level's count spread evenly over the level's bins that are not empty.
    Unlike the source both ends are searched, on a grid that holds 0. A range of fewer bins than levels would
    be lossless by definition, and is not considered. 0 is on the grid and loses nothing, so a spike there, as
    ReLU and padding make it, counts for no more than the bins beside it.

    Source: Migacz 2017, "8-bit Inference with TensorRT", GPU Technology Conference, the calibration loop.

    Args:
        histogram: not empty.
        bits: of the grid.
    """
    points = _without_spike(histogram.points())
    least_span = points.width * 2**bits
    full = max(points.high, 0.0) - min(points.low, 0.0)
    counts, logs = _up_to(points.counts), _up_to(_times_log(points.counts))

    def cost(low: Doubles, high: Doubles) -> Doubles:
        start, stop = np.searchsorted(points.values, low), np.searchsorted(points.values, high, "right")
        _, cuts = _levels(points, low, high, bits)
        cuts = np.clip(cuts, start[:, None], stop[:, None])
        below, above = counts[start], counts[-1] - counts[stop]
        divergence = _divergence(
            points, (start, stop), (below, above), np.diff(cuts), np.diff(counts[cuts]), logs
        )
        considered = (stop > start) & (high - low >= min(least_span, full))
        return np.where(considered, divergence, np.inf)

    return _search(points, cost)


def _without_spike(points: Points) -> Points:
    """The bin that begins at 0 is cut down to the fuller of its neighbours."""
    index = int(np.searchsorted(points.values, 0.0))
    beside = np.concatenate([points.counts[max(index - 1, 0) : index], points.counts[index + 1 : index + 2]])
    if index == len(points.values) or points.values[index] >= points.width or len(beside) == 0:
        return points
    counts = points.counts.copy()
    counts[index] = min(counts[index], beside.max())
    return replace(points, counts=counts)


def _divergence(
    points: Points,
    inside: tuple[NDArray[np.intp], NDArray[np.intp]],
    outside: tuple[Doubles, Doubles],
    bins: NDArray[np.intp],
    mass: Doubles,
    logs: Doubles,
) -> Doubles:
    """Kullback-Leibler divergence of P to Q, [candidates].

    Args:
        points: of the histogram.
        inside: the first point within each candidate, and the one after the last.
        outside: how many values lie below and above.
        bins: [candidates, levels]: how many points each level holds.
        mass: [candidates, levels]: how many values.
        logs: [points + 1]: sums of count * log(count) up to each point.
    """
    start, stop = inside
    below, above = outside
    first, last = np.minimum(start, len(points.counts) - 1), np.maximum(stop - 1, 0)
    alone = first == last
    own, own_last = points.counts[first], points.counts[last]
    reference = logs[stop] - logs[start] - _times_log(own) - np.where(alone, 0, _times_log(own_last))
    reference += _times_log(own + below + np.where(alone, above, 0))
    reference += np.where(alone, 0, _times_log(own_last + above))
    total = np.maximum(mass.sum(axis=1, keepdims=True), 1)
    log_q = np.log(np.where(bins > 0, mass, 1) / np.maximum(bins, 1)) - np.log(total)
    rows, filled = np.arange(len(bins)), bins > 0
    at_first, at_last = filled.argmax(axis=1), bins.shape[1] - 1 - filled[:, ::-1].argmax(axis=1)
    crossed = np.where(filled, mass * log_q, 0).sum(axis=1)
    crossed += below * log_q[rows, at_first] + above * log_q[rows, at_last]
    values = points.counts.sum()
    divergence: Doubles = (reference - crossed) / values - np.log(values)
    return divergence


def _levels(points: Points, low: Doubles, high: Doubles, bits: int) -> tuple[Doubles, NDArray[np.intp]]:
    """The dequantized levels of `activation_grid`, and the points that round to each.

    Args:
        points: of a histogram.
        low: [candidates], at most 0.
        high: [candidates], at least 0 and above low.
        bits: of the grid.

    Returns:
        Levels [candidates, 2^bits], and cuts [candidates, 2^bits + 1]: level q takes the points from cuts[q]
        up to, but not, cuts[q + 1].
    """
    highest = 2**bits - 1
    scale = np.maximum((high - low) / highest, _SMALLEST_SCALE)
    steps = np.arange(highest + 1) - np.rint(-low / scale)[:, None]
    halves = (steps[:, 1:] - 0.5) * scale[:, None]
    cuts = np.searchsorted(points.values, halves)
    ends = np.zeros((len(low), 1), np.intp)
    return steps * scale[:, None], np.concatenate([ends, cuts, ends + len(points.values)], axis=1)


def _search(points: Points, cost: Cost) -> Range:
    """The cheapest range, each end a part of its extreme; of equals the widest, the whole first."""
    low, high = min(points.low, 0.0), max(points.high, 0.0)
    if low == high:
        return Range(low, high)
    lows, highs = (np.linspace(1, 0, _COARSE + 1) if end else np.ones(1) for end in (low, high))
    step, best = 1.0 / _COARSE, (1.0, 1.0)
    for _ in range(_ROUNDS + 1):
        below, above = (parts.ravel() for parts in np.meshgrid(lows, highs, indexing="ij"))
        above, below = (parts[(low * below != 0) | (high * above != 0)] for parts in (above, below))
        index = int(np.argmin(cost(low * below, high * above)))
        best = float(below[index]), float(above[index])
        step /= _FINER
        lows, highs = (
            _around(part, step) if end else np.ones(1) for part, end in zip(best, (low, high), strict=True)
        )
    return Range(low * best[0], high * best[1])


def _around(part: float, step: float) -> Doubles:
    """The finer parts around one, falling."""
    parts: Doubles = np.unique(np.clip(part + step * np.arange(-_FINER, _FINER + 1), 0.0, 1.0))[::-1]
    return parts


def _up_to(values: Doubles) -> Doubles:
    """[n + 1]: the sums of the first 0, 1 ... n values."""
    return np.concatenate([np.zeros(1), np.cumsum(values)])


def _times_log(counts: Doubles) -> Doubles:
    """x log x, 0 for 0."""
    product: Doubles = counts * np.log(np.maximum(counts, 1))
    return product
