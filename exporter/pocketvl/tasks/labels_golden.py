"""Golden cases of a fixed set of answers: each golden text is asked about one of the golden images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pocketvl.data.dataset import Dataset, questions_of
from pocketvl.families.base import IMAGE, TEXT
from pocketvl.tasks.golden import (
    GoldenCases,
    GoldenInputs,
    ManifestTasks,
    ShownAnswer,
    golden_array,
    pair_tolerance,
    rounded,
)
from pocketvl.tasks.outputs import Outputs, component_of
from pocketvl_runtime import manifest
from pocketvl_runtime.golden import AnswerTolerance, Golden, GoldenArray, Scores
from pocketvl_runtime.tasks import activated

if TYPE_CHECKING:
    from pocketvl.tasks.base import Runner

ASK = "ask"
_SHOWN_ANSWERS = 6


@dataclass(frozen=True)
class LabelGolden(GoldenCases):
    """`ask` puts text k to image k; what there are fewer of is taken from the first again.

    Attributes:
        port: of the logits, "fusion.logits".
        labels: the answers, in the order of the logits.
        activation: from logits to probabilities.
    """

    port: str
    labels: tuple[str, ...]
    activation: manifest.Activation

    def texts(self, dataset: Dataset) -> tuple[str, ...]:
        """The questions."""
        return tuple(dict.fromkeys(each.text for each in questions_of(dataset)))

    def tasks(self, dataset: Dataset) -> dict[str, manifest.Task]:
        return {ASK: manifest.LabelsTask(self.port, self.labels, self.activation)}

    def outputs(self, runner: Runner, inputs: GoldenInputs, tasks: ManifestTasks) -> Outputs:
        from pocketvl.tasks.base import run_feed

        pairs = _pairs(len(inputs.media), len(inputs.texts))
        images = [inputs.media[pair[IMAGE]] for pair in pairs]
        texts = [inputs.texts[pair[TEXT]] for pair in pairs]
        feed = runner.encoder.feed(component_of(self.port), images, texts)
        return Outputs(run_feed(runner, feed), tuple(texts))

    def arrays(self, inputs: GoldenInputs, outputs: Outputs) -> dict[str, tuple[GoldenArray, ...]]:
        pairs = _pairs(len(inputs.media), len(inputs.texts))
        rows = zip(pairs, outputs[self.port], strict=True)
        return {self.port: tuple(golden_array(pair, row) for pair, row in rows)}

    def answers(
        self, inputs: GoldenInputs, outputs: Outputs, tasks: ManifestTasks
    ) -> dict[str, tuple[Scores, ...]]:
        pairs = _pairs(len(inputs.media), len(inputs.texts))
        found = []
        for pair, row in zip(pairs, activated(outputs[self.port], self.activation), strict=True):
            probability = rounded(row)
            found.append(Scores(pair, probability, answer=self.labels[int(np.argmax(probability))]))
        return dict.fromkeys(tasks, tuple(found))

    def answer_tolerance(
        self, expected: Sequence[Scores], found: Sequence[Scores], task: manifest.Task, is_exact: bool
    ) -> AnswerTolerance:
        return pair_tolerance(expected, found, is_exact)

    def shown(self, golden: Golden, outputs: Outputs, tasks: ManifestTasks) -> tuple[ShownAnswer, ...]:
        """Each image's first question with the answers that torch finds likeliest."""
        found = []
        probability = activated(outputs[self.port], self.activation)
        of_images = slice(0, len(golden.images))  # the first pairs are of one image each
        answers = (golden.answers or {})[ASK][of_images]
        for expected, row in zip(answers, probability[of_images], strict=True):
            likeliest = np.argsort(expected.probability)[::-1][:_SHOWN_ANSWERS]
            question = golden.texts[expected.inputs[TEXT]].text
            texts = tuple(f"{question} {self.labels[index]}" for index in likeliest)
            found.append(ShownAnswer(expected.inputs[IMAGE], texts, tuple(row[likeliest].tolist())))
        return tuple(found)


def _pairs(images: int, texts: int) -> list[dict[str, int]]:
    return [{IMAGE: k % images, TEXT: k % texts} for k in range(max(images, texts))]
