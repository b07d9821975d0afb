"""The cosine that fidelity is judged by: quantization ranks layers by it, and evaluation judges variants."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of each row of `a` [N, D] with the same row of `b` [N, D], as float64 [N] in [-1, 1].

    A row of zeros has no direction: beside another row of zeros it counts as 1, beside anything else as 0.
    """
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    result = np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0)
    result[~a.any(axis=1) & ~b.any(axis=1)] = 1.0
    clipped: NDArray[np.float64] = np.clip(result, -1.0, 1.0)
    return clipped
