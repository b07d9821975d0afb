"""Two embeddings in one space: images are matched with texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from pocketvl.data.dataset import Dataset
from pocketvl.data.prompts import label_prompts
from pocketvl.errors import DataError
from pocketvl.families.base import Contract
from pocketvl.tasks.base import Task, spread_evenly
from pocketvl.tasks.contrastive_golden import ContrastiveGolden
from pocketvl.tasks.contrastive_metrics import Embeddings, distinct_texts, measure_embeddings
from pocketvl.tasks.encoding import Encoder, Feed
from pocketvl.tasks.metrics import Metric, TaskOutcomes
from pocketvl.tasks.outputs import Outputs, component_of
from pocketvl_runtime.manifest import Activation, Modality

if TYPE_CHECKING:
    from pathlib import Path

    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.network.heads import Scalar


@dataclass(frozen=True)
class ContrastiveTask(Task):
    """Matching, retrieval and classification by the similarity of an image's and a text's embedding.

    Attributes:
        first: the port of the images' or sounds' embeddings, "image_encoder.embedding".
        second: the port of the texts' embeddings.
        scale: what cosines are multiplied by.
        bias: what is added then.
        activation: from logits to probabilities.
        modality: what is matched with texts.
        second_scale: in place of `scale` where one text is compared with several images or sounds.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric.MATCH_HARD,
        Metric.RETRIEVAL_R1,
        Metric.RETRIEVAL,
        Metric.CLASSIFY,
    )

    first: str
    second: str
    scale: float
    bias: float = 0.0
    activation: Activation = Activation.SOFTMAX
    modality: Modality = Modality.IMAGE
    second_scale: float | None = None

    @classmethod
    def of(cls, contract: Contract, opened: Checkpoint | None = None) -> Self:
        """The task of a model with a contrastive head; see `task_of`."""
        from pocketvl.families.folders.weights import read_scalar

        head = contract.contrastive_head

        def number(scalar: Scalar) -> float:
            return read_scalar(contract.folder, scalar) if opened is None else opened.scalar(scalar)

        bias = 0.0 if head.bias is None else number(head.bias)
        second = None if head.second_scale is None else number(head.second_scale)
        modality = contract.modality
        return cls(head.first, head.second, number(head.scale), bias, head.activation, modality, second)

    @property
    def golden(self) -> ContrastiveGolden:
        return ContrastiveGolden(**vars(self))

    @classmethod
    def check(cls, dataset: Dataset) -> None:
        if len(cls.texts(dataset)) < 2:
            raise DataError(
                f"{dataset.root}: at least two different texts are needed to compare embeddings; give the "
                "samples `captions`, or `label`s of two kinds"
            )
        if len(dataset) < 2:
            raise DataError(f"{dataset.root}: at least two images or sounds are needed to compare embeddings")

    @classmethod
    def check_calibration(cls, dataset: Dataset) -> None:
        calibration_texts(dataset)

    @classmethod
    def texts(cls, dataset: Dataset) -> tuple[str, ...]:
        """The distinct texts that any metric compares with an image or sound."""
        return distinct_texts(dataset)

    def feeds(self, encoder: Encoder, dataset: Dataset) -> tuple[Feed, ...]:
        texts = self.texts(dataset)
        if not texts:
            raise DataError(
                f"{dataset.root}: there are no texts to embed; give the samples captions or labels"
            )
        return _feeds(encoder, dataset.media(self.modality), (self.first, self.second), texts)

    @classmethod
    def calibration_feeds(
        cls, contract: Contract, encoder: Encoder, dataset: Dataset, most_texts: int
    ) -> tuple[Feed, ...]:
        """Every image or sound, and the texts of `calibration_texts`."""
        head, texts = contract.contrastive_head, calibration_texts(dataset)
        chosen = [texts[k] for k in spread_evenly(len(texts), most_texts)]
        return _feeds(encoder, dataset.media(contract.modality), (head.first, head.second), chosen)

    def measure(self, dataset: Dataset, outputs: Outputs) -> TaskOutcomes:
        return measure_embeddings(dataset, self.embeddings(outputs))

    def soft_score(self, dataset: Dataset, outputs: Outputs) -> float:
        from pocketvl.tasks.contrastive_score import soft_accuracy

        return soft_accuracy(dataset, self.embeddings(outputs), self.scale)

    def embeddings(self, outputs: Outputs) -> Embeddings:
        """The outputs as what is compared.

        Raises:
            DataError: they are not outputs of such a head.
        """
        return Embeddings(outputs[self.first], outputs[self.second], outputs.texts)


def calibration_texts(dataset: Dataset) -> tuple[str, ...]:
    """The distinct texts that a text encoder is calibrated with, in the order of first use.

    These are each sample's captions and negatives; where it has none, its label in the template that the
    bundle classifies with. Photos alone give none, and no stand-in is made up: a static grid is as wide as
    what calibration showed, and would then be that of texts that nobody asks.

    Raises:
        DataError: no sample has a caption or a label.
    """
    prompts = label_prompts(dataset)
    texts: dict[str, None] = {}
    for sample in dataset.samples:
        own = (*sample.captions, *sample.negatives)
        if not own and sample.label is not None:
            own = (prompts[sample.label],)
        texts.update(dict.fromkeys(own))
    if not texts:
        raise DataError(
            f"{dataset.root}: the text tower is calibrated with captions or labels, and no sample has any; "
            "give the samples `captions` or a `label`"
        )
    return tuple(texts)


def _feeds(
    encoder: Encoder, media: Sequence[Path], ports: tuple[str, str], texts: Sequence[str]
) -> tuple[Feed, ...]:
    """Every image or sound for the component of the first port, and texts for that of the second."""
    first, second = map(component_of, ports)
    return encoder.feed(first, media=media), encoder.feed(second, texts=texts)
