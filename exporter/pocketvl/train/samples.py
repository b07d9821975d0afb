"""Training samples as arrays: images or sounds, texts, and their pairing.

Without torch, so that a plan is checked quickly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset, questions_of
from pocketvl.data.prompts import caption_of
from pocketvl.errors import DataError
from pocketvl.network.heads import Head, HeadKind, LabelHead
from pocketvl.network.ports import MEDIA_KINDS, PortKind

Array: TypeAlias = NDArray[np.generic]
Index: TypeAlias = Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class TrainingSamples(ABC):
    """Training samples for one kind of head.

    Attributes:
        images: uint8 [N, H, W, 3], or spectrograms of sounds, float32 [N, 1, frames, mels], as components
            take them; may be a memmap; of a text encoder none.
        ids: int32 [M, T], as components take them; of an image encoder none.
        index: which of them belong together.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    ids: NDArray[np.int32]
    index: Index

    @staticmethod
    @abstractmethod
    def check(dataset: Dataset) -> None:
        """Raise DataError where a model cannot be trained on a dataset."""

    @staticmethod
    @abstractmethod
    def select(dataset: Dataset, head: Head) -> tuple[list[str], Index]:
        """The texts of a dataset whose ids are `ids`, and the `index`.

        Args:
            dataset: that passed `check`.
            head: of the model.

        Raises:
            DataError: an answer is none of the head's labels.
        """

    @abstractmethod
    def count(self, kinds: Collection[PortKind]) -> int:
        """How many rows there are for a component with inputs of these kinds."""

    @abstractmethod
    def inputs(self, kinds: Iterable[PortKind], rows: NDArray[np.int64]) -> tuple[Array, ...]:
        """Some of those rows, input by input."""

    def identity(self) -> bytes:
        """Differs for other samples; of images only their shape, which are too many to be read."""
        return f"{self.images.shape}{[list(rows) for rows in self.index]}".encode() + self.ids.tobytes()


@dataclass(frozen=True, eq=False)
class PairSamples(TrainingSamples):
    """Images and texts of a contrastive head, each with rows of its own.

    `index` holds for each image the row of its caption in `ids`, then the rows of its hard negatives. Where
    there is none of those, any other text is drawn. The caption of a sample without any is its label in the
    template, so that equal labels are equal captions.
    """

    def __post_init__(self) -> None:
        if len(self.images) < 2 or len(self.ids) < 2:
            raise DataError("training needs at least two images and two texts")
        if len(self.index) != len(self.images):
            raise DataError(f"{len(self.images)} images, but captions for {len(self.index)}")
        if not all(rows and min(rows) >= 0 and max(rows) < len(self.ids) for rows in self.index):
            raise DataError(f"an image has no caption among the {len(self.ids)} texts")

    @staticmethod
    def check(dataset: Dataset) -> None:
        captions = [caption_of(dataset, sample) for sample in dataset.samples]
        if None in captions:
            raise DataError(f"{dataset.root}: training needs a caption or a label for every image")
        if len(set(captions)) < 2 and not any(sample.negatives for sample in dataset.samples):
            raise DataError(f"{dataset.root}: training needs two different captions or labels")

    @staticmethod
    def select(dataset: Dataset, head: Head) -> tuple[list[str], Index]:
        captions = [caption_of(dataset, sample) or "" for sample in dataset.samples]
        chosen = [
            (caption, *sample.negatives) for caption, sample in zip(captions, dataset.samples, strict=True)
        ]
        rows = {text: row for row, text in enumerate(dict.fromkeys(text for each in chosen for text in each))}
        return list(rows), [[rows[text] for text in each] for each in chosen]

    def count(self, kinds: Collection[PortKind]) -> int:
        return len(self.ids if MEDIA_KINDS.isdisjoint(kinds) else self.images)

    def inputs(self, kinds: Iterable[PortKind], rows: NDArray[np.int64]) -> tuple[Array, ...]:
        return tuple((self.images if kind in MEDIA_KINDS else self.ids)[rows] for kind in kinds)


