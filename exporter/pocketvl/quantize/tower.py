"""From a float module, what calibration saw of it and a specification to the integers that ship."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.integers import QuantizedLayer, QuantizedTower
from pocketvl.quantize.arithmetic import (
    Floats,
    activation_grid,
    least_weight_scale,
    quantize_bias,
    weight_scale,
)
from pocketvl.quantize.calibrate import Calibration, LayerCalibration
from pocketvl.quantize.products import quantize_products
from pocketvl.quantize.rounding import (
    Compensation,
    clipped_scale,
    compensation,
    corrected_bias,
    round_weights,
)
from pocketvl.quantize.settings import QuantizeSettings, Rounding
from pocketvl.quantize.structure import LAYERS
from pocketvl.specification import (
    INT4_DYNAMIC,
    INT8_DYNAMIC,
    INT8_STATIC,
    INT8_TABLE,
    Granularity,
    GridSpec,
    LayerSpec,
    Mode,
    Scheme,
    TowerSpec,
)

_SETTINGS = QuantizeSettings()


def static_spec(module: nn.Module, tables: tuple[str, ...] = ()) -> TowerSpec:
    """Every linear and convolution in static int8, and the token tables' rows in int8; the rest in float.

    The residual stream, LayerNorm, Softmax and products of two activations are no layer's input or output
    weights and are not touched: that is where static int8 loses answers.
    """
    return TowerSpec(dict.fromkeys(_layers(module), INT8_STATIC) | dict.fromkeys(tables, INT8_TABLE))


def dynamic_spec(module: nn.Module, tables: tuple[str, ...] = ()) -> TowerSpec:
    """Every linear in dynamic int8; convolutions, which engines run in static int8 only, and tables as there."""
    layers = {
        name: INT8_DYNAMIC if isinstance(child, nn.Linear) else INT8_STATIC
        for name, child in _layers(module).items()
    }
    return TowerSpec(layers | dict.fromkeys(tables, INT8_TABLE))


def int4_spec(module: nn.Module, tables: tuple[str, ...] = (), group_size: int = 32) -> TowerSpec:
    """Linears in 4 bits, a scale for every `group_size` weights of an output; what that does not divide in int8.

    Raises:
        RecipeError: engines have no groups of this size.
    """
    blocks = GridSpec(4, Scheme.SYMMETRIC, Granularity.PER_GROUP, group_size)
    layer = LayerSpec(INT4_DYNAMIC.mode, blocks)
    layers = {
        name: layer if isinstance(child, nn.Linear) and child.in_features % group_size == 0 else INT8_STATIC
        for name, child in _layers(module).items()
    }
    return TowerSpec(layers | dict.fromkeys(tables, INT8_TABLE))


def _layers(module: nn.Module) -> dict[str, nn.Module]:
    return {name: child for name, child in module.named_modules() if isinstance(child, LAYERS)}


def quantize_tower(
    module: nn.Module, spec: TowerSpec, calibration: Calibration, settings: QuantizeSettings = _SETTINGS
) -> QuantizedTower:
    """Quantizes the layers that a specification names.

    Args:
        module: the float module; left as it is.
        spec: what is quantized, and how.
        calibration: of the module; with second moments, where weights are rounded by GPTQ.
        settings: how weights become integers.

    Raises:
        DataError: there is nothing to quantize, or calibration has not seen a layer.
        RecipeError: a grid does not fit a layer's weights.
    """
    if not spec.layers:
        raise DataError("the module holds no linear, convolution or token table that could be quantized")
    return QuantizedTower(
        dict(_quantized(module, spec, calibration, settings)),
        quantize_products(spec.products, calibration.products),
    )


def _quantized(
    module: nn.Module, spec: TowerSpec, calibration: Calibration, settings: QuantizeSettings
) -> Iterator[tuple[str, QuantizedLayer]]:
    shared: tuple[NDArray[np.float64] | None, Compensation | None] = (None, None)
    for name, layer in spec.layers.items():
        child = module.get_submodule(name)
        if isinstance(child, nn.Embedding):
            yield name, _table(child, layer, settings)
            continue
        seen = calibration.layers.get(name)
        if seen is None:
            raise DataError(f"calibration has not seen {name}, so that it cannot be quantized")
        moment = seen.second_moment if settings.rounding is Rounding.GPTQ else None
        if moment is not shared[0]:  # queries, keys and values read the same tensor, one after the other
            shared = (moment, None if moment is None else compensation(moment))
        yield name, _layer(child, layer, seen, settings, shared[1])


def _table(child: nn.Embedding, spec: LayerSpec, settings: QuantizeSettings) -> QuantizedLayer:
    """Rows are looked up: nothing goes in that could be weighed, and nothing comes after to make up for."""
    weights = child.weight.detach().numpy()
    scale = (clipped_scale if settings.clip_weights else weight_scale)(weights, spec.weights)
    return QuantizedLayer(spec, round_weights(weights, scale, spec.weights), scale)


def _layer(
    child: nn.Module,
    spec: LayerSpec,
    seen: LayerCalibration,
    settings: QuantizeSettings,
    compensated: Compensation | None,
) -> QuantizedLayer:
    weights = child.get_parameter("weight").detach().numpy()
    bias = None if getattr(child, "bias", None) is None else child.get_parameter("bias").detach().numpy()
    inputs = outputs = None
    least: Floats | float = 0.0
    if spec.mode is Mode.STATIC:
        assert spec.input is not None
        assert spec.output is not None
        inputs = activation_grid(seen.input, spec.input.bits)
        outputs = activation_grid(seen.output, spec.output.bits)
        least = 0.0 if bias is None else least_weight_scale(bias, inputs.scale)
    if settings.clip_weights:
        scale = clipped_scale(weights, spec.weights, seen.second_moment, least)
    else:
        scale = weight_scale(weights, spec.weights, least)
    integers = round_weights(weights, scale, spec.weights, settings.rounding, compensated)
    layer = QuantizedLayer(spec, integers, scale, bias, inputs, outputs)
    if bias is None:
        return layer
    if settings.correct_bias:
        bias = corrected_bias(bias, weights, layer.dequantized(), seen.input_mean)
    steps = bias if inputs is None else quantize_bias(bias, inputs.scale, scale)
    return QuantizedLayer(spec, integers, scale, steps, inputs, outputs)
