"""How two embeddings of one space are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.tasks.training import TrainingTask
from pocketvl.train.batches import SampleOrder
from pocketvl.train.contrast import contrastive_loss, pairwise_loss, sigmoid_loss
from pocketvl.train.distil_losses import affinity_loss, sigmoid_affinity_loss
from pocketvl.train.loop import Losses
from pocketvl.train.samples import PairSamples, TrainingSamples
from pocketvl_runtime.manifest import Activation


@dataclass(frozen=True)
class ContrastiveTraining(TrainingTask):
    """Images with their captions and hard negatives, or one component by itself.

    The components are the one that embeds images, then the one that embeds texts.

    Attributes:
        logit_scale: what a cosine is multiplied by.
        logit_bias: what is added then.
        activation: from logits to probabilities.
    """

    logit_scale: float
    logit_bias: float = 0.0
    activation: Activation = Activation.SOFTMAX

    def rows(
        self, samples: TrainingSamples, names: tuple[str, ...], order: SampleOrder, step: int, negatives: int
    ) -> Mapping[str, NDArray[np.int64]]:
        if names != self.components:
            return {name: order(samples.count(self.kinds(name)), step) for name in names}
        assert isinstance(samples, PairSamples)
        images, texts = paired_rows(samples, order, step, negatives)
        return dict(zip(names, (images, texts), strict=True))

    def labels(self, samples: TrainingSamples, rows: Mapping[str, NDArray[np.int64]]) -> torch.Tensor | None:
        """Of the images of a step, int64 [B], equal numbers where captions are equal; None: no two are."""
        if tuple(rows) != self.components:
            return None
        images, texts = rows.values()
        captions = samples.ids[texts[: len(images)]]
        found, groups = np.unique(captions, axis=0, return_inverse=True)
        return None if len(found) == len(captions) else torch.from_numpy(groups.reshape(-1))

    def response(
        self, outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor], temperature: float
    ) -> torch.Tensor:
        first, second = self.components
        pairs = ((outputs[first], outputs[second]), (targets[first], targets[second]))
        if self.activation is Activation.SIGMOID:
            return sigmoid_affinity_loss(*pairs, self.logit_scale, self.logit_bias, temperature)
        return affinity_loss(*pairs, self.logit_scale, temperature)

    def label_losses(self, outputs: Mapping[str, torch.Tensor], labels: torch.Tensor | None) -> Losses:
        image, text = (outputs[name] for name in self.components)
        grouped = text.view(-1, *image.shape).transpose(0, 1)  # [B, 1 + K, D]
        scale = torch.tensor(self.logit_scale, device=image.device)
        if self.activation is Activation.SIGMOID:
            losses = {"contrast": sigmoid_loss(image, grouped, scale, self.logit_bias, labels)}
        else:
            losses = {"contrast": contrastive_loss(image, grouped, scale, labels)}
        if grouped.shape[1] > 1:
            losses["pairwise"] = pairwise_loss(image, grouped, scale)
        return losses


def paired_rows(
    samples: PairSamples, order: SampleOrder, step: int, negatives: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images of a step [B], and their texts [(1 + K) B]: captions, then K times a hard negative each."""
    images = order(len(samples.images), step)
    random = np.random.default_rng([order.seed, step, 1])
    captions = [samples.index[int(row)][0] for row in images]
    false: list[int] = []
    for _ in range(negatives):
        for row in images:
            caption, *others = samples.index[int(row)]
            if others:
                false.append(others[int(random.integers(len(others)))])
            else:  # any text but the caption
                drawn = int(random.integers(len(samples.ids) - 1))
                false.append(drawn + (drawn >= caption))
    return images, np.array(captions + false)
