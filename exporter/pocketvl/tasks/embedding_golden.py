"""Golden cases of an encoder by itself: the embedding of each golden input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pocketvl.data.dataset import Dataset
from pocketvl.families.base import IMAGE, TEXT
from pocketvl.tasks.contrastive_golden import own_texts
from pocketvl.tasks.golden import GoldenCases, GoldenInputs, ManifestTasks, ShownAnswer, golden_array
from pocketvl.tasks.outputs import Outputs, component_of
from pocketvl_runtime import manifest
from pocketvl_runtime.golden import AnswerTolerance, Golden, GoldenArray, Scores

if TYPE_CHECKING:
    from pocketvl.tasks.base import Runner

EMBED = "embed"


@dataclass(frozen=True)
class EmbeddingGolden(GoldenCases):
    """`embed` has no answers beside its outputs.

    Attributes:
        port: of the embedding.
        processor: what its component reads, "image" or "text".
    """

    port: str
    processor: str

    def texts(self, dataset: Dataset) -> tuple[str, ...]:
        """The first captions, or labels in their template; of an image encoder none."""
        return own_texts(dataset) if self.processor == TEXT else ()

    def tasks(self, dataset: Dataset) -> dict[str, manifest.Task]:
        return {EMBED: manifest.EmbedTask(self.port)}

    def outputs(self, runner: Runner, inputs: GoldenInputs, tasks: ManifestTasks) -> Outputs:
        from pocketvl.tasks.base import run_feed

        media = inputs.media if self.processor == IMAGE else ()
        texts = inputs.texts if self.processor == TEXT else ()
        feed = runner.encoder.feed(component_of(self.port), media=media, texts=texts)
        return Outputs(run_feed(runner, feed), tuple(texts))

    def arrays(self, inputs: GoldenInputs, outputs: Outputs) -> dict[str, tuple[GoldenArray, ...]]:
        rows = enumerate(outputs[self.port])
        return {self.port: tuple(golden_array({self.processor: k}, row) for k, row in rows)}

    def answers(
        self, inputs: GoldenInputs, outputs: Outputs, tasks: ManifestTasks
    ) -> dict[str, tuple[Scores, ...]]:
        """There are none."""
        return {}

    def answer_tolerance(
        self, expected: Sequence[Scores], found: Sequence[Scores], task: manifest.Task, is_exact: bool
    ) -> AnswerTolerance:
        """Of no answers."""
        return AnswerTolerance(0.0, 0.0)

    def shown(self, golden: Golden, outputs: Outputs, tasks: ManifestTasks) -> tuple[ShownAnswer, ...]:
        """Embeddings are nothing to look at."""
        return ()
