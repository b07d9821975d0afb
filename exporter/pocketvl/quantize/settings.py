"""How towers are calibrated and rounded. (Without torch, so that recipes can be read quickly.)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pocketvl.settings import Count, Positive, Seed, Settings, Size, Weight


class Rounding(StrEnum):
    """Each weight to its nearest integer, or GPTQ: later weights make up for what earlier ones lost."""

    NEAREST = "nearest"
    GPTQ = "gptq"


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
