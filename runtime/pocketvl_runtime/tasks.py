"""From embeddings to answers: similarities, probabilities, and the results that are handed out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.manifest import Activation

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


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


def similarities(image: Floats, texts: Floats) -> Doubles:
    """Cosines float64 [N] of an image embedding [D] with text embeddings [N, D], all L2-normalised."""
    return texts.astype(np.float64) @ image.astype(np.float64)


def probabilities(
    similarity: Doubles, scale: float, bias: float = 0.0, activation: Activation = Activation.SOFTMAX
) -> Doubles:
    """`activation(scale * similarity + bias)`, float64 [N]: shares that sum up to 1, or each by itself."""
    logits = scale * similarity + bias
    if activation is Activation.SIGMOID:
        return np.asarray(np.exp(-np.logaddexp(0, -logits)))
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())
