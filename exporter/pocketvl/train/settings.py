"""Settings of training: loop, phases, losses. (Without torch: recipes are read quickly.)"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pocketvl.errors import RecipeError
from pocketvl.settings import Count, Positive, Seed, Settings, Size, Weight
from pocketvl_runtime.errors import shortened

BatchSize = Annotated[Size, Field(ge=3)]
"""Samples of a step, at least 3, since they are compared with one another."""


class Precision(StrEnum):
    """The dtype of matrix products; weights and optimizer state are float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class LoopSettings(Settings):
    """Settings of the training loop.

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


@dataclass(frozen=True)
class LossWeights(Settings):
    """Weights of the losses; 0 leaves one out.

    Attributes:
        response: the KL divergence of what the head makes of a batch, teacher to student: the softmaxes over
            texts and over images, or that over labels.
        embedding: each component's embeddings against the teacher's; ignored where a model has none.
        relation: distances and angles between the embeddings of a batch.
        hidden: the hidden states of a component's layers; runs the teacher along.
        attention: attention maps; runs the teacher along.
        contrast: captions against other captions and hard negatives, by the data's own labels; no teacher. A
            caption that several images of a batch have is true of each of them.
        answer: cross-entropy of the data's own answers; no teacher.
    """

    response: Weight = 1.0
    embedding: Weight = 1.0
    relation: Weight = 0.0
    hidden: Weight = 0.0
    attention: Weight = 0.0
    contrast: Weight = 0.0
    answer: Weight = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(vars(self).values()) == 0:
            raise RecipeError("all losses have weight 0: nothing would be learned")

    @property
    def runs_teacher(self) -> bool:
        """Whether the teacher's outputs alone do not say enough."""
        return max(self.hidden, self.attention) > 0

    @property
    def of_components(self) -> bool:
        """Whether a component can learn anything by itself."""
        return max(self.embedding, self.relation, self.hidden, self.attention) > 0


_LEAST_WARMUP = 50
EACH = ("each",)
"""In place of components: a phase for each."""


@dataclass(frozen=True)
class Phase(Settings):
    """A part of a training.

    Attributes:
        steps: optimizer steps; or
        epochs: how often every sample is shown, from which steps follow once the data is known.
        components: which are trained; all of the head's, together, where none is named. Components that are
            trained without others that the head needs learn from the losses of single components alone.
            `("each",)` in a recipe stands for as many phases: each component of the model by itself, in turn.
        batch_size: samples of one step; the training's own where it is left out.
        learning_rate: at the top of the schedule; likewise.
        losses: their weights; likewise.
    """

    steps: Count = 0
    components: tuple[str, ...] = ()
    batch_size: BatchSize | None = None
    learning_rate: Positive | None = None
    losses: LossWeights | None = None
    epochs: Weight = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.steps > 0) == (self.epochs > 0):
            raise RecipeError("say either steps or epochs, above 0")
        if len(set(self.components)) < len(self.components):
            named = ", ".join(shortened(each, 30) for each in self.components[:9])
            raise RecipeError(f"components: each once, not {named}")


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Settings of a training, by distillation or on labels, phase by phase.

    Attributes:
        phases: in order.
        batch_size: samples of one step.
        negatives: hard negatives of an image, where images and texts are trained together.
        learning_rate: at the top of the schedule.
        losses: their weights.
        temperature: of the softmaxes that are compared, on top of the model's own.
        mirror: show half of the images mirrored where only the teacher says what is right; captions that say
            left or right would be false.
        weight_decay: of AdamW, on matrices only.
        clip_norm: largest norm of the gradient.
        precision: of matrices.
        seed: of the order of samples and the choice of negatives.
        save_every: steps between two saved states.
    """

    phases: tuple[Phase, ...]
    batch_size: BatchSize = 128
    negatives: Count = 1
    learning_rate: Positive = 3e-4
    losses: LossWeights = field(default_factory=LossWeights)
    temperature: Positive = 1.0
    mirror: bool = True
    weight_decay: Weight = 0.05
    clip_norm: Positive = 1.0
    precision: Precision = Precision.FLOAT32
    seed: Seed = 0
    save_every: Size = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.phases:
            raise RecipeError("phases: a training has at least one, such as { steps = 300 }")

    def losses_of(self, phase: Phase) -> LossWeights:
        """The weights of a phase."""
        return phase.losses or self.losses

    def loop(self, phase: Phase) -> LoopSettings:
        """How the loop trains a phase.

        A twentieth of its steps is warm-up, but no fewer than 50 as long as half of them remain: AdamW knows
        little of the gradients' size at first, and at the full rate its first steps undo what is learned.

        Raises:
            RecipeError: the phase counts in epochs, which `HeadTraining.planned` turns into steps.
        """
        if phase.steps == 0:
            raise RecipeError("epochs: how many steps they are is not known without the data")
        return LoopSettings(
            steps=phase.steps,
            learning_rate=phase.learning_rate or self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_steps=max(1, phase.steps // 20, min(_LEAST_WARMUP, phase.steps // 2)),
            seed=self.seed,
            save_every=self.save_every,
            clip_norm=self.clip_norm,
            precision=self.precision,
        )

    @property
    def runs_teacher(self) -> bool:
        """Whether any phase needs more of the teacher than its outputs."""
        return any(self.losses_of(phase).runs_teacher for phase in self.phases)
