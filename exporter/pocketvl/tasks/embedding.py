"""An encoder by itself: images or texts become embeddings, and nothing is compared but these."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.families.base import IMAGE, TEXT, Contract
from pocketvl.tasks.base import Task, spread_evenly
from pocketvl.tasks.contrastive import calibration_texts
from pocketvl.tasks.embedding_golden import EmbeddingGolden
from pocketvl.tasks.embedding_metrics import nearest_neighbour, soft_neighbours
from pocketvl.tasks.encoding import Encoder, Feed
from pocketvl.tasks.metrics import Metric, TaskOutcomes
from pocketvl.tasks.outputs import Outputs, component_of

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint


@dataclass(frozen=True)
class EmbeddingTask(Task):
    """Classification by the nearest neighbour, where samples have labels; else parity alone.

    Attributes:
        port: of the embedding, "image_encoder.embedding".
    """

    metrics: ClassVar[tuple[Metric, ...]] = (Metric.KNN,)
    processor: ClassVar[str]

    port: str

    @classmethod
    def of(cls, contract: Contract, opened: Checkpoint | None = None) -> Self:
        """The task of an encoder by itself; see `task_of`."""
        return cls(contract.embedding_head.port)

    @property
    def golden(self) -> EmbeddingGolden:
        return EmbeddingGolden(self.port, self.processor)

    @classmethod
    @abstractmethod
    def labels(cls, dataset: Dataset) -> Sequence[str | None]:
        """The label of each row of outputs, where there is one."""

    @classmethod
    @abstractmethod
    def feed(cls, encoder: Encoder, component: str, dataset: Dataset, most_texts: int | None = None) -> Feed:
        """What the component is shown of a dataset; of texts at most so many, spread evenly."""

    def feeds(self, encoder: Encoder, dataset: Dataset) -> tuple[Feed, ...]:
        return (self.feed(encoder, component_of(self.port), dataset),)

    @classmethod
    def calibration_feeds(
        cls, contract: Contract, encoder: Encoder, dataset: Dataset, most_texts: int
    ) -> tuple[Feed, ...]:
        """Every image, or texts as a model of both is calibrated with."""
        return (cls.feed(encoder, component_of(contract.embedding_head.port), dataset, most_texts),)

    def measure(self, dataset: Dataset, outputs: Outputs) -> TaskOutcomes:
        outcome = nearest_neighbour(self._rows(dataset, outputs), self.labels(dataset))
        return TaskOutcomes({Metric.KNN: outcome} if outcome.correct.size else {}, outcome.notes)

    def soft_score(self, dataset: Dataset, outputs: Outputs) -> float:
        found = soft_neighbours(self._rows(dataset, outputs), self.labels(dataset))
        if not found.size:
            raise DataError(f"{dataset.root}: a search needs labels that several samples share")
        return float(found.mean())

    def _rows(self, dataset: Dataset, outputs: Outputs) -> NDArray[np.float32]:
        rows, count = outputs[self.port], len(self.labels(dataset))
        if len(rows) != count:
            raise DataError(f"{len(rows)} rows embedded, not {count}; embed {dataset.root} again")
        return rows


@dataclass(frozen=True)
class ImageEmbeddingTask(EmbeddingTask):
    """An image encoder; a row is a sample."""

    processor: ClassVar[str] = IMAGE

    @classmethod
    def check(cls, dataset: Dataset) -> None:
        if len(dataset) < 2:
            raise DataError(f"{dataset.root}: at least two images are needed to compare embeddings")

    @classmethod
    def check_calibration(cls, dataset: Dataset) -> None:
        """Images are all that it takes."""

    @classmethod
    def texts(cls, dataset: Dataset) -> tuple[str, ...]:
        return ()

    @classmethod
    def labels(cls, dataset: Dataset) -> Sequence[str | None]:
        return [sample.label for sample in dataset.samples]

    @classmethod
    def feed(cls, encoder: Encoder, component: str, dataset: Dataset, most_texts: int | None = None) -> Feed:
        return encoder.feed(component, media=[sample.image for sample in dataset.samples])


@dataclass(frozen=True)
class TextEmbeddingTask(EmbeddingTask):
    """A text encoder; a row is one of the different captions and negatives, or labels in their template."""

    processor: ClassVar[str] = TEXT

    @classmethod
    def check(cls, dataset: Dataset) -> None:
        if len(cls.texts(dataset)) < 2:
            raise DataError(
                f"{dataset.root}: at least two different texts are needed to compare embeddings; give the "
                "samples `captions`, or `label`s of two kinds"
            )

    @classmethod
    def check_calibration(cls, dataset: Dataset) -> None:
        calibration_texts(dataset)

    @classmethod
    def texts(cls, dataset: Dataset) -> tuple[str, ...]:
        """Every caption and negative; of samples without any, the label in its template."""
        return calibration_texts(dataset)

    @classmethod
    def labels(cls, dataset: Dataset) -> Sequence[str | None]:
        """Of captions, the label that all of their samples have."""
        found: dict[str, set[str | None]] = {}
        for sample in dataset.samples:
            for caption in sample.captions:
                found.setdefault(caption, set()).add(sample.label)
        return [
            next(iter(labels)) if len(labels := found.get(text, set())) == 1 else None
            for text in cls.texts(dataset)
        ]

    @classmethod
    def feed(cls, encoder: Encoder, component: str, dataset: Dataset, most_texts: int | None = None) -> Feed:
        texts = cls.texts(dataset)
        chosen = spread_evenly(len(texts), len(texts) if most_texts is None else most_texts)
        return encoder.feed(component, texts=[texts[k] for k in chosen])
