"""Embeddings against labels: is the nearest other sample of the same label?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pocketvl.tasks.contrastive_metrics import QUERIES_AT_ONCE, TIE
from pocketvl.tasks.metrics import Metric, TaskOutcome

TEMPERATURE = 0.07
"""Of `soft_neighbours`; Wu et al., 2018, "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", arXiv 1805.01978, section 3.4."""


def nearest_neighbour(embeddings: NDArray[np.float32], labels: Sequence[str | None]) -> TaskOutcome:
    """Leave-one-out classification by the nearest neighbour (1-NN, by cosine).

    Args:
        embeddings: [N, D], L2-normalised.
        labels: of each row; rows without one are left out. One whose label no other row has is nobody's
            neighbour to find, and only a neighbour of others.

    Returns:
        `correct` of each row that shares its label: a right neighbour strictly before every wrong one.
    """
    known, shared, notes = _labelled(labels)
    if len(set(known.values())) < 2 or not shared:
        why = "it takes two labels, one of them of several inputs" if known else "nothing has a label"
        note = f"{Metric.KNN.value}: not measured, {why}"
        return TaskOutcome(Metric.KNN, np.zeros(0, np.bool_), notes=(note,))
    found = []
    for similarity, right, wrong in _neighbours(embeddings, known, shared):
        best = [np.where(which, similarity, -np.inf).max(axis=1) for which in (right, wrong)]
        found.append(best[0] > best[1] + TIE)  # NaN is not above
    return TaskOutcome(Metric.KNN, np.concatenate(found), notes=notes)


def soft_neighbours(embeddings: NDArray[np.float32], labels: Sequence[str | None]) -> NDArray[np.float64]:
    """The probability that a neighbour has a row's label, float64 [rows that share their label].

    A neighbour is drawn with a probability of the softmax over cosines / `TEMPERATURE`.

    Source: Goldberger et al., 2004, "Neighbourhood Components Analysis", equation 2, with cosines in place of
        squared distances.
    """
    from scipy.special import softmax

    known, shared, _ = _labelled(labels)
    found = [
        (softmax(np.where(right | wrong, similarity / TEMPERATURE, -np.inf), axis=1) * right).sum(axis=1)
        for similarity, right, wrong in _neighbours(embeddings, known, shared)
    ]
    return np.concatenate(found) if found else np.zeros(0)


def _labelled(labels: Sequence[str | None]) -> tuple[dict[int, str], list[int], tuple[str, ...]]:
    """The labels by row, the rows whose label another row has, and notes on what is left out."""
    known = {row: label for row, label in enumerate(labels) if label is not None}
    counts = Counter(known.values())
    shared = [row for row, label in known.items() if counts[label] > 1]
    left_out = {
        f"of {len(labels)} inputs without a label": len(labels) - len(known),
        f"of {len(known)} inputs whose label no other has": len(known) - len(shared),
    }
    notes = tuple(f"{Metric.KNN.value}: {n} {what} are left out" for what, n in left_out.items() if n)
    return known, shared, notes


def _neighbours(
    embeddings: NDArray[np.float32], known: dict[int, str], shared: Sequence[int]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]]:
    """Of some queries at a time, cosines with all labelled rows [n, M]; which are right, which wrong."""
    rows = np.array(list(known), np.int64)
    of = {label: index for index, label in enumerate(dict.fromkeys(known.values()))}
    groups = np.array([of[label] for label in known.values()])
    candidates = embeddings[rows].astype(np.float64)
    for start in range(0, len(shared), QUERIES_AT_ONCE):
        chosen = np.searchsorted(rows, shared[start : start + QUERIES_AT_ONCE])
        same = groups[chosen, None] == groups[None]
        others = np.arange(len(rows))[None] != chosen[:, None]
        yield candidates[chosen] @ candidates.T, same & others, ~same
