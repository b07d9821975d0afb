"""From embeddings to answers: similarities, probabilities, and the results that are handed out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.manifest import Activation, MatchTask

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TextScore:
    """One text: cosine similarity to the picture or sound, and its share among all texts given."""

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
    """Milliseconds of one answer; `tokens`: the tokenizer; `post`: similarities and probabilities."""

    decode: float
    preprocess: float
    tokens: float
    image: float
    text: float
    post: float
    total: float


@dataclass(frozen=True)
class AudioTimingMs:
    """Milliseconds of one answer about a sound; as `TimingMs`, with `audio` in place of `image`."""

    decode: float
    preprocess: float
    tokens: float
    audio: float
    text: float
    post: float
    total: float


@dataclass(frozen=True)
class MatchReport:
    """How well each text fits the picture or sound, in the order in which the texts were given."""

    variant: str
    results: tuple[TextScore, ...]
    timing_ms: TimingMs | AudioTimingMs


@dataclass(frozen=True)
class ClassifyReport:
    """How well each label fits the picture or sound, in the order in which the labels were given."""

    variant: str
    results: tuple[LabelScore, ...]
    timing_ms: TimingMs | AudioTimingMs


@dataclass(frozen=True)
class FittingText:
    """One text that a picture or sound and it were read together of.

    Attributes:
        text: as it was given.
        probability: that the two fit; of each text by itself, so that several may be near 1, or none.
        similarity: its cosine in the task that is reranked; None where all texts were read with the picture.
    """

    text: str
    probability: float
    similarity: float | None = None


@dataclass(frozen=True)
class RerankTimingMs:
    """Milliseconds of one picture or sound and its texts.

    `image` is what gives hidden states and embedding, of a sound too; `text` the embeddings of texts, 0 where
    none were compared; `fusion` what reads picture and text together.
    """

    decode: float
    preprocess: float
    tokens: float
    image: float
    text: float
    fusion: float
    post: float
    total: float


@dataclass(frozen=True)
class RerankReport:
    """The texts that were read together with a picture or sound, the likeliest to fit first."""

    variant: str
    results: tuple[FittingText, ...]
    timing_ms: RerankTimingMs


@dataclass(frozen=True)
class ScoredAnswer:
    """One of the answers that a model knows, and its probability."""

    answer: str
    probability: float


@dataclass(frozen=True)
class QuestionAnswers:
    """A question with its likeliest answers, the likeliest first."""

    question: str
    answers: tuple[ScoredAnswer, ...]


@dataclass(frozen=True)
class AskTimingMs:
    """Milliseconds of one picture's questions; `fusion`: what reads both; `post`: probabilities, sorting."""

    decode: float
    preprocess: float
    tokens: float
    fusion: float
    post: float
    total: float


@dataclass(frozen=True)
class AskReport:
    """Answers to questions about one picture, in the order in which the questions were given."""

    variant: str
    results: tuple[QuestionAnswers, ...]
    timing_ms: AskTimingMs


def label_texts(template: str, labels: Sequence[str]) -> list[str]:
    """What classify asks: each label in the template."""
    return [template.replace("{label}", label) for label in labels]


def similarities(image: Floats, texts: npt.NDArray[np.floating]) -> Doubles:
    """Cosines float64 [N] of an image embedding [D] with text embeddings [N, D], all L2-normalised."""
    return texts.astype(np.float64) @ image.astype(np.float64)


def probabilities(
    similarity: Doubles, scale: float, bias: float = 0.0, activation: Activation = Activation.SOFTMAX
) -> Doubles:
    """`activation(scale * similarity + bias)`, float64 [N]: shares that sum up to 1, or each by itself."""
    return activated(scale * similarity + bias, activation)


def activated(logits: npt.NDArray[np.floating], activation: Activation) -> Doubles:
    """Probabilities float64 [..., N] of logits: shares that sum up to 1, or each by itself."""
    wide = logits.astype(np.float64)
    if activation is Activation.SIGMOID:
        return np.asarray(np.exp(-np.logaddexp(0, -wide)))
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def fit_probabilities(logits: npt.NDArray[np.floating], task: MatchTask) -> Doubles:
    """That pictures and texts fit, float64 [N], of a match task's logits [N, L].

    Raises:
        BackendError: there are fewer than the task speaks of, as in a variant that gives others.
    """
    if logits.shape[-1] <= task.positive_index:
        raise BackendError(
            f"{task.logits} are {logits.shape[-1]}, and number {task.positive_index} says whether a text "
            "fits; use another variant"
        )
    return activated(logits, task.activation)[:, task.positive_index]


def ranked_answers(labels: Sequence[str], probability: Doubles, top: int) -> tuple[ScoredAnswer, ...]:
    """The `top` likeliest of labels [N], by probabilities [N]; of equal ones the first comes first."""
    order = np.argsort(-probability, kind="stable")[:top]
    return tuple(ScoredAnswer(labels[index], float(probability[index])) for index in order)
