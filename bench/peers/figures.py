"""Arithmetic of a comparison: fidelity with its interval, paired ratios, and who is the fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.peers.record import Fidelity
from pocketvl.cosines import cosines
from pocketvl.errors import DataError

LEAST_COSINE = 0.9
"""Median centred cosine from which on a peer is one to be compared with."""
_RESAMPLES = 2000


def fidelity_of(reference: NDArray[np.float32], found: NDArray[np.float32]) -> Fidelity:
    """Centred cosines of outputs [N, D] to the reference's [N, D]; the reference's mean is taken off both.

    The median's interval is the bootstrap's, over samples.

    Raises:
        DataError: the shapes differ.
    """
    if reference.shape != found.shape:
        raise DataError(f"outputs of shapes {reference.shape} and {found.shape} cannot be compared")
    mean = reference.astype(np.float64).mean(axis=0)
    finite = np.isfinite(found).all(axis=1)
    values = np.full(len(found), -1.0)
    values[finite] = cosines(
        reference[finite].astype(np.float64) - mean, found[finite].astype(np.float64) - mean
    )
    drawn = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[drawn], axis=1), (2.5, 97.5))
    return Fidelity(float(np.median(values)), float(low), float(high), float(values.min()))


def paired_ratio(own_ms: Sequence[float], other_ms: Sequence[float]) -> float:
    """The median over rounds of one's time by the other's in the same round.

    Raises:
        DataError: they are not of the same rounds.
    """
    if len(own_ms) != len(other_ms) or not own_ms:
        raise DataError(f"{len(own_ms)} and {len(other_ms)} rounds cannot be paired")
    return float(np.median(np.array(own_ms) / np.array(other_ms)))


@dataclass(frozen=True)
class Verdict:
    """Own variants of one engine beside the fastest peer.

    Attributes:
        own: the fastest own variant with no less fidelity than the peer; None: there is none.
        peer: the fastest peer.
        ratio: own time by the peer's, paired; None: see `own`.
        fidelity: of both, own first; None: see `own`.
    """

    own: str | None
    peer: str
    ratio: float | None
    fidelity: tuple[float, float] | None


def verdict(
    own: Sequence[str],
    peers: Sequence[str],
    rounds_ms: Mapping[str, Sequence[float]],
    fidelity: Mapping[str, float],
) -> Verdict | None:
    """Hold the fastest faithful own variant against the fastest peer.

    Args:
        own: variants of one engine.
        peers: methods of all peers.
        rounds_ms: by method, its times in the same rounds.
        fidelity: by method, its median centred cosine.

    Returns:
        None where no peer, or nothing of one's own, was timed and is faithful.
    """
    rivals = [name for name in peers if name in rounds_ms and fidelity.get(name, -1.0) >= LEAST_COSINE]
    mine = [name for name in own if name in rounds_ms and name in fidelity]
    if not rivals or not mine:
        return None
    peer = min(rivals, key=lambda name: float(np.median(rounds_ms[name])))
    faithful = [name for name in mine if fidelity[name] >= fidelity[peer]]
    if not faithful:
        return Verdict(None, peer, None, None)
    best = min(faithful, key=lambda name: paired_ratio(rounds_ms[name], rounds_ms[peer]))
    ratio = paired_ratio(rounds_ms[best], rounds_ms[peer])
    return Verdict(best, peer, ratio, (fidelity[best], fidelity[peer]))
