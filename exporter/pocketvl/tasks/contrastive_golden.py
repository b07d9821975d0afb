"""Golden cases of two embeddings: each image or sound, each text, and the former against texts and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.data.prompts import label_prompts
from pocketvl.families.base import TEXT
from pocketvl.tasks.golden import (
    GoldenCases,
    GoldenInputs,
    ManifestTasks,
    ShownAnswer,
    golden_array,
    largest_difference,
    rounded,
    rounded_up,
)
from pocketvl.tasks.outputs import Outputs, component_of
from pocketvl_runtime import manifest
from pocketvl_runtime.golden import AnswerTolerance, Golden, GoldenArray, Scores
from pocketvl_runtime.tasks import label_texts, probabilities, similarities

if TYPE_CHECKING:
    from pocketvl.tasks.base import Runner

MATCH, CLASSIFY = "match", "classify"
_SIMILARITY_MARGIN = 0.005
_EXACT_SIMILARITY_MARGIN = 1e-4
_SHOWN_TEXTS = 6


@dataclass(frozen=True)
class ContrastiveGolden(GoldenCases):
    """`match` holds each golden image or sound against all golden texts, `classify` against the labels.

    Attributes:
        first: the port of the images' or sounds' embeddings.
        second: the port of the texts' embeddings.
        scale: what cosines are multiplied by.
        bias: what is added then.
        activation: from logits to probabilities.
        modality: what is matched with texts; the processor has its name.
        second_scale: in place of `scale` where one text is held against several images or sounds.
    """

    first: str
    second: str
    scale: float
    bias: float = 0.0
    activation: manifest.Activation = manifest.Activation.SOFTMAX
    modality: manifest.Modality = manifest.Modality.IMAGE
    second_scale: float | None = None

    def texts(self, dataset: Dataset) -> tuple[str, ...]:
        return own_texts(dataset)

    def tasks(self, dataset: Dataset) -> dict[str, manifest.Task]:
        labels = tuple(sorted({s.label for s in dataset.samples if s.label}))
        scale = manifest.Scale(self.scale, self.scale if self.second_scale is None else self.second_scale)
        head = (self.first, self.second, scale, self.bias, self.activation)
        return {
            MATCH: manifest.ContrastiveTask(*head),
            CLASSIFY: manifest.ContrastiveTask(*head, labels=labels, template=dataset.templates[0]),
        }

    def outputs(self, runner: Runner, inputs: GoldenInputs, tasks: ManifestTasks) -> Outputs:
        from pocketvl.tasks.base import run_feed

        asked = [text for task in tasks.values() for text in _asked(_contrastive(task), inputs)]
        texts = tuple(dict.fromkeys([*inputs.texts, *asked]))
        encoder = runner.encoder
        seen = run_feed(runner, encoder.feed(component_of(self.first), media=inputs.media))
        read = run_feed(runner, encoder.feed(component_of(self.second), texts=texts))
        return Outputs({**seen, **read}, texts)

    def arrays(self, inputs: GoldenInputs, outputs: Outputs) -> dict[str, tuple[GoldenArray, ...]]:
        counts = {
            self.first: (self.modality.value, len(inputs.media)),
            self.second: (TEXT, len(inputs.texts)),
        }
        return {
            port: tuple(golden_array({name: k}, row) for k, row in enumerate(outputs[port][:count]))
            for port, (name, count) in counts.items()
        }

    def answers(
        self, inputs: GoldenInputs, outputs: Outputs, tasks: ManifestTasks
    ) -> dict[str, tuple[Scores, ...]]:
        rows = {text: row for row, text in enumerate(outputs.texts)}
        found = {}
        for name, task in tasks.items():
            contrastive = _contrastive(task)
            asked = [rows[text] for text in _asked(contrastive, inputs)]
            found[name] = self._scores(outputs[self.first], outputs[self.second][asked], contrastive)
        return found

    def answer_tolerance(
        self, expected: Sequence[Scores], found: Sequence[Scores], task: manifest.Task, is_exact: bool
    ) -> AnswerTolerance:
        """Twice what the scores were off, and a margin; probabilities follow from similarities.

        The slope of softmax and sigmoid is at most 1/4, and the logits of two texts move apart by at most
        twice the scale times what each similarity is off.
        """
        margin = _EXACT_SIMILARITY_MARGIN if is_exact else _SIMILARITY_MARGIN
        scale = _contrastive(task).scale.first
        pairs = list(zip(expected, found, strict=True))
        similarity = max((largest_difference(a.similarity, b.similarity) for a, b in pairs), default=0.0)
        probability = max((largest_difference(a.probability, b.probability) for a, b in pairs), default=0.0)
        return AnswerTolerance(
            rounded_up(min(2 * similarity + margin, 2.0)),
            rounded_up(min(2 * probability + scale * margin / 2, 1.0)),
        )

    def shown(self, golden: Golden, outputs: Outputs, tasks: ManifestTasks) -> tuple[ShownAnswer, ...]:
        """Each image's or sound's probabilities of the first golden texts."""
        texts = tuple(text.text for text in golden.texts[:_SHOWN_TEXTS])
        shown = outputs[self.second][: len(texts)]
        scores = self._scores(outputs[self.first], shown, _contrastive(tasks[MATCH]))
        return tuple(ShownAnswer(image, texts, each.probability) for image, each in enumerate(scores))

    def _scores(
        self, media: NDArray[np.float32], texts: NDArray[np.float32], task: manifest.ContrastiveTask
    ) -> tuple[Scores, ...]:
        """What a task says of each image or sound: embeddings [I, D] and [N, D] -> scores [N] of each."""
        rows = []
        for index, embedding in enumerate(media if len(texts) else ()):
            similarity = similarities(embedding, texts)
            probability = probabilities(similarity, task.scale.first, task.bias, task.activation)
            rows.append(Scores({self.modality.value: index}, rounded(probability), rounded(similarity)))
        return tuple(rows)


def own_texts(dataset: Dataset) -> tuple[str, ...]:
    """A dataset's first captions; where there are none, the labels in their template."""
    captions = dict.fromkeys(s.captions[0] for s in dataset.samples if s.captions)
    return tuple(captions or dict.fromkeys(label_prompts(dataset).values()))


def _contrastive(task: manifest.Task) -> manifest.ContrastiveTask:
    assert isinstance(task, manifest.ContrastiveTask), task.kind
    return task


def _asked(task: manifest.ContrastiveTask, inputs: GoldenInputs) -> Sequence[str]:
    """What the golden images or sounds are held against: the golden texts, or the labels."""
    return inputs.texts if task.template is None else label_texts(task.template, task.labels or ())
