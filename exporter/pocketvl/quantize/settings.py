"""How towers are calibrated and rounded. (Without torch, so that recipes can be read quickly.)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pocketvl.settings import Count, Positive, Seed, Settings, Size, Weight
from pocketvl.specification import LEAST_BITS, MOST_BITS


class Observer(StrEnum):
    """How an activation's range is chosen out of what was seen of it.

    The whole range; a moving average of each sample's; the one that holds a percentile of the values; the one
    whose grid loses least information (Kullback-Leibler); the one whose grid has the least squared error.
    """

    MIN_MAX = "min_max"
    MOVING_AVERAGE = "moving_average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


class Rounding(StrEnum):
    """Each weight to its nearest integer, or GPTQ: later weights make up for what earlier ones lost."""

    NEAREST = "nearest"
    GPTQ = "gptq"


@dataclass(frozen=True)
class CalibrationSettings(Settings):
    """How activations are observed.

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


@dataclass(frozen=True)
class QuantizeSettings(Settings):
    """How weights become integers.

    Attributes:
        clip_weights: take the scales with the least error instead of those that reach the largest weight.
        rounding: nearest, or gptq.
        correct_bias: give back what rounding moved the mean of an output by.
    """

    clip_weights: bool = True
    rounding: Rounding = Rounding.GPTQ
    correct_bias: bool = True


@dataclass(frozen=True)
class QatSettings(Settings):
    """How two towers are trained on their grids; a phase of 0 steps is left out.

    Attributes:
        image_steps: of the image tower by itself.
        text_steps: of the text tower by itself.
        joint_steps: of both together.
        batch_size: pictures, or texts, of one step, at least 2, since they are compared; a joint step has
            twice as many texts as pictures.
        learning_rate: of weights, at the top of the schedule.
        scale_rate: of scales and offsets, as a factor on that: what a step moves, relative to the grid.
        tower_weight: of each tower's own losses in the joint phase.
        temperature: of the softmaxes that are compared, on top of the model's own.
        weight_decay: of AdamW, on matrices only.
        clip_norm: largest norm of the gradient.
        seed: of the order of samples and the choice of negatives.
        save_every: steps between two saved states.
    """

    image_steps: Count = 1000
    text_steps: Count = 1000
    joint_steps: Count = 1000
    batch_size: Annotated[Size, Field(ge=2)] = 64
    learning_rate: Positive = 2e-5
    scale_rate: Positive = 10.0
    tower_weight: Weight = 0.1
    temperature: Positive = 1.0
    weight_decay: Weight = 0.0
    clip_norm: Positive = 1.0
    seed: Seed = 0
    save_every: Size = 100
