"""Another sampling rate: polyphase filtering with a windowed sinc."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

_HALF_PERIODS = 10  # of the sinc, at the lower of both rates, on each side
_KAISER_BETA = 5.0
_BLOCK = 2**14


def resampled(samples: Doubles, rate: int, wanted: int) -> Doubles:
    """Samples at another rate.

    The filter is that of scipy's `signal.resample_poly`: a sinc of 10 periods a side at the lower rate, under
    a Kaiser window with beta 5; sound outside the samples counts as silence.

    Args:
        samples: [N] at `rate`.
        rate: frames a second, above 0.
        wanted: frames a second, above 0.

    Returns:
        ceil(N * wanted / rate) samples.

    Source: Crochiere and Rabiner, 1983, "Multirate Digital Signal Processing", chapter 3.
    """
    if rate == wanted:
        return samples
    divisor = math.gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    half = _HALF_PERIODS * max(up, down)
    taps = _phases(up, down, half)  # [phases, taps]
    count = taps.shape[1]
    padded = np.pad(samples, (count, count))
    windows = np.lib.stride_tricks.sliding_window_view(padded, count)
    found = np.empty(-(-len(samples) * up // down))
    for begin in range(0, len(found), _BLOCK):
        at = np.arange(begin, min(begin + _BLOCK, len(found))) * down + half
        # the newest sample that reaches an output is number at // up; it is the last of its window
        newest = np.minimum(at // up, len(samples) + count - 1)
        found[begin : begin + _BLOCK] = np.einsum("nk,nk->n", windows[newest + 1], taps[at % up])
    return found


def margin(rate: int, wanted: int) -> int:
    """How many samples at `rate` beyond a place its surroundings reach."""
    return math.ceil(_HALF_PERIODS * max(1.0, rate / wanted)) + 1


def _phases(up: int, down: int, half: int) -> Doubles:
    """The filter, split by phase and turned round, so that a window of samples is multiplied as it lies."""
    cutoff = 1 / max(up, down)
    sinc = cutoff * np.sinc(cutoff * np.arange(-half, half + 1)) * np.kaiser(2 * half + 1, _KAISER_BETA)
    sinc *= up / sinc.sum()
    count = -(-len(sinc) // up)
    whole = np.zeros(count * up)
    whole[: len(sinc)] = sinc
    return np.ascontiguousarray(whole.reshape(count, up).T[:, ::-1])
