"""What training a component takes: seconds and bytes of activations a sample, measured on a small batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from pocketvl.families.base import example_inputs

if TYPE_CHECKING:
    from pocketvl.families.base import Component

_FEW, _BATCH, _RUNS = 1, 4, 3
_ADAMW_COPIES = 4
"""Of every weight: itself, its gradient, and AdamW's two moments."""


@dataclass(frozen=True)
class Effort:
    """What a component takes on this machine, of each sample unless it says otherwise.

    Attributes:
        forward_s: seconds to run it.
        back_s: seconds to run it, and back.
        step_s: seconds of each step, whatever its batch: a token table's gradient is as large as the table.
        activation_bytes: what a training step keeps of it until it goes back.
        weight_bytes: of the component, in float32; not a sample's.
    """

    forward_s: float
    back_s: float
    step_s: float
    activation_bytes: float
    weight_bytes: int

    def training_s(self, steps: int, batch_size: int) -> float:
        """The seconds of so many training steps."""
        return steps * (self.step_s + batch_size * self.back_s)

    def training_bytes(self, batch_size: int) -> float:
        """The memory of a training with AdamW, without what torch and the data take."""
        return _ADAMW_COPIES * self.weight_bytes + batch_size * self.activation_bytes


def effort_of(component: Component) -> Effort:
    """Measure a component by running it a few times, forward, and back."""
    module, examples = component.module, example_inputs(component)
    few, inputs = (
        tuple(each.repeat(batch, *(1 for _ in each.shape[1:])) for each in examples)
        for batch in (_FEW, _BATCH)
    )
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    parameters = {each.untyped_storage().data_ptr() for each in module.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _back(module, inputs)
    activations = sum(size for pointer, size in saved.items() if pointer not in parameters)
    short, long = (_seconds(_back, module, batch) for batch in (few, inputs))
    back_s = max(long - short, 0.0) / (_BATCH - _FEW)
    with torch.no_grad():
        forward_s = _seconds(module, *inputs) / _BATCH
    module.zero_grad(set_to_none=True)
    return Effort(
        forward_s=forward_s,
        back_s=back_s,
        step_s=max(short - _FEW * back_s, 0.0),
        activation_bytes=activations / _BATCH,
        weight_bytes=4 * sum(each.numel() for each in module.parameters()),
    )


def _back(module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    found = module(*inputs)
    (found if isinstance(found, torch.Tensor) else found[0]).sum().backward()


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    """The least of a few runs: other programs can only lengthen one."""
    times = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        work(*arguments)
        times.append(time.perf_counter() - begin)
    return min(times)
