"""From embeddings to answers: similarities, probabilities, and the results that are handed out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TextScore:
    """One text: cosine similarity to the picture, and its share among all texts given."""

    text: str
    similarity: float
    probability: float


@dataclass(frozen=True)
class LabelScore:
    """One label, likewise."""

    label: str
    similarity: float
    probability: float


@dataclass(frozen=True)
class TimingMs:
    """Milliseconds of one answer."""

    decode: float
    preprocess: float
    image: float
    text: float
    total: float


@dataclass(frozen=True)
class MatchReport:
    """How well each text fits the picture, in the order in which the texts were given."""

    variant: str
    results: tuple[TextScore, ...]
    timing_ms: TimingMs


@dataclass(frozen=True)
class ClassifyReport:
    """How well each label fits the picture, in the order in which the labels were given."""

    variant: str
    results: tuple[LabelScore, ...]
    timing_ms: TimingMs


def label_texts(template: str, labels: Sequence[str]) -> list[str]:
    """What classify asks: each label in the template."""
    return [template.replace("{label}", label) for label in labels]


def similarities(image: Floats, texts: Floats) -> npt.NDArray[np.float64]:
    """Cosines float64 [N] of an image embedding [D] with text embeddings [N, D], all L2-normalised."""
    return texts.astype(np.float64) @ image.astype(np.float64)


def probabilities(similarity: npt.NDArray[np.float64], logit_scale: float) -> npt.NDArray[np.float64]:
    """`softmax(logit_scale * similarity)`, float64 [N]."""
    logits = logit_scale * similarity
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())
