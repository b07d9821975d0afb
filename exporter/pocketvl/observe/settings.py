"""Settings of calibration. (Without torch, so that recipes can be read quickly.)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pocketvl.network.specification import LEAST_BITS, MOST_BITS
from pocketvl.settings import Settings


class Observer(StrEnum):
    """How an activation's range is chosen from its histogram.

    The whole range; a moving average of each sample's; the one that holds a percentile of the values; the one
    whose grid loses least information (Kullback-Leibler); the one whose grid has the least squared error.
    """

    MIN_MAX = "min_max"
    MOVING_AVERAGE = "moving_average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


@dataclass(frozen=True)
class CalibrationSettings(Settings):
    """Settings of calibration.

    Attributes:
        observer: how their ranges are chosen.
        percentile: of the values that are to lie within the range, for that observer.
        momentum: of the moving average, for that observer.
        bits: of the grids, for the observers that look at those.
        second_moments: keep the mean of x x^T of what goes into each layer, as GPTQ needs it.
    """

    observer: Observer = Observer.MSE
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    bits: Annotated[int, Field(ge=LEAST_BITS, le=MOST_BITS)] = 8
    second_moments: bool = False
