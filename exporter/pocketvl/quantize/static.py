"""Static int8: from a float module and the ranges of its layers to the integers that ship."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import fx, nn

from pocketvl.errors import DataError
from pocketvl.integers import ActivationGrid, QuantizedLayer, QuantizedTower
from pocketvl.quantize.arithmetic import (
    Grid,
    activation_grid,
    least_weight_scale,
    quantize_bias,
    weight_grid,
)
from pocketvl.quantize.calibrate import LAYERS, LayerRanges

_EMBEDDING = torch.ops.aten.embedding.default


def quantize_static(
    module: nn.Module, ranges: Mapping[str, LayerRanges], tables: tuple[str, ...] = ()
) -> QuantizedTower:
    """Quantizes linears and convolutions, and token tables; everything else stays in float.

    Activations get one asymmetric grid a tensor, weights one symmetric grid an output channel, tables one
    symmetric grid a row. The residual stream, LayerNorm, Softmax and products of two activations are no
    layer's input or output weights and are not touched: that is where static int8 loses answers.

    Args:
        module: the float module; left as it is.
        ranges: of every linear and convolution in it.
        tables: names of `nn.Embedding`s.

    Raises:
        DataError: there is nothing to quantize.
    """
    layers: dict[str, QuantizedLayer] = {}
    for name, child in module.named_modules():
        if isinstance(child, LAYERS):
            layers[name] = _quantize_layer(child, ranges[name])
        elif name in tables and isinstance(child, nn.Embedding):
            weights = child.weight.detach().numpy()
            grid = weight_grid(weights, 0)
            layers[name] = QuantizedLayer(grid.quantize(weights).astype(np.int8), grid.scale)
    if not layers:
        raise DataError("the module holds no linear, convolution or token table that could be quantized")
    return QuantizedTower(layers)


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


@contextmanager
def simulated(module: nn.Module, tower: QuantizedTower) -> Iterator[None]:
    """Inside, the module computes what its lowered forms compute: with the tower's weights and grids."""
    floats = {name: value.detach().clone() for name, value in module.state_dict().items()}
    handles = []
    try:
        with torch.no_grad():
            for name, layer in tower.layers.items():
                child = module.get_submodule(name)
                child.get_parameter("weight").copy_(torch.from_numpy(layer.dequantized()))
                if layer.bias is not None:
                    bias = layer.bias * layer.bias_scale().astype(np.float64)
                    child.get_parameter("bias").copy_(torch.from_numpy(bias))
                if layer.input is not None and layer.output is not None:
                    handles.append(child.register_forward_pre_hook(_before(layer.input)))
                    handles.append(child.register_forward_hook(_after(layer.output)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        module.load_state_dict(floats)


def fake_quantize(values: torch.Tensor, grid: ActivationGrid) -> torch.Tensor:
    """Each value's nearest on the grid."""
    steps = torch.round(values / grid.scale) + grid.zero_point
    return (steps.clamp(0, 255) - grid.zero_point) * grid.scale


def _quantize_layer(layer: nn.Linear | nn.Conv2d, seen: LayerRanges) -> QuantizedLayer:
    weights = layer.weight.detach().numpy()
    inputs, outputs = activation_grid(seen.input), activation_grid(seen.output)
    if layer.bias is None:
        grid = weight_grid(weights, 0)
        steps = None
    else:
        bias = layer.bias.detach().numpy()
        grid = weight_grid(weights, 0, least_weight_scale(bias, inputs.scale))
        steps, _ = quantize_bias(bias, inputs.scale, grid.scale)
    integers = grid.quantize(weights).astype(np.int8)
    return QuantizedLayer(integers, grid.scale, steps, _activation(inputs), _activation(outputs))


def _activation(grid: Grid) -> ActivationGrid:
    return ActivationGrid(float(grid.scale), grid.zero_point)


def _before(
    grid: ActivationGrid,
) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]:
    return lambda layer, inputs: (fake_quantize(inputs[0], grid), *inputs[1:])


def _after(
    grid: ActivationGrid,
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    return lambda layer, inputs, output: fake_quantize(output, grid)


def _reads(argument: object, inputs: set[str]) -> bool:
    """Whether a value depends on one of the inputs."""
    if not isinstance(argument, fx.Node):
        return False
    return argument.name in inputs or any(_reads(before, inputs) for before in argument.all_input_nodes)
