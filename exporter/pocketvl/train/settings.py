"""How the training loop trains. (Without torch, so that recipes can be read quickly.)"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pocketvl.settings import Count, Positive, Seed, Settings, Size, Weight


class Precision(StrEnum):
    """In which type matrices are multiplied; weights and optimizer are float32 either way."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class LoopSettings(Settings):
    """How to train.

    Attributes:
        steps: optimizer steps in all.
        learning_rate: 0 or more, at the top of the schedule (linear warm-up, then half a cosine down to a
            fiftieth).
        weight_decay: of AdamW, on matrices only.
        warmup_steps: steps of the linear warm-up.
        seed: of everything random.
        save_every: steps between two saved states.
        clip_norm: largest norm of the gradient.
        precision: bfloat16 is about twice as fast where the processor has instructions for it.
    """

    steps: Count
    learning_rate: Weight
    weight_decay: Weight = 0.05
    warmup_steps: Count = 200
    seed: Seed = 0
    save_every: Size = 100
    clip_norm: Positive = 1.0
    precision: Precision = Precision.FLOAT32
