"""From a float module, what calibration saw of it and a specification to the integers that ship."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pocketvl.errors import DataError
from pocketvl.integers import QuantizedLayer, QuantizedTower
from pocketvl.quantize.arithmetic import (
    activation_grid,
    least_weight_scale,
    quantize_bias,
    quantize_weights,
    weight_scale,
)
from pocketvl.quantize.calibrate import LayerRanges
from pocketvl.quantize.structure import LAYERS
from pocketvl.specification import INT8_STATIC, INT8_TABLE, LayerSpec, Mode, TowerSpec


def static_spec(module: nn.Module, tables: tuple[str, ...] = ()) -> TowerSpec:
    """Every linear and convolution in static int8, and the token tables' rows in int8; the rest in float.

    The residual stream, LayerNorm, Softmax and products of two activations are no layer's input or output
    weights and are not touched: that is where static int8 loses answers.
    """
    layers = {name: INT8_STATIC for name, child in module.named_modules() if isinstance(child, LAYERS)}
    return TowerSpec(layers | dict.fromkeys(tables, INT8_TABLE))


def quantize_tower(module: nn.Module, spec: TowerSpec, ranges: Mapping[str, LayerRanges]) -> QuantizedTower:
    """Quantizes the layers that a specification names.

    Args:
        module: the float module; left as it is.
        spec: what is quantized, and how.
        ranges: of every static layer.

    Raises:
        DataError: there is nothing to quantize, or calibration has not seen a layer.
        RecipeError: a grid does not fit a layer's weights.
    """
    if not spec.layers:
        raise DataError("the module holds no linear, convolution or token table that could be quantized")
    layers = {
        name: _quantize_layer(module.get_submodule(name), layer, ranges.get(name))
        for name, layer in spec.layers.items()
    }
    return QuantizedTower(layers)


def _quantize_layer(child: nn.Module, spec: LayerSpec, seen: LayerRanges | None) -> QuantizedLayer:
    weights = child.get_parameter("weight").detach().numpy()
    bias = getattr(child, "bias", None)
    bias = None if bias is None else bias.detach().numpy()
    if spec.mode is not Mode.STATIC:
        scale = weight_scale(weights, spec.weights)
        return QuantizedLayer(spec, quantize_weights(weights, scale, spec.weights), scale, bias)
    assert spec.input is not None
    assert spec.output is not None
    if seen is None:
        raise DataError("calibration has not seen a static layer")
    inputs = activation_grid(seen.input, spec.input.bits)
    outputs = activation_grid(seen.output, spec.output.bits)
    least = 0.0 if bias is None else least_weight_scale(bias, inputs.scale)
    scale = weight_scale(weights, spec.weights, least)
    steps = None if bias is None else quantize_bias(bias, inputs.scale, scale)
    return QuantizedLayer(spec, quantize_weights(weights, scale, spec.weights), scale, steps, inputs, outputs)
