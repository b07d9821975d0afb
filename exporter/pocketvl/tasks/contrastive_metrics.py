"""What embeddings answer: which caption, which image, which label.

Every metric gives one right-or-wrong a sample, so that two models are compared sample by sample. A tie is
wrong, and so is a comparison with NaN: a model that cannot tell two things apart has not answered.
Similarities are float64 dot products of float32 embeddings; closer than 1e-9 is a tie, since two equal rows
of one matrix product may come out apart by a rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset, Sample
from pocketvl.data.prompts import label_prompts
from pocketvl.errors import DataError
from pocketvl.tasks.metrics import Metric, TaskOutcome, TaskOutcomes
from pocketvl_runtime.prompts import ensembled

RETRIEVAL_GROUP = 100
RETRIEVAL_RANKS = (1, 5, 10)
_TOP = 5
QUERIES_AT_ONCE = 512
TIE = 1e-9


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


def distinct_texts(dataset: Dataset) -> tuple[str, ...]:
    """Every text that the metrics compare with an image, once, in the order of first use.

    These are each sample's first caption and its negatives, then the labels in each of the templates.
    """
    texts: dict[str, None] = {}
    for sample in dataset.samples:
        texts.update(dict.fromkeys((*sample.captions[:1], *sample.negatives)))
    for template in dataset.templates:
        texts.update(dict.fromkeys(label_prompts(dataset, template).values()))
    return tuple(texts)


def measure_embeddings(dataset: Dataset, embeddings: Embeddings) -> TaskOutcomes:
    """Every metric that the dataset has something for.

    Args:
        dataset: the samples.
        embeddings: one image row a sample in the same order, and the texts of `distinct_texts`.

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
        retrieval(dataset, embeddings),
        classify(dataset, embeddings),
    )
    tasks = {task.metric: task for task in candidates if task.correct.size}
    return TaskOutcomes(tasks, tuple(note for task in candidates for note in task.notes))


def match_hard(dataset: Dataset, embeddings: Embeddings) -> TaskOutcome:
    """Does a sample's first caption strictly rank above all of its negatives, by cosine?"""

    def similarity(index: int, texts: tuple[str, ...]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = embeddings.of_texts(texts) @ embeddings.image[index].astype(np.float64)
        return found

    return above_negatives(dataset, Metric.MATCH_HARD, similarity)


def above_negatives(
    dataset: Dataset, metric: Metric, scores: Callable[[int, tuple[str, ...]], NDArray[np.float64]]
) -> TaskOutcome:
    """Does a sample's first caption strictly rank above all of its negatives?

    `by_kind` holds the pairwise answers: the caption against each single negative, by what was changed
    in it; negatives of unknown kind are left out there.

    Args:
        dataset: the samples.
        metric: what it is measured for.
        scores: of a sample's index and its caption with its negatives: float64 [1 + K], larger is better.
    """
    correct: list[bool] = []
    by_kind: dict[str, list[bool]] = {}
    for index, sample in enumerate(dataset.samples):
        if not sample.captions or not sample.negatives:
            continue
        _check_kinds(dataset, index, sample)
        found = scores(index, (sample.captions[0], *sample.negatives))  # [1 + K]
        above = found[0] > found[1:] + TIE
        correct.append(bool(above.all()))
        for kind, is_above in zip(sample.negative_kinds, above, strict=False):
            by_kind.setdefault(kind, []).append(bool(is_above))
    why = "without caption or negatives"
    notes = _left_out(metric, len(dataset) - len(correct), len(dataset), why)
    kinds = {kind: np.array(by_kind[kind], dtype=np.bool_) for kind in sorted(by_kind)}
    return TaskOutcome(metric, np.array(correct, dtype=np.bool_), kinds, notes=notes)


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
        correct.append((own > similarity + TIE).sum(axis=1) == RETRIEVAL_GROUP - 1)
    kept = RETRIEVAL_GROUP * len(correct)
    note = ""
    if indexes and not kept:
        note = f"not measured, {len(indexes)} captioned samples where {RETRIEVAL_GROUP} are needed"
    elif kept < len(indexes):
        rest = f"the last {len(indexes) - kept} of {len(indexes)} captioned samples"
        note = f"{rest} fill no group of {RETRIEVAL_GROUP} and are left out"
    notes = (f"{Metric.RETRIEVAL_R1.value}: {note}",) if note else ()
    return TaskOutcome(Metric.RETRIEVAL_R1, np.concatenate(correct) if correct else _nothing(), notes=notes)


def retrieval(dataset: Dataset, embeddings: Embeddings) -> TaskOutcome:
    """Does a first caption rank its own image above all others of the dataset?

    Of equal first captions, each is true of the images of all. `by_kind` holds both directions at each rank:
    "text_to_image_r5" says of each captioned sample whether an image that its caption is true of is among the
    first 5, "image_to_text_r5" whether its caption is among the first 5 different captions.
    """
    indexes = [index for index, sample in enumerate(dataset.samples) if sample.captions]
    captions = [dataset.samples[index].captions[0] for index in indexes]
    texts = tuple(dict.fromkeys(captions))
    if len(texts) < 2:
        only = f"{Metric.RETRIEVAL.value}: not measured, all captioned samples have the same caption"
        return TaskOutcome(Metric.RETRIEVAL, _nothing(), notes=(only,) if len(captions) > 1 else ())
    row_of = {text: row for row, text in enumerate(texts)}
    own = np.array([row_of[caption] for caption in captions])  # [N]
    read, every = embeddings.of_texts(texts), np.arange(len(texts))  # [M, D]
    seen = embeddings.image[indexes].astype(np.float64)  # [N, D]
    found = {
        "text_to_image": _ranked_above(read[own], own, seen, own),
        "image_to_text": _ranked_above(seen, own, read, every),
    }
    sizes = {"text_to_image": len(indexes), "image_to_text": len(texts)}
    kinds = {
        f"{way}_r{rank}": above < rank
        for way, above in found.items()
        for rank in RETRIEVAL_RANKS
        if rank < sizes[way]
    }
    notes = _left_out(Metric.RETRIEVAL, len(dataset) - len(indexes), len(dataset), "without a caption")
    return TaskOutcome(Metric.RETRIEVAL, kinds["text_to_image_r1"], kinds, notes=notes)


def _ranked_above(
    queries: NDArray[np.float64],
    wanted: NDArray[np.int64],
    candidates: NDArray[np.float64],
    groups: NDArray[np.int64],
) -> NDArray[np.int64]:
    """How many wrong candidates each query does not rank below the best right one, int64 [N].

    Args:
        queries: [N, D].
        wanted: [N], the group of candidates that is right.
        candidates: [M, D].
        groups: [M], of the candidates.
    """
    found = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        rows = slice(start, start + QUERIES_AT_ONCE)
        similarity = queries[rows] @ candidates.T  # [n, M]
        right = wanted[rows, None] == groups[None]
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)  # NaN where one is
        found.append((~right & ~(best > similarity + TIE)).sum(axis=1))
    return np.concatenate(found)


