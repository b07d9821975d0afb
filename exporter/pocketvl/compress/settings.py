"""Settings of pruning: units, scores and schedules.

Without torch, so that recipes can be read quickly.
"""

from __future__ import annotations

from enum import StrEnum

from pocketvl.errors import RecipeError


class Measure(StrEnum):
    """The cost that a target limits."""

    PARAMETERS = "parameters"
    MACS = "macs"
    INT8_BYTES = "int8_bytes"


class Score(StrEnum):
    """The importance score of a weight or a unit.

    Source of both scores by gradients: Molchanov et al., 2019, "Importance Estimation for Neural Network
    Pruning", arXiv 1906.10771.

    Attributes:
        MAGNITUDE: |w|, summed over a unit.
        TAYLOR: |w * dL/dw|, the first-order change of the loss if the weight were 0, summed over a unit.
        GATE: of a unit as a whole, (dL/dz)^2 with a gate z = 1 on what it gives, the mean over small batches.
            What single weights do to the loss cancels within a unit, and from batch to batch in a model that
            has been trained; this keeps the first and not the second. Not for single weights. An encoder by
            itself has no loss of labels: there it is |de/dz|^2, how far the gate moves the embeddings.
    """

    MAGNITUDE = "magnitude"
    TAYLOR = "taylor"
    GATE = "gate"

    def check_of_weights(self) -> None:
        """Raise RecipeError where single weights have no such score."""
        if self is Score.GATE:
            raise RecipeError("score: magnitude or taylor; a gate is for neurons and heads")


class Scope(StrEnum):
    """Whether the lowest scores are taken per layer or globally."""

    LAYER = "layer"
    GLOBAL = "global"


class Units(StrEnum):
    """The units that are pruned."""

    NEURONS = "neurons"
    HEADS = "heads"


class Schedule(StrEnum):
    """The pruning schedule over rounds.

    Cubic: fast while there is much to spare, slow at the end; Zhu & Gupta, 2017, "To prune, or not to prune"
    (arXiv 1710.01878), equation 1.
    """

    LINEAR = "linear"
    CUBIC = "cubic"

    def at(self, done: float) -> float:
        """The progress fraction after this part of the rounds, both 0 to 1."""
        return done if self is Schedule.LINEAR else 1 - (1 - done) ** 3


class BlockScore(StrEnum):
    """The importance score of a block.

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
    """Granularity of pruning: a block of one head, or of all heads of a layer."""

    HEAD = "head"
    LAYER = "layer"
