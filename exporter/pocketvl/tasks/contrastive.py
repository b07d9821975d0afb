"""Two embeddings in one space: images are matched with texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.tasks.adapter import Contract, ContrastiveHead, read_scalar
from pocketvl.tasks.base import Task
from pocketvl.tasks.contrastive_metrics import Embeddings, distinct_texts, measure_embeddings
from pocketvl.tasks.encoding import Encoder, Feed
from pocketvl.tasks.metrics import Metric, TaskOutcomes
from pocketvl.tasks.outputs import Outputs


@dataclass(frozen=True)
class ContrastiveTask(Task):
    """`match_hard`, `retrieval_r1` and `classify`, by the similarity of an image's and a text's embedding.

    Attributes:
        contract: of a model whose head this is.
        head: its first port is of the images, its second of the texts.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (Metric.MATCH_HARD, Metric.RETRIEVAL_R1, Metric.CLASSIFY)

    contract: Contract
    head: ContrastiveHead

    def check(self, dataset: Dataset) -> None:
        if len(self.texts(dataset)) < 2:
            raise DataError(
                f"{dataset.root}: at least two different texts are needed to compare embeddings; give the "
                "samples `captions`, or `label`s of two kinds"
            )
        if len(dataset) < 2:
            raise DataError(f"{dataset.root}: at least two images are needed to compare embeddings")

    def texts(self, dataset: Dataset) -> tuple[str, ...]:
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
            encoder.feed(_component(self.head.first), images=images),
            encoder.feed(_component(self.head.second), texts=texts),
        )

    def measure(self, dataset: Dataset, outputs: Outputs) -> TaskOutcomes:
        return measure_embeddings(dataset, self.embeddings(outputs))

    def soft_score(self, dataset: Dataset, outputs: Outputs) -> float:
        from pocketvl.tasks.contrastive_score import soft_accuracy

        return soft_accuracy(dataset, self.embeddings(outputs), self._scale)

    def embeddings(self, outputs: Outputs) -> Embeddings:
        """The outputs as what is compared.

        Raises:
            DataError: they are not outputs of such a head.
        """
        return Embeddings(outputs[self.head.first], outputs[self.head.second], outputs.texts)

    @cached_property
    def _scale(self) -> float:
        return read_scalar(self.contract.folder, self.head.scale)


def _component(port: str) -> str:
    return port.partition(".")[0]
