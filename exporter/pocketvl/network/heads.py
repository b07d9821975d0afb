"""Heads: how component outputs become a model's predictions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypeAlias

from pocketvl_runtime.manifest import Activation


class HeadKind(StrEnum):
    """Kinds of heads."""

    CONTRASTIVE = "contrastive"
    LABELS = "labels"
    IMAGE_EMBEDDING = "image-embedding"
    TEXT_EMBEDDING = "text-embedding"

    @property
    def embeds(self) -> bool:
        """Whether components give embeddings."""
        return self is not HeadKind.LABELS


@dataclass(frozen=True)
class StoredScalar:
    """One number among a checkpoint's weights.

    Attributes:
        tensor: its name there.
        is_log: whether its natural logarithm is stored.
    """

    tensor: str
    is_log: bool = False


@dataclass(frozen=True)
class FixedScalar:
    """One number that a checkpoint's weights do not hold.

    Attributes:
        value: the number.
    """

    value: float


Scalar: TypeAlias = StoredScalar | FixedScalar


@dataclass(frozen=True)
class ContrastiveHead:
    """Two embeddings of one space: `activation(scale * cosine + bias)`.

    Attributes:
        first: an embedding, "component.port".
        second: the embedding that it is compared with.
        scale: what cosines are multiplied by.
        bias: what is added then; None: nothing.
        activation: from logits to probabilities.
        second_scale: in place of `scale` where one `second` is compared with several `first`; None: the same.
    """

    kind: ClassVar[HeadKind] = HeadKind.CONTRASTIVE

    first: str
    second: str
    scale: Scalar
    bias: Scalar | None = None
    activation: Activation = Activation.SOFTMAX
    second_scale: Scalar | None = None


@dataclass(frozen=True)
class LabelHead:
    """One component that scores a fixed list of answers.

    Attributes:
        component: whose class logits they are.
        labels: by their indices among the logits.
        activation: from logits to probabilities.
    """

    kind: ClassVar[HeadKind] = HeadKind.LABELS

    component: str
    labels: tuple[str, ...]
    activation: Activation = Activation.SOFTMAX


@dataclass(frozen=True)
class MatchHead:
    """One component that reads an image and a text together and says whether they fit.

    It is a second head: it reranks what a contrastive one finds.

    Attributes:
        logits: class logits, "component.port".
        hidden: what the component reads of the image: an output of the component that embeds images,
            "component.port".
        positive_index: which logit says that they fit.
        activation: from logits to probabilities.
    """

    logits: str
    hidden: str
    positive_index: int
    activation: Activation = Activation.SOFTMAX

    @property
    def component(self) -> str:
        """The component whose logits they are."""
        return self.logits.partition(".")[0]


@dataclass(frozen=True)
class EmbeddingHead:
    """One encoder by itself: its embedding is the answer.

    Attributes:
        port: of the embedding, "component.port".
        kind: whether it embeds images or texts.
    """

    port: str
    kind: HeadKind


Head: TypeAlias = ContrastiveHead | LabelHead | EmbeddingHead


def stored_scalars(head: Head) -> tuple[StoredScalar, ...]:
    """The numbers of a head that stand among a checkpoint's weights."""
    if not isinstance(head, ContrastiveHead):
        return ()
    scalars = (head.scale, head.bias, head.second_scale)
    return tuple(each for each in scalars if isinstance(each, StoredScalar))
