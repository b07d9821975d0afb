"""Importance scores of units (neurons, heads): by magnitude, or by the loss's gradient."""

from __future__ import annotations

import torch

from pocketvl.compress.settings import Score


def weight_scores(parameter: torch.Tensor, score: Score) -> torch.Tensor:
    """The importance of each weight, float64 of the parameter's shape, 0 or above.

    Args:
        parameter: a weight of a module; for Taylor scores with the gradient of a loss in `grad`.
        score: what makes it matter.

    Raises:
        ValueError: a Taylor score was asked for, and no gradient is there; or a score of whole units.
    """
    if score is Score.GATE:
        raise ValueError("a gate is on a unit, not on a weight: see structured.gate_gradients")

    values = parameter.detach().double()
    if score is Score.MAGNITUDE:
        return values.abs()
    if parameter.grad is None:
        raise ValueError("Taylor scores need gradients: run a loss backwards first")
    return (values * parameter.grad.double()).abs()
