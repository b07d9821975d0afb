"""How much a unit (a neuron, a head) matters: by its weights, or by what the loss says of them."""

from __future__ import annotations

from enum import StrEnum

import torch


class Score(StrEnum):
    """What makes a weight matter.

    Magnitude: |w|. Taylor: |w * dL/dw|, the first-order change of the loss if the weight were 0 (Molchanov et
    al., 2019, "Importance Estimation for Neural Network Pruning", arXiv 1906.10771, equation 8, here summed
    as magnitudes).
    """

    MAGNITUDE = "magnitude"
    TAYLOR = "taylor"


def weight_scores(parameter: torch.Tensor, score: Score) -> torch.Tensor:
    """What each weight matters, float64 of the parameter's shape, 0 or above.

    Args:
        parameter: a weight of a module; for Taylor scores with the gradient of a loss in `grad`.
        score: what makes it matter.

    Raises:
        ValueError: a Taylor score was asked for, and no gradient is there.
    """
    values = parameter.detach().double()
    if score is Score.MAGNITUDE:
        return values.abs()
    if parameter.grad is None:
        raise ValueError("Taylor scores need gradients: run a loss backwards first")
    return (values * parameter.grad.double()).abs()
