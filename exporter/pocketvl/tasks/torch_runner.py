"""Components in torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pocketvl.families.base import Component
from pocketvl.network.ports import token_input
from pocketvl.tasks.encoding import Array, Encoder
from pocketvl.threads import one_torch_thread

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class TorchRunner:
    """Components as torch computes them, on the device that each is on.

    Attributes:
        components: by name, in eval mode.
        encoder: what makes their inputs.
        name: for progress.
        batch: the most rows of one run.
        padded: whether texts are computed whole. A float component gives the same, up to the order of sums,
            for no more tokens than it reads; ranges of a whole text, as simulated integers take, do not.
    """

    components: Mapping[str, Component]
    encoder: Encoder
    name: str = "torch fp32"
    batch: int = 64
    padded: bool = True

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of a component by port."""
        from pocketvl.families.batches import batches, cut, reads_texts_alone

        known = self.components[component]
        given = [inputs[port.name] for port in known.inputs]
        texts = None if self.padded else token_input(known.inputs)
        ids = None if texts is None else given[texts]
        parts, order = [], []
        with one_torch_thread() if texts is not None and reads_texts_alone(known) else nullcontext():
            for rows, length in batches(known.module, ids, len(given[0]), self.batch):
                parts.append(_run(known.module, cut([values[rows] for values in given], texts, length)))
                order.append(rows)
        back = np.argsort(np.concatenate(order))
        return {
            port.name: np.concatenate(values)[back]
            for port, values in zip(known.outputs, zip(*parts, strict=True), strict=True)
        }


def _run(module: nn.Module, inputs: Iterable[Array]) -> list[Array]:
    """All outputs of a module, in float32."""
    import torch

    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        found = module(*(torch.from_numpy(values).to(device) for values in inputs))
    return [
        values.float().cpu().numpy() for values in ((found,) if isinstance(found, torch.Tensor) else found)
    ]
