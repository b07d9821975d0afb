"""Two embeddings in one space: images are matched with texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.families.base import Contract
from pocketvl.tasks.base import Task
from pocketvl.tasks.contrastive_metrics import Embeddings, distinct_texts, measure_embeddings
from pocketvl.tasks.encoding import Encoder, Feed
from pocketvl.tasks.metrics import Metric, TaskOutcomes
from pocketvl.tasks.outputs import Outputs, component_of

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint


@dataclass(frozen=True)
class ContrastiveTask(Task):
    """`match_hard`, `retrieval_r1` and `classify`, by the similarity of an image's and a text's embedding.

    Attributes:
        first: the port of the images' embeddings, "image_encoder.embedding".
        second: the port of the texts' embeddings.
        scale: what cosines are multiplied by before a softmax.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (Metric.MATCH_HARD, Metric.RETRIEVAL_R1, Metric.CLASSIFY)

    first: str
    second: str
    scale: float

    @classmethod
    def of(cls, contract: Contract, opened: Checkpoint | None = None) -> Self:
        """The task of a model with a contrastive head; see `task_of`."""
        from pocketvl.families.folders.hf import read_scalar

        head = contract.contrastive_head
        scale = read_scalar(contract.folder, head.scale) if opened is None else opened.logit_scale
        return cls(head.first, head.second, scale)

    @classmethod
    def check(cls, dataset: Dataset) -> None:
        if len(cls.texts(dataset)) < 2:
            raise DataError(
                f"{dataset.root}: at least two different texts are needed to compare embeddings; give the "
                "samples `captions`, or `label`s of two kinds"
            )
        if len(dataset) < 2:
            raise DataError(f"{dataset.root}: at least two images are needed to compare embeddings")

    @classmethod
    def texts(cls, dataset: Dataset) -> tuple[str, ...]:
        """The distinct texts that any metric compares with an image."""
        return distinct_texts(dataset)

    def feeds(self, encoder: Encoder, dataset: Dataset) -> tuple[Feed, ...]:
        texts = self.texts(dataset)
        if not texts:
            raise DataError(
                f"{dataset.root}: there are no texts to embed; give the samples captions or labels"
            )
        images = [sample.image for sample in dataset.samples]
        return (
            encoder.feed(component_of(self.first), images=images),
            encoder.feed(component_of(self.second), texts=texts),
        )

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
