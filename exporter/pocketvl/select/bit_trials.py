"""Score choices of bits by simulation in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.network.integers import QuantizedComponent
from pocketvl.quantize.simulate import simulated
from pocketvl.select.search import Group, Widths
from pocketvl.tasks.base import Task, run_feed
from pocketvl.tasks.encoding import Feed
from pocketvl.tasks.outputs import Outputs
from pocketvl.tasks.torch_runner import TorchRunner

FLOAT = 32


@dataclass(frozen=True, eq=False)
class ComponentChoices:
    """One component, in the widths that its layers may have.

    Attributes:
        quantized: by bits, the component quantized to them.
        feed: what it is shown.
    """

    quantized: Mapping[int, QuantizedComponent]
    feed: Feed

    def mixed(self, widths: Mapping[str, int]) -> QuantizedComponent:
        """The component with these bits a layer; a layer of 32 bits stays in float."""
        return QuantizedComponent(
            {name: self.quantized[bits].layers[name] for name, bits in widths.items() if bits != FLOAT}
        )


class BitTrials:
    """Outputs of components with mixed bit widths, cached by the widths."""

    def __init__(
        self,
        groups: Sequence[Group],
        choices: Mapping[str, ComponentChoices],
        runner: TorchRunner,
        task: Task,
        dataset: Dataset,
    ) -> None:
        """Args: groups: of layers that share bits. choices: by component. runner: the components in float.
        task: what is asked of them. dataset: what is asked about."""
        self._groups, self._choices, self._runner = groups, choices, runner
        self._task, self._dataset, self._texts = task, dataset, task.texts(dataset)
        self._kept: dict[tuple[str, Widths], dict[str, NDArray[np.float32]]] = {}

    def score(self, widths: Widths) -> float:
        """The mean probability of the right answer, in [0, 1]."""
        return self._task.soft_score(self._dataset, self.outputs(widths))

    def outputs(self, widths: Widths) -> Outputs:
        """The components' outputs on the dataset."""
        arrays: dict[str, NDArray[np.float32]] = {}
        for component in self._choices:
            arrays |= self._run(component, widths)
        return Outputs(arrays, self._texts)

    def layer_widths(self, component: str, widths: Widths) -> dict[str, int]:
        """Bits by layer of one component."""
        return {
            layer: bits
            for group, bits in zip(self._groups, widths, strict=True)
            if group.component == component
            for layer in group.layers
        }

    def _run(self, component: str, widths: Widths) -> dict[str, NDArray[np.float32]]:
        chosen = zip(self._groups, widths, strict=True)
        mine = tuple(bits for group, bits in chosen if group.component == component)
        if (component, mine) not in self._kept:
            choices = self._choices[component]
            mixed = choices.mixed(self.layer_widths(component, widths))
            with simulated(self._runner.components[component].module, mixed):
                self._kept[component, mine] = run_feed(self._runner, choices.feed)
        return self._kept[component, mine]
