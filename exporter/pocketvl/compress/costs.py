"""Costs of a module: parameters, multiply-adds, and bytes with 8-bit weights.

Torch is imported inside functions, so that costs which were measured before can be shown without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pocketvl.compress.settings import Measure

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint

_CHANNEL_BYTES = 16
"""Of an output channel in a file: its scale, its bias and its zero point."""

Example: TypeAlias = "torch.Tensor | tuple[torch.Tensor, ...]"


@dataclass(frozen=True)
class Cost:
    """Parameters, multiply-adds and bytes of a module or of a part of it.

    Attributes:
        parameters: numbers that were learned.
        macs: multiply-adds of one picture or one text in matrices, convolutions and attention.
        int8_bytes: of weights and tables in 8 bits with a scale a channel, everything else in 32; what a file
            adds to that for its graph is not in it.
    """

    parameters: int = 0
    macs: int = 0
    int8_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters, self.macs + other.macs, self.int8_bytes + other.int8_bytes
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters - other.parameters, self.macs - other.macs, self.int8_bytes - other.int8_bytes
        )

    def of(self, measure: Measure) -> int:
        """One of the three."""
        return int(getattr(self, measure.value))


def cost_of(module: nn.Module, example: Example) -> Cost:
    """Measure the cost of a module by running it once.

    Args:
        module: a component.
        example: its input of batch 1, or all of them.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(*_inputs(example))
    parameters = sum(each.numel() for each in module.parameters())
    return Cost(parameters, counter.get_total_flops() // 2, _int8_bytes(module))


def costs_of(checkpoint: Checkpoint) -> dict[str, Cost]:
    """The cost of each component of a checkpoint, by name."""
    from pocketvl.families.base import example_inputs

    return {
        name: cost_of(component.module, example_inputs(component))
        for name, component in checkpoint.components.items()
    }


def total_cost(checkpoint: Checkpoint) -> Cost:
    """The summed cost of all components of a checkpoint."""
    return sum(costs_of(checkpoint).values(), Cost())


def positions(module: nn.Module, example: Example) -> Mapping[str, int]:
    """The number of rows that each linear multiplies per sample, by its name.

    Args:
        module: a component.
        example: its input of batch 1, or all of them.
    """
    import torch
    from torch import nn

    seen: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_: object, given: tuple[torch.Tensor, ...]) -> None:
            seen.setdefault(name, given[0].numel() // given[0].shape[-1])

        return hook

    linears = [(name, child) for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    with ExitStack() as hooks, torch.no_grad():
        for name, child in linears:
            hooks.enter_context(child.register_forward_pre_hook(watch(name)))
        module(*_inputs(example))
    return seen


def _inputs(example: Example) -> tuple[torch.Tensor, ...]:
    return example if isinstance(example, tuple) else (example,)


def linear_cost(inputs: int, outputs: int, rows: int, bias: bool = True) -> Cost:
    """The cost of a linear of this shape, given its rows per sample."""
    weights = inputs * outputs
    return Cost(weights + outputs * bias, weights * rows, weights + outputs * _CHANNEL_BYTES)


def _int8_bytes(module: nn.Module) -> int:
    from torch import nn

    total, seen = 0, set()
    for child in module.modules():
        for name, parameter in child.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            layer = isinstance(child, nn.Linear | nn.Conv2d)
            if layer and name == "bias":
                continue  # among the channel's bytes
            if layer or (isinstance(child, nn.Embedding) and _is_looked_up(child)):
                total += parameter.numel() + len(parameter) * _CHANNEL_BYTES
            else:
                total += 4 * parameter.numel()
    return total


def _is_looked_up(table: nn.Embedding) -> bool:
    """Whether an embedding table is looked up by token, and not a table of position embeddings."""
    return table.num_embeddings > 256