def classify(dataset: Dataset, embeddings: Embeddings) -> TaskOutcome:
    """Is an image nearest to its own label among all labels of the dataset?

    A label's embedding is the mean over the dataset's templates, L2-normalised again. Where there are more
    than 5 labels, `by_kind` says under "top5" whether its own is among the nearest 5.
    """
    prompts = label_prompts(dataset)
    indexes = [index for index, sample in enumerate(dataset.samples) if sample.label is not None]
    if len(prompts) < 2:
        only = f"{Metric.CLASSIFY.value}: not measured, all samples carry the same label"
        return TaskOutcome(Metric.CLASSIFY, _nothing(), notes=(only,) if prompts else ())
    position = {label: column for column, label in enumerate(prompts)}
    texts = [text for each in dataset.templates for text in label_prompts(dataset, each).values()]
    labels = ensembled(embeddings.of_texts(tuple(texts)), len(dataset.templates))  # [L, D]
    similarity = embeddings.image[indexes].astype(np.float64) @ labels.T  # [n, L]
    own = [position[label] for index in indexes if (label := dataset.samples[index].label) is not None]
    best = similarity[np.arange(len(own)), own][:, None]
    below = (best > similarity + TIE).sum(axis=1)  # of the other labels: a tie, or NaN, is not below
    kinds = {"top1": below == len(prompts) - 1}
    if len(prompts) > _TOP:
        kinds[f"top{_TOP}"] = below >= len(prompts) - _TOP
    notes = _left_out(Metric.CLASSIFY, len(dataset) - len(indexes), len(dataset), "without a label")
    if len(dataset.templates) > 1:
        notes += (f"{Metric.CLASSIFY.value}: labels are the mean of {len(dataset.templates)} templates",)
    return TaskOutcome(Metric.CLASSIFY, kinds["top1"], kinds if len(kinds) > 1 else {}, notes=notes)


def _nothing() -> NDArray[np.bool_]:
    return np.zeros(0, dtype=np.bool_)


def _left_out(metric: Metric, left_out: int, total: int, why: str) -> tuple[str, ...]:
    if not left_out or left_out == total:
        return ()
    return (f"{metric.value}: {left_out} of {total} samples {why} are left out",)


def _check_kinds(dataset: Dataset, index: int, sample: Sample) -> None:
    if sample.negative_kinds and len(sample.negative_kinds) != len(sample.negatives):
        raise DataError(
            f"{dataset.root}: sample {index + 1} ({sample.file.name}) has {len(sample.negatives)} negatives "
            f"but {len(sample.negative_kinds)} kinds; give one kind a negative, or none"
        )
