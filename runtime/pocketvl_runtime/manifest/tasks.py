"""Tasks: what a model can be asked, and how an answer follows from what its graphs give."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from pocketvl_runtime.errors import BundleError, quoted
from pocketvl_runtime.manifest.names import MAX_TOKEN_ID
from pocketvl_runtime.schema import OPTIONAL

_MAX_TEMPLATE_CHARS = 1_000
_MAX_LABEL_CHARS = 1_000
_MAX_LABELS_CHARS = 4_000_000  # of all labels, each in the template
_MAX_SCALE = 1e9
LABEL_SLOT = "{label}"


class Activation(StrEnum):
    """From logits to probabilities: shares of one among all, or each by itself."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


@dataclass(frozen=True)
class Scale:
    """What cosines are multiplied by: of one `first` with several `second`, and of one `second`."""

    first: float
    second: float

    def __post_init__(self) -> None:
        for value in (self.first, self.second):
            if not 0 < value <= _MAX_SCALE:
                raise BundleError(f"scale {value} must be above 0, at most {_MAX_SCALE:g}")


@dataclass(frozen=True)
class ContrastiveTask:
    """Two embeddings of one space: `activation(scale * cosine + bias)`.

    Attributes:
        first, second: embeddings, "component.port".
        labels, template: where given, each label stands in the template, and those texts are the `second`.
    """

    first: str
    second: str
    scale: Scale
    bias: float
    activation: Activation
    labels: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    template: str | None = field(default=None, metadata=OPTIONAL)
    kind: Literal["contrastive"] = "contrastive"

    def __post_init__(self) -> None:
        if abs(self.bias) > _MAX_SCALE:
            raise BundleError(f"bias {self.bias} must be between -{_MAX_SCALE:g} and {_MAX_SCALE:g}")
        if (self.labels is None) != (self.template is None):
            raise BundleError("labels and template go together")
        if self.labels is not None and self.template is not None:
            _check_template(self.labels, self.template)


@dataclass(frozen=True)
class LabelsTask:
    """One graph that scores a fixed list of answers, as for questions about a picture.

    Attributes:
        logits: class logits, "component.port"; number i is of `labels[i]`.
    """

    logits: str
    labels: tuple[str, ...]
    activation: Activation
    kind: Literal["labels"] = "labels"

    def __post_init__(self) -> None:
        if not self.labels:
            raise BundleError("labels is empty")
        _check_labels(self.labels)


@dataclass(frozen=True)
class EmbedTask:
    """An encoder by itself: what is asked for is its embedding.

    Attributes:
        embedding: "component.port".
    """

    embedding: str
    kind: Literal["embed"] = "embed"


@dataclass(frozen=True)
class MatchTask:
    """A graph that reads a picture and a text together and says whether they fit: it reranks.

    Attributes:
        logits: class logits, "component.port".
        positive_index: which logit says that they fit.
        reranks: the contrastive task whose best answers it is asked about.
    """

    logits: str
    positive_index: int
    activation: Activation
    reranks: str | None = field(default=None, metadata=OPTIONAL)
    kind: Literal["match"] = "match"


@dataclass(frozen=True)
class Prefill:
    """A component that reads `length` tokens of the prompt at once."""

    component: str
    length: int


@dataclass(frozen=True)
class ImageToken:
    """The token that stands where the picture does, and how many of it one picture takes."""

    id: int
    text: str
    count: int


@dataclass(frozen=True)
class GenerateTask:
    """A decoder that writes an answer, token by token.

    Attributes:
        vision: the component that reads pixels.
        connector: the component that turns what that gives into embeddings of tokens; None: `vision` does.
        embed: the component that looks up the embeddings of ids.
        prefill: components that read a prompt, by rising length; the shortest that holds it is taken.
        step: the component that reads one token.
        logits: what the next token is chosen by, "component.port" of `step`.
        cache_length: how many tokens, prompt and answer, the caches hold.
        max_new_tokens: where an answer ends at the latest.
        stop_ids: an answer ends before one of them.
    """

    vision: str
    embed: str
    prefill: tuple[Prefill, ...]
    step: str
    logits: str
    image_token: ImageToken
    cache_length: int
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    connector: str | None = field(default=None, metadata=OPTIONAL)
    kind: Literal["generate"] = "generate"

    def __post_init__(self) -> None:
        if not self.prefill or any(each.length < 1 for each in self.prefill):
            raise BundleError("prefill must name components with lengths of at least 1")
        ids = (self.image_token.id, *self.stop_ids)
        if not all(0 <= each <= MAX_TOKEN_ID for each in ids):
            raise BundleError(f"ids {quoted(list(ids))} must be 0 to {MAX_TOKEN_ID}")
        if min(self.image_token.count, self.cache_length, self.max_new_tokens) < 1:
            raise BundleError("image_token.count, cache_length and max_new_tokens must be at least 1")


Task: TypeAlias = ContrastiveTask | LabelsTask | EmbedTask | MatchTask | GenerateTask


def _check_labels(labels: tuple[str, ...]) -> None:
    if any(len(label) > _MAX_LABEL_CHARS for label in labels):
        raise BundleError(f"labels: one has more than {_MAX_LABEL_CHARS} characters")


def _check_template(labels: tuple[str, ...], template: str) -> None:
    """Refuses labels that would fill the memory: whoever asks for none of his own is asking for these."""
    if LABEL_SLOT not in template:
        raise BundleError(f"template must hold {LABEL_SLOT}")
    if len(template) > _MAX_TEMPLATE_CHARS:
        raise BundleError(f"template has more than {_MAX_TEMPLATE_CHARS} characters")
    _check_labels(labels)
    chars = len(labels) * len(template) + template.count(LABEL_SLOT) * sum(map(len, labels))
    if chars > _MAX_LABELS_CHARS:
        raise BundleError(
            f"labels: {len(labels)} in the template have {chars} characters, "
            f"and at most {_MAX_LABELS_CHARS} are read"
        )
