"""Folds what a LayerNorm multiplies and adds into the linears that read it.

One converter does this by itself and the other does not; done here, before anything is quantized, both
engines get the same weights.
"""

from __future__ import annotations

import torch
from torch import fx, nn

_NORM = torch.ops.aten.layer_norm.default
_LINEAR = torch.ops.aten.linear.default


def fold_layer_norms_(module: nn.Module, example: torch.Tensor) -> tuple[str, ...]:
    """Moves scale and shift of every LayerNorm that only linears read into those linears.

    The module computes the same as before. A linear without a bias gets one.

    Args:
        module: in eval mode, of one input.
        example: an input of it.

    Returns:
        Names of the LayerNorms that scale by 1 and shift by 0 now.
    """
    program = torch.export.export(module, (example,))
    names = program.graph_signature.inputs_to_parameters
    folded = []
    for node in program.graph.nodes:
        if node.op != "call_function" or node.target is not _NORM:
            continue
        norm = _owner(node.args[2], names) if len(node.args) > 2 else None
        readers = [
            _owner(user.args[1], names) if user.target is _LINEAR and user.args[0] is node else None
            for user in node.users
        ]
        if norm is not None and readers and None not in readers:
            _fold_(module.get_submodule(norm), [module.get_submodule(name) for name in readers if name])
            folded.append(norm)
    return tuple(folded)


def _owner(argument: object, names: dict[str, str]) -> str | None:
    """The module whose weight an argument is."""
    if isinstance(argument, fx.Node) and argument.name in names:
        return names[argument.name].removesuffix(".weight")
    return None


def _fold_(norm: nn.Module, linears: list[nn.Module]) -> None:
    assert isinstance(norm, nn.LayerNorm)
    with torch.no_grad():
        scale, shift = norm.weight.double(), norm.bias.double()
        for linear in linears:
            assert isinstance(linear, nn.Linear)
            weight = linear.weight.double()
            bias = weight @ shift
            if linear.bias is not None:
                bias = bias + linear.bias.double()
            linear.weight.copy_(weight * scale)
            linear.bias = nn.Parameter(bias.to(linear.weight.dtype), requires_grad=False)
        norm.weight.fill_(1)
        norm.bias.fill_(0)
