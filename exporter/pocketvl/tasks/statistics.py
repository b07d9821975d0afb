"""How sure a measured rate is, and how sure a measured loss is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pocketvl.errors import DataError

_Z95 = NormalDist().inv_cdf(0.975)
_BISECTIONS = 60  # halves an interval of width 2 below the spacing of float64 near 1


@dataclass(frozen=True)
class PairedDifference:
    """What a variant lost against the reference on the very same samples.

    Attributes:
        drop_pp: reference minus variant, in percentage points; positive is a loss.
        ci95_pp: 95 % confidence interval of `drop_pp`, in percentage points.
        lost: samples that the reference has right and the variant has wrong.
        gained: samples that the reference has wrong and the variant has right.
        n: samples compared.
    """

    drop_pp: float
    ci95_pp: tuple[float, float]
    lost: int
    gained: int
    n: int


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate.

    Args:
        successes: how many of the trials succeeded.
        n: number of trials.

    Returns:
        Lower and upper limit, as fractions in [0, 1].

    Raises:
        DataError: `n` is not positive or `successes` is not within 0..n.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"no rate can be formed of {successes} successes in {n} trials")
    # scipy.stats has this, but takes a second to import, in a command that finds everything in the cache too
    rate, denominator = successes / n, 2 * (n + _Z95**2)
    centre = (2 * n * rate + _Z95**2) / denominator
    reach = _Z95 / denominator * math.sqrt(4 * n * rate * (1 - rate) + _Z95**2)
    return centre - reach if successes else 0.0, centre + reach if successes < n else 1.0


def paired_interval(lost: int, gained: int, n: int) -> tuple[float, float]:
    """Tango's 95 % score interval for the difference of two paired proportions.

    Only the discordant pairs move the estimate, but all `n` pairs say how sure it is: without a single
    discordant pair the interval is +-z^2 / (n + z^2), never of zero width as a bootstrap's would be.

    Args:
        lost: pairs in which only the first (the reference) succeeded.
        gained: pairs in which only the second (the variant) succeeded.
        n: number of pairs.

    Returns:
        Limits of P(first) - P(second), as fractions in [-1, 1].

    Raises:
        DataError: the counts are negative or do not fit `n`.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design", Statistics in Medicine 17, 1998, section 2.
    """
    if n < 1 or lost < 0 or gained < 0 or lost + gained > n:
        raise DataError(f"{lost} lost and {gained} gained do not fit {n} pairs")
    estimate = (lost - gained) / n
    low = _crossing(lost, gained, n, -1.0, estimate, _Z95)
    high = _crossing(lost, gained, n, estimate, 1.0, -_Z95)
    return low, high


def least_samples(allowance_pp: float) -> int | None:
    """How many pairs it takes to show with 95 % confidence that no more than an allowance is lost.

    That is for a variant that answers as its reference does, without a single discordant pair. With fewer
    than this, the upper limit of its `paired_interval`, z^2 / (n + z^2), is beyond the allowance: only a
    variant that gained could still show it.

    Args:
        allowance_pp: the loss allowed, in percentage points.

    Returns:
        The least number of pairs; None where no number is enough, as for an allowance of 0.
    """
    if not allowance_pp > 0:
        return None
    pairs = _Z95**2 * (100.0 / allowance_pp - 1.0)
    return max(1, math.ceil(pairs)) if math.isfinite(pairs) else None


def paired_difference(reference: NDArray[np.bool_], variant: NDArray[np.bool_]) -> PairedDifference:
    """Compares two per-sample outcomes of the same samples in the same order.

    Args:
        reference: bool [n], right or wrong by the reference.
        variant: bool [n], right or wrong by the variant.

    Raises:
        DataError: the two are empty, of different length or not vectors.
    """
    if reference.ndim != 1 or reference.shape != variant.shape or not reference.size:
        raise DataError(f"outcomes of shapes {reference.shape} and {variant.shape} cannot be paired")
    right, right_variant = reference.astype(bool), variant.astype(bool)
    lost = int(np.count_nonzero(right & ~right_variant))
    gained = int(np.count_nonzero(~right & right_variant))
    n = int(reference.size)
    low, high = paired_interval(lost, gained, n)
    return PairedDifference(100.0 * (lost - gained) / n, (100.0 * low, 100.0 * high), lost, gained, n)


def _crossing(lost: int, gained: int, n: int, low: float, high: float, level: float) -> float:
    """Where the score statistic, which falls from `low` to `high`, crosses `level`."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _tango_score(lost, gained, n, middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _tango_score(lost: int, gained: int, n: int, delta: float) -> float:
    """Score statistic of the hypothesis that the difference is `delta` (equations 6 and 7 of the source)."""
    b = -lost - gained + (2 * n - lost + gained) * delta
    c = -gained * delta * (1 - delta)
    root = math.sqrt(max(b * b - 8 * n * c, 0.0))
    # The restricted estimate of P(only the second succeeds); the second form avoids cancellation.
    gained_rate = (root - b) / (4 * n) if b < 0 else (-2 * c / (root + b) if root + b else 0.0)
    variance = n * max(2 * gained_rate + delta * (1 - delta), 0.0)
    distance = lost - gained - n * delta
    if variance == 0.0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)
