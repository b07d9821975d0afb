"""The structure of a module that quantization needs: its final linear and its token tables."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn

from pocketvl.families.layers.plain import first_output
from pocketvl.observe.calibrate import LAYERS

_EMBEDDING = torch.ops.aten.embedding.default


def token_tables(module: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[str, ...]:
    """Names of the `nn.Embedding`s that are looked up by what comes in, not by constant positions."""
    program = torch.export.export(module, _inputs(example))
    signature = program.graph_signature
    inputs = set(signature.user_inputs)
    lookups = (node for node in program.graph.nodes if node.target is _EMBEDDING)
    tables = (node.args[0].name for node in lookups if _reads(node.args[1], inputs))
    return tuple(
        dict.fromkeys(signature.inputs_to_parameters[name].removesuffix(".weight") for name in tables)
    )


def final_linear(module: nn.Module, example: torch.Tensor | tuple[torch.Tensor, ...]) -> str | None:
    """Name of the linear that computes the module's output, up to ops without weights; None for none.

    Of a module with several outputs, the first. It is the last to run, and gives as many numbers as the
    module: a projection into the embedding space.
    """
    ran: list[tuple[str, int]] = []

    def watch(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def hook(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
            ran.append((name, output.numel()))

        return hook

    layers = [(name, child) for name, child in module.named_modules() if isinstance(child, LAYERS)]
    handles = [child.register_forward_hook(watch(name)) for name, child in layers]
    try:
        with torch.inference_mode():
            given = first_output(module(*_inputs(example)))
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        return None
    last, numbers = ran[-1]
    is_final = numbers == given.numel() and isinstance(module.get_submodule(last), nn.Linear)
    return last if is_final else None


def _reads(argument: object, inputs: set[str]) -> bool:
    """Whether a value depends on one of the inputs."""
    if not isinstance(argument, fx.Node):
        return False
    return argument.name in inputs or any(_reads(before, inputs) for before in argument.all_input_nodes)


def _inputs(example: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return example if isinstance(example, tuple) else (example,)
