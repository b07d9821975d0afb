"""The probability of the right answers: `contrastive_metrics` without thresholds.

Counting right answers tells two models apart only where an answer tips over; the probability of the right
one moves with every change. A search needs that; what ships is judged by right answers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.tasks.contrastive_metrics import RETRIEVAL_GROUP, Embeddings


def soft_accuracy(dataset: Dataset, embeddings: Embeddings, logit_scale: float) -> float:
    """The mean probability of the right answer, over `match_hard` and `retrieval_r1` alike.

    Args:
        dataset: the samples.
        embeddings: one image row a sample, and the texts that the tasks need.
        logit_scale: what a cosine is multiplied by before the softmax, which stands for a sigmoid too: both
            put the same text first.

    Returns:
        A fraction in [0, 1].

    Raises:
        DataError: the dataset has neither captions with negatives, nor two captions.
    """
    parts = (_match(dataset, embeddings, logit_scale), _retrieve(dataset, embeddings, logit_scale))
    means = [part.mean() for part in parts if part.size]
    if not means:
        raise DataError(f"{dataset.root}: a search needs captions to match with pictures, and there are none")
    return float(np.mean(means))


def _match(dataset: Dataset, embeddings: Embeddings, scale: float) -> NDArray[np.float64]:
    from scipy.special import softmax

    found = []
    for image, sample in zip(embeddings.image, dataset.samples, strict=True):
        if sample.captions and sample.negatives:
            texts = embeddings.of_texts((sample.captions[0], *sample.negatives))
            found.append(softmax(scale * (texts @ image))[0])
    return np.array(found)


def _retrieve(dataset: Dataset, embeddings: Embeddings, scale: float) -> NDArray[np.float64]:
    from scipy.special import softmax

    indexes = [index for index, sample in enumerate(dataset.samples) if sample.captions]
    found: list[NDArray[np.float64]] = []
    for start in range(0, len(indexes), RETRIEVAL_GROUP):
        group = indexes[start : start + RETRIEVAL_GROUP]
        if len(group) > 1:
            captions = tuple(dataset.samples[index].captions[0] for index in group)
            similarity = embeddings.of_texts(captions) @ embeddings.image[group].astype(np.float64).T
            found.append(np.diagonal(softmax(scale * similarity, axis=1)))
    return np.concatenate(found) if found else np.zeros(0)
