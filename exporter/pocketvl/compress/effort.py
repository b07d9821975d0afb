"""What training a component takes: seconds and bytes of activations a sample, measured on a small batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import nn

from pocketvl.families.base import example_inputs

if TYPE_CHECKING:
    from pocketvl.families.base import Component

_BATCH, _RUNS = 4, 3
_ADAMW_COPIES = 4
"""Of every weight: itself, its gradient, and AdamW's two moments."""


@dataclass(frozen=True)
class Effort:
    """What one sample of a component takes on this machine.

    Attributes:
        forward_s: seconds to run it.
        step_s: seconds to run it, and back.
        activation_bytes: what a training step keeps of it until it goes back.
        weight_bytes: of the component, in float32; not a sample's.
    """

    forward_s: float
    step_s: float
    activation_bytes: float
    weight_bytes: int

    def training_bytes(self, batch_size: int) -> float:
        """The memory of a training with AdamW, without what torch and the data take."""
        return _ADAMW_COPIES * self.weight_bytes + batch_size * self.activation_bytes


def effort_of(component: Component) -> Effort:
    """Measure a component by running it a few times, forward, and back."""
    module = component.module
    inputs = tuple(each.repeat(_BATCH, *(1 for _ in each.shape[1:])) for each in example_inputs(component))
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    parameters = {each.untyped_storage().data_ptr() for each in module.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _back(module, inputs)
    activations = sum(size for pointer, size in saved.items() if pointer not in parameters)
    steps = [_seconds(lambda: _back(module, inputs)) for _ in range(_RUNS)]
    with torch.no_grad():
        forwards = [_seconds(lambda: module(*inputs)) for _ in range(_RUNS)]
    module.zero_grad(set_to_none=True)
    return Effort(
        forward_s=median(forwards) / _BATCH,
        step_s=median(steps) / _BATCH,
        activation_bytes=activations / _BATCH,
        weight_bytes=4 * sum(each.numel() for each in module.parameters()),
    )


def _back(module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    found = module(*inputs)
    (found if isinstance(found, torch.Tensor) else found[0]).sum().backward()


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
