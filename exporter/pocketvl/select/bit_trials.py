"""What a choice of bits makes of two towers' answers, by simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.data.dataset import Dataset
from pocketvl.evaluate.embeddings import Embeddings
from pocketvl.evaluate.soft import soft_accuracy
from pocketvl.network.integers import QuantizedTower
from pocketvl.quantize.simulate import simulated
from pocketvl.select.search import Group, Widths
from pocketvl_runtime.manifest import Role

FLOAT = 32
_BATCH = 100


@dataclass(frozen=True, eq=False)
class TowerChoices:
    """One tower, in the widths that its layers may have.

    Attributes:
        module: in float.
        towers: by bits, the tower quantized to them.
        inputs: [N, ...], what it is shown: pixels or ids.
    """

    module: nn.Module
    towers: Mapping[int, QuantizedTower]
    inputs: NDArray[np.generic]

    def mixed(self, widths: Mapping[str, int]) -> QuantizedTower:
        """The tower with these bits a layer; a layer of 32 bits stays in float."""
        return QuantizedTower(
            {name: self.towers[bits].layers[name] for name, bits in widths.items() if bits != FLOAT}
        )


class BitTrials:
    """Answers of two towers whose layers have any of several widths; embeddings are kept by those."""

    def __init__(
        self,
        groups: Sequence[Group],
        choices: Mapping[Role, TowerChoices],
        dataset: Dataset,
        texts: Sequence[str],
        logit_scale: float,
    ) -> None:
        self._groups, self._choices = groups, choices
        self._dataset, self._texts, self._scale = dataset, tuple(texts), logit_scale
        self._kept: dict[tuple[Role, Widths], NDArray[np.float32]] = {}

    def score(self, widths: Widths) -> float:
        """The mean probability of the right answer, in [0, 1]."""
        return soft_accuracy(self._dataset, self.embeddings(widths), self._scale)

    def embeddings(self, widths: Widths) -> Embeddings:
        """What the towers make of the dataset."""
        image, text = (self._embed(role, widths) for role in (Role.IMAGE_ENCODER, Role.TEXT_ENCODER))
        return Embeddings(image, text, self._texts)

    def layer_widths(self, role: Role, widths: Widths) -> dict[str, int]:
        """Bits by layer of one tower."""
        return {
            layer: bits
            for group, bits in zip(self._groups, widths, strict=True)
            if group.role is role
            for layer in group.layers
        }

    def _embed(self, role: Role, widths: Widths) -> NDArray[np.float32]:
        mine = tuple(bits for group, bits in zip(self._groups, widths, strict=True) if group.role is role)
        if (role, mine) not in self._kept:
            choices = self._choices[role]
            tower = choices.mixed(self.layer_widths(role, widths))
            with torch.inference_mode(), simulated(choices.module, tower):
                rows = [
                    choices.module(torch.from_numpy(choices.inputs[start : start + _BATCH]))
                    for start in range(0, len(choices.inputs), _BATCH)
                ]
            self._kept[role, mine] = torch.cat(rows).numpy()
        return self._kept[role, mine]