@dataclass(frozen=True, eq=False)
class LabelSamples(TrainingSamples):
    """Questions about images, and their answers, of a head of labels; a row is a question.

    `index` holds for each question the row of its image in `images`, and the index of its answer among the
    labels.
    """

    def __post_init__(self) -> None:
        if len(self.ids) < 2:
            raise DataError("training needs at least two questions")
        if len(self.ids) != len(self.index):
            raise DataError("every question needs an image and an answer")
        if self.image_rows.min() < 0 or self.image_rows.max() >= len(self.images) or self.labels.min() < 0:
            raise DataError("a question is about an image, or has an answer, that is not there")

    @cached_property
    def image_rows(self) -> NDArray[np.int64]:
        """The image that each question is about, int64 [M]."""
        return np.asarray(self.index, np.int64)[:, 0]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The right answers, int64 [M]."""
        return np.asarray(self.index, np.int64)[:, 1]

    @staticmethod
    def check(dataset: Dataset) -> None:
        if len(questions_of(dataset)) < 2:
            raise DataError(f"{dataset.root}: training needs questions with answers (qa), two at least")

    @staticmethod
    def select(dataset: Dataset, head: Head) -> tuple[list[str], Index]:
        assert isinstance(head, LabelHead)
        known = {label: index for index, label in enumerate(head.labels)}
        questions = questions_of(dataset)
        for each in questions:
            if each.answer not in known:
                raise DataError(
                    f"{dataset.samples[each.sample].file}: the answer {each.answer!r} is none of those that "
                    f"the model knows ({len(known)}, id2label in its config.json)"
                )
        return [each.text for each in questions], [[each.sample, known[each.answer]] for each in questions]

    def count(self, kinds: Collection[PortKind]) -> int:
        return len(self.ids)

    def inputs(self, kinds: Iterable[PortKind], rows: NDArray[np.int64]) -> tuple[Array, ...]:
        return tuple(
            self.images[self.image_rows[rows]] if kind in MEDIA_KINDS else self.ids[rows] for kind in kinds
        )


@dataclass(frozen=True, eq=False)
class ImageSamples(TrainingSamples):
    """Images of an encoder by itself; `ids` and `index` are empty."""

    def __post_init__(self) -> None:
        if len(self.images) < 2:
            raise DataError("training needs at least two images")

    @staticmethod
    def check(dataset: Dataset) -> None:
        if len(dataset) < 2:
            raise DataError(f"{dataset.root}: training needs at least two images")

    @staticmethod
    def select(dataset: Dataset, head: Head) -> tuple[list[str], Index]:
        return [], []

    def count(self, kinds: Collection[PortKind]) -> int:
        return len(self.images)

    def inputs(self, kinds: Iterable[PortKind], rows: NDArray[np.int64]) -> tuple[Array, ...]:
        return tuple(self.images[rows] for _ in kinds)


@dataclass(frozen=True, eq=False)
class TextSamples(TrainingSamples):
    """Texts of an encoder by itself: captions and negatives, or labels in their template, each once."""

    def __post_init__(self) -> None:
        if len(self.ids) < 2:
            raise DataError("training needs at least two texts")

    @staticmethod
    def check(dataset: Dataset) -> None:
        if len(TextSamples.texts(dataset)) < 2:
            raise DataError(f"{dataset.root}: training needs two different captions or labels")

    @staticmethod
    def select(dataset: Dataset, head: Head) -> tuple[list[str], Index]:
        return TextSamples.texts(dataset), []

    def count(self, kinds: Collection[PortKind]) -> int:
        return len(self.ids)

    def inputs(self, kinds: Iterable[PortKind], rows: NDArray[np.int64]) -> tuple[Array, ...]:
        return tuple(self.ids[rows] for _ in kinds)

    @staticmethod
    def texts(dataset: Dataset) -> list[str]:
        """Those of a dataset."""
        texts = [
            text
            for sample in dataset.samples
            for text in (*sample.captions, *sample.negatives) or (caption_of(dataset, sample),)
        ]
        return list(dict.fromkeys(filter(None, texts)))


# A plain table: a kind of head is added here, and as a training task.
SAMPLES: Mapping[HeadKind, type[TrainingSamples]] = {
    HeadKind.CONTRASTIVE: PairSamples,
    HeadKind.LABELS: LabelSamples,
    HeadKind.IMAGE_EMBEDDING: ImageSamples,
    HeadKind.TEXT_EMBEDDING: TextSamples,
}
