"""Simulate in torch what the lowered graphs compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from pocketvl.families.layers.segments import Segments
from pocketvl.network.integers import QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import Mode
from pocketvl.quantize.fake import fake_quantize, fake_quantize_dynamic
from pocketvl.quantize.products import check_names, multiplied, on_grids


@contextmanager
def simulated(
    module: nn.Module, component: QuantizedComponent, segments: Segments | None = None
) -> Iterator[None]:
    """Context in which the module is fake-quantized with the component's weights, biases and grids.

    Args:
        module: the float module that the component was made of.
        component: its integers.
        segments: of a fusion model's sequence, where the component quantizes blocks of products.

    Raises:
        DataError: the component names a product that the module does not have.
    """
    check_names(module, component.products, segments)
    changed = {f"{name}.{kind}" for name in component.layers for kind in ("weight", "bias")}
    state = module.state_dict()
    floats = {name: state[name].clone() for name in changed & state.keys()}
    handles: list[RemovableHandle] = []
    try:
        with torch.no_grad():
            for name, layer in component.layers.items():
                child = module.get_submodule(name)
                child.get_parameter("weight").copy_(torch.from_numpy(layer.dequantized()))
                bias = layer.float_bias()
                if bias is not None:
                    child.get_parameter("bias").copy_(torch.from_numpy(bias))
                handles.extend(_hooks(child, layer))
        products = (
            multiplied(module, on_grids(component.products, segments))
            if component.products
            else nullcontext()
        )
        with products:
            yield
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for name, values in floats.items():
                state[name].copy_(values)


def _hooks(child: nn.Module, layer: QuantizedLayer) -> Iterator[RemovableHandle]:
    if layer.spec.mode is Mode.DYNAMIC:
        yield child.register_forward_pre_hook(_before(fake_quantize_dynamic))
    if layer.input is not None:
        grid = layer.input
        yield child.register_forward_pre_hook(_before(lambda values: fake_quantize(values, grid)))
    if layer.output is not None:
        out = layer.output
        yield child.register_forward_hook(lambda _, inputs, output: fake_quantize(output, out))


def _before(
    change: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]:
    return lambda _, inputs: (change(inputs[0]), *inputs[1:])
