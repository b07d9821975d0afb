"""Two embeddings in one space, and a second head that reads an image and a text together: it reranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.families.base import Contract
from pocketvl.tasks.base import Runner, run_feed, spread_evenly
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.encoding import Array, Encoder, Feed
from pocketvl.tasks.matching import Pair, itm_hard, log_odds, match_logits, pairs_of
from pocketvl.tasks.metrics import Metric, TaskOutcomes
from pocketvl.tasks.outputs import Outputs, component_of
from pocketvl.tasks.reranked_golden import RerankedGolden
from pocketvl_runtime.manifest import Activation
from pocketvl_runtime.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from pocketvl.families.checkpoint import Checkpoint

_MOST_PAIRS = 256
"""To calibrate with: hidden states of an image are some megabytes, and pairs of one image share them."""
_KEPT_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class RerankedTask(ContrastiveTask):
    """What a contrastive model is asked, and whether the second head tells true captions from hard negatives.

    Attributes:
        logits: the port of the second head's logits, "fusion.logits".
        hidden: what its component reads of an image, "image_encoder.hidden".
        positive_index: which logit says that image and text fit.
        match_activation: from logits to probabilities.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (*ContrastiveTask.metrics, Metric.ITM_HARD)

    logits: str
    hidden: str
    positive_index: int
    match_activation: Activation

    @classmethod
    def of(cls, contract: Contract, opened: Checkpoint | None = None) -> Self:
        """The task of a model with both heads; see `task_of`."""
        first, second = ContrastiveTask.of(contract, opened), contract.reranker
        assert second is not None
        return cls(
            **vars(first),
            logits=second.logits,
            hidden=second.hidden,
            positive_index=second.positive_index,
            match_activation=second.activation,
        )

    @property
    def golden(self) -> RerankedGolden:
        return RerankedGolden(**vars(self))

    @classmethod
    def calibration_feeds(
        cls, contract: Contract, encoder: Encoder, dataset: Dataset, most_texts: int
    ) -> tuple[Feed, ...]:
        """As of a contrastive model, and pairs with the float model's hidden states of their images."""
        feeds = super().calibration_feeds(contract, encoder, dataset, most_texts)
        pairs = pairs_of(dataset)
        chosen = [pairs[k] for k in spread_evenly(len(pairs), min(_MOST_PAIRS, most_texts))]
        return (*feeds, _pair_feed(contract, encoder, dataset, chosen))

    def outputs(
        self, runner: Runner, dataset: Dataset, progress: Progress | None = None, most: int | None = None
    ) -> Outputs:
        """As of any task, for all rows; an image is encoded once for its embedding and all of its pairs."""
        pairs, (images, texts) = pairs_of(dataset), self.feeds(runner.encoder, dataset)
        total = images.rows + texts.rows + len(pairs)
        read = run_feed(runner, texts, progress, 0, total)
        of_sample = {index: [*own] for index, own in groupby(pairs, lambda pair: pair.sample)}
        embedding, hidden = (port.partition(".")[2] for port in (self.first, self.hidden))
        seen: list[Array] = []
        logits: list[NDArray[np.float32]] = []
        for start in range(0, images.rows, runner.batch):
            stop = min(start + runner.batch, images.rows)
            found = runner.run(images.component, images.read(start, stop))
            seen.append(np.asarray(found[embedding], np.float32))
            own = [pair for index in range(start, stop) for pair in of_sample.get(index, ())]
            if own:
                rows = [pair.sample - start for pair in own]
                logits.append(
                    match_logits(runner, self.logits, found[hidden], rows, [pair.text for pair in own])
                )
            if progress is not None:
                done = texts.rows + stop + sum(map(len, logits))
                progress(done, total, f"running {runner.name}")
        arrays = {self.first: np.concatenate(seen), **read, self.logits: np.concatenate(logits)}
        return Outputs(arrays, self.texts(dataset))

    def measure(self, dataset: Dataset, outputs: Outputs) -> TaskOutcomes:
        found = super().measure(dataset, outputs)
        odds = log_odds(outputs[self.logits], self.positive_index, self.match_activation)
        matched = itm_hard(dataset, odds)
        tasks = {**found.tasks, Metric.ITM_HARD: matched} if matched.correct.size else found.tasks
        return TaskOutcomes(tasks, (*found.notes, *matched.notes))


def _pair_feed(contract: Contract, encoder: Encoder, dataset: Dataset, pairs: Sequence[Pair]) -> Feed:
    """Pairs for the component of the second head."""
    from pocketvl.families import open_checkpoint
    from pocketvl.tasks.torch_runner import TorchRunner

    second = contract.reranker
    assert second is not None
    before, _, port = second.hidden.partition(".")
    runner = TorchRunner({before: open_checkpoint(contract.folder).component(before)}, encoder)
    media = dataset.media(contract.modality)

    @lru_cache(maxsize=_KEPT_IMAGES)
    def seen(path: Path) -> Array:
        return runner.run(before, encoder.feed(before, media=[path]).read(0, 1))[port]

    def hidden(start: int, stop: int) -> Array:
        return np.concatenate([seen(media[pair.sample]) for pair in pairs[start:stop]])

    return encoder.feed(component_of(second.logits), texts=[pair.text for pair in pairs], hidden=hidden)
