"""What a module is made of, as far as quantization asks: the layers with weights, and the token tables."""

from __future__ import annotations

import torch
from torch import fx, nn

LAYERS = (nn.Linear, nn.Conv2d)
"""Layers that multiply an activation by weights."""

_EMBEDDING = torch.ops.aten.embedding.default


def token_tables(module: nn.Module, example: torch.Tensor) -> tuple[str, ...]:
    """Names of the `nn.Embedding`s that are looked up by what comes in, not by constant positions."""
    program = torch.export.export(module, (example,))
    signature = program.graph_signature
    inputs = set(signature.user_inputs)
    lookups = (node for node in program.graph.nodes if node.target is _EMBEDDING)
    tables = (node.args[0].name for node in lookups if _reads(node.args[1], inputs))
    return tuple(
        dict.fromkeys(signature.inputs_to_parameters[name].removesuffix(".weight") for name in tables)
    )


def _reads(argument: object, inputs: set[str]) -> bool:
    """Whether a value depends on one of the inputs."""
    if not isinstance(argument, fx.Node):
        return False
    return argument.name in inputs or any(_reads(before, inputs) for before in argument.all_input_nodes)
