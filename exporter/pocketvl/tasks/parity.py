"""How close a variant's embeddings are to the reference's, before any task is asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketvl.cosines import cosines
from pocketvl.errors import DataError

LOSS_DECADES = (-10.0, 0.5)  # histogram of log10(1 - centred cosine); what lies outside counts at the ends
LOSS_BINS = 42


@dataclass(frozen=True)
class LossHistogram:
    """How `log10(1 - centred cosine)` is spread over the embeddings.

    Attributes:
        low: lower edge of the first bin.
        high: upper edge of the last bin.
        counts: embeddings per bin of equal width; those beyond an edge are counted in the bin beside it.
    """

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ParityReport:
    """One role's embeddings against the reference's.

    Attributes:
        n: embeddings compared.
        cosine_min: smallest cosine between an embedding and its reference.
        cosine_median: median of those cosines.
        centred_cosine_min: smallest cosine once the reference's mean was taken off both.
        centred_cosine_median: median of those cosines.
        max_abs: largest absolute difference of a component, over the rows that are finite.
        non_finite: rows of the variant that hold a NaN or an infinity; their cosines count as -1.
        losses: the centred cosines as a histogram.
    """

    n: int
    cosine_min: float
    cosine_median: float
    centred_cosine_min: float
    centred_cosine_median: float
    max_abs: float
    non_finite: int
    losses: LossHistogram


def measure_parity(reference: NDArray[np.float32], variant: NDArray[np.float32]) -> ParityReport:
    """Compares a variant's embeddings with the reference's, row by row.

    Embeddings of one model share a large common part, and the plain cosine is near 1 whatever happens to
    the rest. So the mean is taken off. It is the *reference's* mean that is taken off *both*: a constant
    shift that quantization adds to every embedding is an error too, and taking each side's own mean off
    would hide it.

    Args:
        reference: float32 [N, D], N >= 2.
        variant: float32 [N, D], the same inputs in the same order.

    Raises:
        DataError: the shapes differ, N < 2 (nothing is left of one row without its mean) or the reference
            itself is not finite.
    """
    if reference.ndim != 2 or reference.shape != variant.shape:
        raise DataError(f"embeddings of shapes {reference.shape} and {variant.shape} cannot be compared")
    if len(reference) < 2:
        raise DataError("parity needs at least two embeddings, since the mean is taken off")
    if not np.isfinite(reference).all():
        raise DataError("the reference's embeddings hold NaN or infinity; check the checkpoint's weights")
    expected, got = reference.astype(np.float64), variant.astype(np.float64)
    finite = np.isfinite(got).all(axis=1)
    mean = expected.mean(axis=0)
    raw = np.full(len(expected), -1.0)
    centred = np.full(len(expected), -1.0)
    raw[finite] = cosines(expected[finite], got[finite])
    centred[finite] = cosines(expected[finite] - mean, got[finite] - mean)
    differences = np.abs(expected[finite] - got[finite])
    return ParityReport(
        n=len(expected),
        cosine_min=float(raw.min()),
        cosine_median=float(np.median(raw)),
        centred_cosine_min=float(centred.min()),
        centred_cosine_median=float(np.median(centred)),
        max_abs=float(differences.max(initial=0.0)),
        non_finite=int(np.count_nonzero(~finite)),
        losses=_histogram(centred),
    )


def _histogram(centred: NDArray[np.float64]) -> LossHistogram:
    low, high = LOSS_DECADES
    losses = np.log10(np.maximum(1.0 - centred, 10.0**low))
    counts, _ = np.histogram(np.clip(losses, low, high), bins=LOSS_BINS, range=LOSS_DECADES)
    return LossHistogram(low, high, tuple(int(count) for count in counts))
