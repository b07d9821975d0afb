"""What is pruned, by what score, and how a student learns.

Without torch, so that recipes can be read quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pocketvl.errors import RecipeError
from pocketvl.settings import Count, Positive, Seed, Settings, Size, Weight
from pocketvl.train.settings import Precision


class Measure(StrEnum):
    """What a target is set for."""

    PARAMETERS = "parameters"
    MACS = "macs"
    INT8_BYTES = "int8_bytes"


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

    def check_of_weights(self) -> None:
        """Raises RecipeError where single weights have no such score."""
        if self is Score.GATE:
            raise RecipeError("score: magnitude or taylor; a gate is for neurons and heads")


class Scope(StrEnum):
    """Where the least of the weights are looked for: in each layer, or among all layers."""

    LAYER = "layer"
    GLOBAL = "global"


class Units(StrEnum):
    """What is pruned."""

    NEURONS = "neurons"
    HEADS = "heads"


class Schedule(StrEnum):
    """How far pruning has gone after part of its rounds.

    Cubic: fast while there is much to spare, slow at the end; Zhu & Gupta, 2017, "To prune, or not to prune"
    (arXiv 1710.01878), equation 1.
    """

    LINEAR = "linear"
    CUBIC = "cubic"

    def at(self, done: float) -> float:
        """The progress fraction after this part of the rounds, both 0 to 1."""
        return done if self is Schedule.LINEAR else 1 - (1 - done) ** 3


class BlockScore(StrEnum):
    """What makes a block matter.

    With attention weights a_kl of query position k and key position l:

    sum: the sum over k and l of |a_kl|. Each row of a softmax sums to one, so that this mostly counts
    positions: a segment of more queries, or of more keys, scores more with the very same attention.

    position: that, divided by what it were if every token were looked at alike; 1 is as much as that.

    value: the sum of a_kl |W_o v_l|, a query: how far the block moves what comes out, were all that it reads
    to point the same way. The default, for it alone sees that a block can look hard at tokens that say
    nothing. (Kobayashi et al., 2020, "Attention is Not Only a Weight", arXiv 2004.10102,
    section 3.)
    """

    SUM = "sum"
    POSITION = "position"
    VALUE = "value"


class Grain(StrEnum):
    """What goes at a time: a block of one head, or of all heads of a layer."""

    HEAD = "head"
    LAYER = "layer"


@dataclass(frozen=True)
class LossWeights(Settings):
    """What is minimised; 0 leaves a loss out.

    Attributes:
        response: KL of the softmaxes over the batch's texts and over its pictures, teacher's to student's; of
            those over the answers, where a model answers questions.
        embedding: each tower's embeddings against the teacher's; passed over where a model has none.
        relation: distances and angles between the samples of a batch.
        hidden: what a tower's layers give; the teacher runs along.
        attention: attention maps; the teacher runs along.
        contrast: captions against other captions and false ones, by the data's own labels; needs no teacher.
        answer: cross-entropy of the right answers, where a model answers questions; needs no teacher.
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
        """Whether the teacher's embeddings alone do not say enough."""
        return max(self.hidden, self.attention) > 0

    @property
    def of_towers(self) -> bool:
        """Whether a tower can learn anything by itself."""
        return max(self.embedding, self.relation, self.hidden, self.attention) > 0


@dataclass(frozen=True)
class LearningSettings(Settings):
    """How a student learns, from a teacher or from the data's labels: tower by tower, then together.

    Attributes:
        image_steps: of the image tower by itself.
        text_steps: of the text tower by itself.
        cross_steps: of both on what they have to do with each other, and on nothing else.
        joint_steps: of both on everything.
        batch_size: pictures, or texts, of one step; at least 3, since they are compared.
        negatives: false captions a picture, where both towers learn.
        learning_rate: at the top of the schedule.
        joint_rate: the same, of cross and joint steps; as `learning_rate` where nothing is said. A tenth of
            that disturbs less what towers have learned by themselves.
        losses: their weights.
        temperature: of the softmaxes that are compared, on top of the model's own.
        mirror: show half of the pictures mirrored where only the teacher says what is right; captions that
            say left or right would be false.
        weight_decay: of AdamW, on matrices only.
        precision: of matrices.
        seed: of the order of samples and the choice of negatives.
        save_every: steps between two saved states.
    """

    image_steps: Count = 0
    text_steps: Count = 0
    cross_steps: Count = 0
    joint_steps: Count = 0
    batch_size: Annotated[Size, Field(ge=3)] = 128
    negatives: Count = 1
    learning_rate: Positive = 3e-4
    joint_rate: Positive | None = None
    losses: LossWeights = field(default_factory=LossWeights)
    temperature: Positive = 1.0
    mirror: bool = True
    weight_decay: Weight = 0.05
    precision: Precision = Precision.FLOAT32
    seed: Seed = 0
    save_every: Size = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.image_steps, self.text_steps, self.cross_steps, self.joint_steps) == 0:
            raise RecipeError(
                "one at least of image_steps, text_steps, cross_steps and joint_steps is above 0"
            )
        if max(self.image_steps, self.text_steps) > 0 and not self.losses.of_towers:
            raise RecipeError(
                "a tower by itself learns from embedding, relation, hidden or attention: all weigh 0"
            )
        if self.cross_steps > 0 and self.losses.response == 0:
            raise RecipeError("cross_steps learn from the response, which weighs 0")

    @property
    def rate_together(self) -> float:
        """The learning rate where both towers learn."""
        return self.learning_rate if self.joint_rate is None else self.joint_rate

    @property
    def needs_teacher(self) -> bool:
        """Whether anything but the data's labels is learned from."""
        weights = self.losses
        return weights.of_towers or weights.response > 0


def check_answering(settings: LearningSettings) -> None:
    """Raises RecipeError where a training asks for what a model that answers questions does not have.

    The weight of embeddings, which is not 0 where nothing is said, is passed over.
    """
    weights = settings.losses
    if settings.joint_rate is not None:
        raise RecipeError("joint_rate is for models of two towers; one that answers has learning_rate alone")
    for name in ("image_steps", "text_steps", "cross_steps"):
        if getattr(settings, name) > 0:
            raise RecipeError(f"{name} is for models of two towers; one that answers has joint_steps alone")
    for name in ("relation", "hidden", "attention", "contrast"):
        if getattr(weights, name) > 0:
            raise RecipeError(
                f"losses.{name} is for models of two towers; one that answers has response and answer"
            )
    if max(weights.response, weights.answer) == 0:
        raise RecipeError("a model that answers learns from response or answer, and both weigh 0")


def shows_mirrored(settings: LearningSettings) -> bool:
    """Whether pictures are shown mirrored: where labels that say left or right cannot become wrong."""
    return settings.mirror and settings.losses.answer == 0
