"""Components in torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pocketvl.families.base import Component
from pocketvl.tasks.encoding import Array, Encoder


@dataclass(frozen=True, eq=False)
class TorchRunner:
    """Components as torch computes them, on the device that each is on.

    Attributes:
        components: by name, in eval mode.
        encoder: what makes their inputs.
        name: for progress.
        batch: the most rows of one run.
    """

    components: Mapping[str, Component]
    encoder: Encoder
    name: str = "torch fp32"
    batch: int = 64

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of a component by port."""
        import torch

        known = self.components[component]
        device = next((p.device for p in known.module.parameters()), torch.device("cpu"))
        feed = [torch.from_numpy(inputs[port.name]).to(device) for port in known.inputs]
        with torch.inference_mode():
            found = known.module(*feed)
        rows = (found,) if isinstance(found, torch.Tensor) else found
        return {
            port.name: values.float().cpu().numpy() for port, values in zip(known.outputs, rows, strict=True)
        }
