"""How much a unit (a neuron, a head) matters: by its weights, or by what the loss says of them."""

from __future__ import annotations

from enum import StrEnum

import torch


class Score(StrEnum):
    """What makes a weight matter, or a unit.

    Source of both scores by gradients: Molchanov et al., 2019, "Importance Estimation for Neural Network
    Pruning", arXiv 1906.10771.

    Attributes:
        MAGNITUDE: |w|, summed over a unit.
        TAYLOR: |w * dL/dw|, the first-order change of the loss if the weight were 0, summed over a unit.
        GATE: of a unit as a whole, (dL/dz)^2 with a gate z = 1 on what it gives, the mean over small batches.
            What single weights do to the loss cancels within a unit, and from batch to batch in a model that
            has been trained; this keeps the first and not the second. Not for single weights.
    """

    MAGNITUDE = "magnitude"
    TAYLOR = "taylor"
    GATE = "gate"


def weight_scores(parameter: torch.Tensor, score: Score) -> torch.Tensor:
    """What each weight matters, float64 of the parameter's shape, 0 or above.

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
