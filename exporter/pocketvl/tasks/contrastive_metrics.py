"""What embeddings answer: which caption, which image, which label.

Every metric gives one right-or-wrong a sample, so that two models are compared sample by sample. A tie is
wrong, and so is a comparison with NaN: a model that cannot tell two things apart has not answered.
Similarities are float64 dot products of float32 embeddings; closer than 1e-9 is a tie, since two equal rows
of one matrix product may come out apart by a rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset, Sample
from pocketvl.data.prompts import DEFAULT_TEMPLATE, label_prompts
from pocketvl.errors import DataError
from pocketvl.tasks.metrics import Metric, TaskOutcome, TaskOutcomes

RETRIEVAL_GROUP = 100
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What is compared: embeddings of a dataset's images, and of texts.

    Attributes:
        image: float32 [N, D], one row a sample, in the dataset's order.
        text: float32 [M, D], one row a distinct text.
        texts: the M texts, in the order of the rows.
    """

    image: NDArray[np.float32]
    text: NDArray[np.float32]
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or self.text.ndim != 2 or self.image.shape[1] != self.text.shape[1]:
            raise DataError(f"embeddings of shapes {self.image.shape} and {self.text.shape} do not fit")
        if len(self.texts) != len(self.text) or len(set(self.texts)) != len(self.texts):
            raise DataError(f"{len(self.text)} text embeddings need as many distinct texts")

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.texts)}

    def of_texts(self, texts: tuple[str, ...]) -> NDArray[np.float64]:
        """Embeddings of texts, float64 [len(texts), D].

        Raises:
            DataError: a text was not embedded.
        """
        try:
            chosen = [self._rows[text] for text in texts]
        except KeyError as error:
            missing = error.args[0]
            raise DataError(f"no embedding of the text {missing!r}; embed distinct_texts(dataset)") from None
        return self.text[chosen].astype(np.float64)


def distinct_texts(dataset: Dataset, template: str = DEFAULT_TEMPLATE) -> tuple[str, ...]:
    """Every text that the metrics compare with an image, once, in the order of first use.

    These are each sample's first caption and its negatives, then the labels in the template.
    """
    texts: dict[str, None] = {}
    for sample in dataset.samples:
        texts.update(dict.fromkeys((*sample.captions[:1], *sample.negatives)))
    texts.update(dict.fromkeys(label_prompts(dataset, template).values()))
    return tuple(texts)


def measure_embeddings(
    dataset: Dataset, embeddings: Embeddings, template: str = DEFAULT_TEMPLATE
) -> TaskOutcomes:
    """Every metric that the dataset has something for.

    Args:
        dataset: the samples.
        embeddings: one image row a sample in the same order, and the texts of `distinct_texts`.
        template: the text that stands for a label, with `{label}` in it.

    Raises:
        DataError: the embeddings are not this dataset's, or a sample's kinds do not fit its negatives.
    """
    if len(embeddings.image) != len(dataset):
        raise DataError(
            f"{len(embeddings.image)} images embedded for {len(dataset)} samples; embed {dataset.root} again"
        )
    candidates = (
        match_hard(dataset, embeddings),
        retrieval_r1(dataset, embeddings),
        classify(dataset, embeddings, template),
    )
    tasks = {task.metric: task for task in candidates if task.correct.size}
    return TaskOutcomes(tasks, tuple(note for task in candidates for note in task.notes))


def match_hard(dataset: Dataset, embeddings: Embeddings) -> TaskOutcome:
    """Does a sample's first caption strictly rank above all of its negatives?

    `by_kind` holds the pairwise answers: the caption against each single negative, by what was changed
    in it; negatives of unknown kind are left out there.
    """
    correct: list[bool] = []
    by_kind: dict[str, list[bool]] = {}
    for index, sample in enumerate(dataset.samples):
        if not sample.captions or not sample.negatives:
            continue
        _check_kinds(dataset, index, sample)
        texts = embeddings.of_texts((sample.captions[0], *sample.negatives))  # [1 + K, D]
        similarity = texts @ embeddings.image[index].astype(np.float64)  # [1 + K]
        above = similarity[0] > similarity[1:] + _TIE
        correct.append(bool(above.all()))
        for kind, is_above in zip(sample.negative_kinds, above, strict=False):
            by_kind.setdefault(kind, []).append(bool(is_above))
    why = "without caption or negatives"
    notes = _left_out(Metric.MATCH_HARD, len(dataset) - len(correct), len(dataset), why)
    kinds = {kind: np.array(by_kind[kind], dtype=np.bool_) for kind in sorted(by_kind)}
    return TaskOutcome(Metric.MATCH_HARD, np.array(correct, dtype=np.bool_), kinds, notes=notes)


