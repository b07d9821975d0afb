"""Golden cases of a contrastive model with a second head: each golden text with one of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pocketvl.data.dataset import Dataset
from pocketvl.families.base import TEXT
from pocketvl.tasks.contrastive_golden import MATCH, ContrastiveGolden
from pocketvl.tasks.golden import (
    GoldenInputs,
    ManifestTasks,
    golden_array,
    pair_tolerance,
    rounded,
)
from pocketvl.tasks.matching import match_logits
from pocketvl.tasks.outputs import Outputs
from pocketvl_runtime import manifest
from pocketvl_runtime.golden import AnswerTolerance, GoldenArray, Scores
from pocketvl_runtime.tasks import activated

if TYPE_CHECKING:
    from pocketvl.tasks.base import Runner

RERANK = "rerank"


@dataclass(frozen=True, kw_only=True)
class RerankedGolden(ContrastiveGolden):
    """`rerank` puts text k to image k; what there are fewer of is taken from the first again.

    Attributes:
        logits: the port of the second head's logits, "fusion.logits".
        hidden: what its component reads of an image, "image_encoder.hidden".
        positive_index: which logit says that image and text fit.
        match_activation: from logits to probabilities.
    """

    logits: str
    hidden: str
    positive_index: int
    match_activation: manifest.Activation

    def tasks(self, dataset: Dataset) -> dict[str, manifest.Task]:
        second = manifest.MatchTask(self.logits, self.positive_index, self.match_activation, MATCH)
        return {**super().tasks(dataset), RERANK: second}

    def outputs(self, runner: Runner, inputs: GoldenInputs, tasks: ManifestTasks) -> Outputs:
        found = super().outputs(runner, inputs, _contrastive(tasks))
        arrays = dict(found.arrays)
        hidden = arrays.pop(self.hidden)
        pairs = self._pairs(inputs)
        rows = [pair[self.modality.value] for pair in pairs]
        texts = [inputs.texts[pair[TEXT]] for pair in pairs]
        arrays[self.logits] = match_logits(runner, self.logits, hidden, rows, texts)
        return Outputs(arrays, found.texts)

    def arrays(self, inputs: GoldenInputs, outputs: Outputs) -> dict[str, tuple[GoldenArray, ...]]:
        rows = zip(self._pairs(inputs), outputs[self.logits], strict=True)
        logits = tuple(golden_array(pair, row) for pair, row in rows)
        return {**super().arrays(inputs, outputs), self.logits: logits}

    def answers(
        self, inputs: GoldenInputs, outputs: Outputs, tasks: ManifestTasks
    ) -> dict[str, tuple[Scores, ...]]:
        found = super().answers(inputs, outputs, _contrastive(tasks))
        fits = activated(outputs[self.logits], self.match_activation)[:, self.positive_index, None]
        scores = tuple(
            Scores(pair, rounded(row)) for pair, row in zip(self._pairs(inputs), fits, strict=True)
        )
        return {**found, **{name: scores for name in tasks if name not in found}}

    def answer_tolerance(
        self, expected: Sequence[Scores], found: Sequence[Scores], task: manifest.Task, is_exact: bool
    ) -> AnswerTolerance:
        if isinstance(task, manifest.MatchTask):
            return pair_tolerance(expected, found, is_exact)
        return super().answer_tolerance(expected, found, task, is_exact)

    def _pairs(self, inputs: GoldenInputs) -> list[dict[str, int]]:
        media, texts = len(inputs.media), len(inputs.texts)
        return [{self.modality.value: k % media, TEXT: k % texts} for k in range(max(media, texts))]


def _contrastive(tasks: ManifestTasks) -> ManifestTasks:
    return {name: task for name, task in tasks.items() if isinstance(task, manifest.ContrastiveTask)}
