"""One component that reads an image and a question, and gives logits of a fixed set of answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset, Question, questions_of
from pocketvl.errors import DataError
from pocketvl.families.base import Contract
from pocketvl.tasks.base import Task, spread_evenly
from pocketvl.tasks.encoding import Encoder, Feed
from pocketvl.tasks.labels_golden import LabelGolden
from pocketvl.tasks.metrics import Metric, TaskOutcome, TaskOutcomes
from pocketvl.tasks.outputs import Outputs, component_of
from pocketvl_runtime.manifest import Activation, PortKind
from pocketvl_runtime.tasks import activated

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint

_UNTYPED = "other"


@dataclass(frozen=True)
class LabelTask(Task):
    """`ask`: a dataset's own questions, overall and by type of question.

    Attributes:
        port: of the logits, "fusion.logits".
        labels: the answers, in the order of the logits.
        activation: from logits to probabilities.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (Metric.ASK,)

    port: str
    labels: tuple[str, ...]
    activation: Activation

    @classmethod
    def of(cls, contract: Contract, opened: Checkpoint | None = None) -> Self:
        """The task of a model with a label head; see `task_of`."""
        head = contract.label_head
        outputs = contract.components[head.component].outputs
        (logits,) = (port for port in outputs if port.kind is PortKind.CLASS_LOGITS)
        return cls(f"{head.component}.{logits.name}", head.labels, head.activation)

    @property
    def golden(self) -> LabelGolden:
        return LabelGolden(self.port, self.labels, self.activation)

    @classmethod
    def check(cls, dataset: Dataset) -> None:
        if len(_questions(dataset)) < 2:
            raise DataError(f"{dataset.root}: at least two questions are needed to compare answers")

    @classmethod
    def check_calibration(cls, dataset: Dataset) -> None:
        _questions(dataset)

    @classmethod
    def texts(cls, dataset: Dataset) -> tuple[str, ...]:
        """The questions, sample by sample."""
        return tuple(each.text for each in _questions(dataset))

    def feeds(self, encoder: Encoder, dataset: Dataset) -> tuple[Feed, ...]:
        return (_feed(encoder, dataset, component_of(self.port), _questions(dataset)),)

    @classmethod
    def calibration_feeds(
        cls, contract: Contract, encoder: Encoder, dataset: Dataset, most_texts: int
    ) -> tuple[Feed, ...]:
        """Questions, each with its image."""
        asked = _questions(dataset)
        chosen = [asked[k] for k in spread_evenly(len(asked), most_texts)]
        return (_feed(encoder, dataset, contract.label_head.component, chosen),)

    def measure(self, dataset: Dataset, outputs: Outputs) -> TaskOutcomes:
        """Whether each question's answer is right; one that the model does not know counts as missed."""
        asked, logits = self._answered(dataset, outputs)
        given = [self.labels[best] for best in logits.argmax(-1)]
        finite = np.isfinite(logits).all(-1)
        right = [each.answer for each in asked]
        correct = np.array([a == b for a, b in zip(given, right, strict=True)]) & finite
        types = [each.type or _UNTYPED for each in asked]
        rows = {kind: [row for row, own in enumerate(types) if own == kind] for kind in sorted(set(types))}
        outcome = TaskOutcome(
            Metric.ASK,
            correct,
            {kind: correct[chosen] for kind, chosen in rows.items()},
            {kind: _constant_rate([right[row] for row in chosen]) for kind, chosen in rows.items()},
        )
        unknown = sum(answer not in self.labels for answer in right)
        note = f"{unknown} questions have an answer that the model does not know; they count as missed"
        return TaskOutcomes({Metric.ASK: outcome}, (note,) if unknown else ())

    def soft_score(self, dataset: Dataset, outputs: Outputs) -> float:
        asked, logits = self._answered(dataset, outputs)
        index = {label: position for position, label in enumerate(self.labels)}
        probability = activated(logits, self.activation)
        found = [
            probability[row, index[each.answer]] if each.answer in index else 0.0
            for row, each in enumerate(asked)
        ]
        return float(np.mean(found))

    def _answered(
        self, dataset: Dataset, outputs: Outputs
    ) -> tuple[tuple[Question, ...], NDArray[np.float32]]:
        """The questions, and their logits float32 [questions, labels]."""
        asked, logits = _questions(dataset), outputs[self.port]
        if logits.shape != (len(asked), len(self.labels)):
            raise DataError(
                f"logits of shape {logits.shape} for {len(asked)} questions and {len(self.labels)} "
                f"answers; ask about {dataset.root} again"
            )
        return asked, logits


def _feed(encoder: Encoder, dataset: Dataset, component: str, asked: Sequence[Question]) -> Feed:
    images = [dataset.samples[each.sample].image for each in asked]
    return encoder.feed(component, images, [each.text for each in asked])


def _questions(dataset: Dataset) -> tuple[Question, ...]:
    asked = questions_of(dataset)
    if not asked:
        raise DataError(
            f"{dataset.root}: no sample has questions and answers, which this model is asked; add them to "
            'samples.jsonl as "qa": [{"question": "...", "answer": "..."}]'
        )
    return asked


def _constant_rate(right: Sequence[str]) -> float:
    """The rate of the one answer that is right most often."""
    return Counter(right).most_common(1)[0][1] / len(right)