def retrieval_r1(dataset: Dataset, embeddings: Embeddings) -> TaskOutcome:
    """Does a first caption rank its own image above 99 others?

    Samples with a caption are cut into consecutive groups of 100; a remainder of fewer is left out.
    """
    indexes = [index for index, sample in enumerate(dataset.samples) if sample.captions]
    correct: list[NDArray[np.bool_]] = []
    for start in range(0, len(indexes) - RETRIEVAL_GROUP + 1, RETRIEVAL_GROUP):
        group = indexes[start : start + RETRIEVAL_GROUP]
        captions = tuple(dataset.samples[index].captions[0] for index in group)
        similarity = embeddings.of_texts(captions) @ embeddings.image[group].astype(np.float64).T
        own = np.diagonal(similarity)[:, None]
        correct.append((own > similarity + _TIE).sum(axis=1) == RETRIEVAL_GROUP - 1)
    kept = RETRIEVAL_GROUP * len(correct)
    note = ""
    if indexes and not kept:
        note = f"not measured, {len(indexes)} captioned samples where {RETRIEVAL_GROUP} are needed"
    elif kept < len(indexes):
        rest = f"the last {len(indexes) - kept} of {len(indexes)} captioned samples"
        note = f"{rest} fill no group of {RETRIEVAL_GROUP} and are left out"
    notes = (f"{Metric.RETRIEVAL_R1.value}: {note}",) if note else ()
    return TaskOutcome(Metric.RETRIEVAL_R1, np.concatenate(correct) if correct else _nothing(), notes=notes)


def classify(dataset: Dataset, embeddings: Embeddings, template: str = DEFAULT_TEMPLATE) -> TaskOutcome:
    """Is an image nearest to its own label among all labels of the dataset?"""
    prompts = label_prompts(dataset, template)
    indexes = [index for index, sample in enumerate(dataset.samples) if sample.label is not None]
    if len(prompts) < 2:
        only = f"{Metric.CLASSIFY.value}: not measured, all samples carry the same label"
        return TaskOutcome(Metric.CLASSIFY, _nothing(), notes=(only,) if prompts else ())
    position = {label: column for column, label in enumerate(prompts)}
    labels = embeddings.of_texts(tuple(prompts.values()))  # [L, D]
    similarity = embeddings.image[indexes].astype(np.float64) @ labels.T  # [n, L]
    own = [position[label] for index in indexes if (label := dataset.samples[index].label) is not None]
    best = similarity[np.arange(len(own)), own][:, None]
    correct = (best > similarity + _TIE).sum(axis=1) == len(prompts) - 1
    notes = _left_out(Metric.CLASSIFY, len(dataset) - len(indexes), len(dataset), "without a label")
    return TaskOutcome(Metric.CLASSIFY, correct, notes=notes)


def _nothing() -> NDArray[np.bool_]:
    return np.zeros(0, dtype=np.bool_)


def _left_out(metric: Metric, left_out: int, total: int, why: str) -> tuple[str, ...]:
    if not left_out or left_out == total:
        return ()
    return (f"{metric.value}: {left_out} of {total} samples {why} are left out",)


def _check_kinds(dataset: Dataset, index: int, sample: Sample) -> None:
    if sample.negative_kinds and len(sample.negative_kinds) != len(sample.negatives):
        raise DataError(
            f"{dataset.root}: sample {index + 1} ({sample.image.name}) has {len(sample.negatives)} negatives "
            f"but {len(sample.negative_kinds)} kinds; give one kind a negative, or none"
        )
