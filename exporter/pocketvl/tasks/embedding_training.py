"""How an encoder by itself is trained: by its teacher's embeddings alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.errors import RecipeError
from pocketvl.tasks.training import TrainingTask
from pocketvl.train.batches import SampleOrder
from pocketvl.train.loop import Losses
from pocketvl.train.samples import TrainingSamples


@dataclass(frozen=True)
class EmbeddingTraining(TrainingTask):
    """Images or texts of one component; its data has no labels to learn from."""

    def rows(
        self, samples: TrainingSamples, names: tuple[str, ...], order: SampleOrder, step: int, negatives: int
    ) -> Mapping[str, NDArray[np.int64]]:
        return {name: order(samples.count(self.kinds(name)), step) for name in names}

    def response(
        self, outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        raise RecipeError("an encoder by itself makes nothing of its embeddings: weigh losses.embedding")

    def label_losses(self, outputs: Mapping[str, torch.Tensor], labels: torch.Tensor | None) -> Losses:
        raise RecipeError("an encoder by itself has no labels to learn from")
