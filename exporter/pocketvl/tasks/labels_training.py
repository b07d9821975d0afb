"""How a component that scores a list of labels is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pocketvl.tasks.training import TrainingTask
from pocketvl.train.batches import SampleOrder, rows_of
from pocketvl.train.distil_losses import answer_response_loss
from pocketvl.train.loop import Losses
from pocketvl.train.samples import LabelSamples, TrainingSamples


@dataclass(frozen=True)
class LabelTraining(TrainingTask):
    """Questions about images, with their answers."""

    def rows(
        self, samples: TrainingSamples, names: tuple[str, ...], order: SampleOrder, step: int, negatives: int
    ) -> Mapping[str, NDArray[np.int64]]:
        return {name: order(samples.count(self.kinds(name)), step) for name in names}

    def labels(self, samples: TrainingSamples, rows: Mapping[str, NDArray[np.int64]]) -> torch.Tensor | None:
        assert isinstance(samples, LabelSamples)
        return rows_of(samples.labels, rows[self.components[0]])

    def response(
        self, outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        (name,) = self.components
        return answer_response_loss(outputs[name], targets[name], temperature)

    def label_losses(self, outputs: Mapping[str, torch.Tensor], labels: torch.Tensor | None) -> Losses:
        (name,) = self.components
        assert labels is not None
        return {"answer": F.cross_entropy(outputs[name], labels)}
