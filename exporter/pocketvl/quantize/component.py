"""Quantize a float module by its calibration statistics and a specification."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError, RecipeError
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedLayer
from pocketvl.network.precisions import PLANS, QUANTIZED, LayerPlan, WeightGrids
from pocketvl.network.specification import ComponentSpec, Granularity, LayerSpec, Mode
from pocketvl.observe.calibrate import LAYERS, Calibration, LayerCalibration, is_pointwise
from pocketvl.quantize.arithmetic import (
    Floats,
    activation_grid,
    least_weight_scale,
    quantize_bias,
    weight_scale,
    weight_zero_point,
)
from pocketvl.quantize.products import quantize_products
from pocketvl.quantize.rounding import (
    Feedback,
    Rounding,
    clipped_scale,
    correct_bias,
    error_feedback,
    round_weights,
)
from pocketvl.quantize.settings import QuantizeSettings
from pocketvl.threads import in_threads, one_torch_thread
from pocketvl_runtime.manifest import Precision

__all__ = ["QuantizeSettings", "component_spec", "quantize_component"]

_SETTINGS = QuantizeSettings()
_GRIDS = WeightGrids()


def component_spec(
    module: nn.Module,
    precision: Precision,
    tables: tuple[str, ...] = (),
    final: str | None = None,
    grids: WeightGrids = _GRIDS,
    unquantized: Collection[str] = (),
    dynamic: Collection[str] = (),
) -> ComponentSpec:
    """The specification of a precision: linears, convolutions and token tables by its plan, others in float.

    Args:
        module: what is to be quantized.
        precision: one of `QUANTIZED`.
        tables: its token tables.
        final: the linear that gives its output.
        grids: what is chosen of the precision's grids for weights.
        unquantized: layers that stay in float.
        dynamic: layers that are quantized as the final linear is.

    Raises:
        RecipeError: another precision or group size.
    """
    plan = PLANS[precision]
    if plan.layers is None:
        known = ", ".join(each.value for each in QUANTIZED)
        raise RecipeError(f"no component is quantized to {precision.value}; there are {known}")
    layers, ungrouped = plan.layers.with_weights(grids), _ungrouped(precision, grids)
    specs = {
        name: layers.output if name == final or name in dynamic else _layer_spec(child, layers, ungrouped)
        for name, child in module.named_modules()
        if isinstance(child, LAYERS) and name not in unquantized
    }
    return ComponentSpec(specs | dict.fromkeys(tables, layers.table))


def _ungrouped(precision: Precision, grids: WeightGrids) -> LayerSpec:
    """How linears are quantized whose inputs the group size does not divide."""
    plan = PLANS[precision]
    assert plan.layers is not None
    if plan.fallback is None or plan.layers.linear.weights.granularity is not Granularity.PER_GROUP:
        return plan.layers.with_weights(grids).linear
    return _ungrouped(plan.fallback, grids)


def _layer_spec(child: nn.Module, layers: LayerPlan, ungrouped: LayerSpec) -> LayerSpec:
    """How a layer is quantized; `ungrouped` is for linears whose inputs the group size does not divide.

    A pointwise convolution is a linear at each position, but no engine has groups of weights for it.
    """
    if isinstance(child, nn.Conv2d):
        return ungrouped if is_pointwise(child) else layers.convolution
    assert isinstance(child, nn.Linear)
    group_size = layers.linear.weights.group_size
    return layers.linear if group_size is None or child.in_features % group_size == 0 else ungrouped


def quantize_component(
    module: nn.Module,
    spec: ComponentSpec,
    calibration: Calibration,
    settings: QuantizeSettings = _SETTINGS,
) -> QuantizedComponent:
    """Quantize the layers that a specification names.

    Token tables are looked up, not multiplied: their rows are rounded to the nearest. So are layers of which
    calibration kept no second moments, as grouped convolutions.

    Args:
        module: the float module; left as it is.
        spec: what is quantized, and how.
        calibration: of every linear and convolution among it; dynamic and weight-only ones need it only
            where the settings ask for GPTQ or corrected biases.
        settings: how weights become integers.

    Raises:
        DataError: there is nothing to quantize, or calibration has not seen a layer or product, or another
            one by its name.
        RecipeError: a grid does not fit a layer's weights.
    """
    if not spec.layers:
        raise DataError("the module holds no linear, convolution or token table that could be quantized")

    def quantized(names: list[str]) -> dict[str, QuantizedLayer]:
        feedback, layers = _SharedFeedback(), {}
        for name in names:
            child, seen = module.get_submodule(name), calibration.layers.get(name)
            try:
                layers[name] = _quantize_layer(child, spec.layers[name], seen, settings, feedback)
            except (DataError, RecipeError) as error:
                raise type(error)(f"{name}: {error}") from error
        return layers

    with one_torch_thread(), in_threads(quantized, _sharing(spec, calibration)) as found:
        made = {name: layer for layers in found for name, layer in layers.items()}
    layers = {name: made[name] for name in spec.layers}
    return QuantizedComponent(layers, quantize_products(spec.products, calibration.products))


def _sharing(spec: ComponentSpec, calibration: Calibration) -> list[list[str]]:
    """The layers, those together that share a second moment, of which GPTQ's feedback is found once."""
    groups: dict[object, list[str]] = {}
    for name in spec.layers:
        seen = calibration.layers.get(name)
        moment = None if seen is None else seen.second_moment
        groups.setdefault(name if moment is None else id(moment), []).append(name)
    return list(groups.values())


class _SharedFeedback:
    """GPTQ's feedback of the second moment that some layers share."""

    def __init__(self) -> None:
        self._known: Feedback | None = None

    def __call__(self, second_moment: NDArray[np.floating]) -> Feedback:
        self._known = self._known or error_feedback(second_moment)
        return self._known


def _quantize_layer(
    child: nn.Module,
    spec: LayerSpec,
    seen: LayerCalibration | None,
    settings: QuantizeSettings,
    feedback: _SharedFeedback,
) -> QuantizedLayer:
    weights: Floats = child.get_parameter("weight").detach().float().numpy()
    bias: Floats | None = None
    if getattr(child, "bias", None) is not None:
        bias = child.get_parameter("bias").detach().float().numpy().copy()
    if not isinstance(child, LAYERS):
        seen = None  # a table's rows are picked, so that no input weighs them
    elif seen is None and _needs_calibration(spec, settings, bias):
        raise DataError("calibration has not seen this layer; give it samples that reach it")
    inputs, outputs = _activation_grids(spec, seen)
    least = 0.0 if bias is None or inputs is None else least_weight_scale(bias, inputs.scale)
    moment = None if seen is None else seen.second_moment
    if settings.clip_weights:
        scale = clipped_scale(weights, spec.weights, moment, least)
    else:
        scale = weight_scale(weights, spec.weights, least)
    zero_point = weight_zero_point(weights, spec.weights)
    integers = round_weights(weights, scale, spec.weights, settings.rounding, moment, feedback, zero_point)
    if bias is not None and seen is not None and settings.correct_bias:
        bias = correct_bias(bias, weights, integers, scale, seen.input_mean)
    if bias is None or inputs is None:
        return QuantizedLayer(spec, integers, scale, bias, inputs, outputs, zero_point)
    try:
        steps = quantize_bias(bias, inputs.scale, scale)
    except ValueError as error:  # the scales allow for the bias, not for a correction far beyond it
        raise DataError(f"{error}; calibrate again, on the module that is quantized") from error
    return QuantizedLayer(spec, integers, scale, steps, inputs, outputs, zero_point)


def _needs_calibration(spec: LayerSpec, settings: QuantizeSettings, bias: Floats | None) -> bool:
    corrected = settings.correct_bias and bias is not None
    return spec.mode is Mode.STATIC or settings.rounding is Rounding.GPTQ or corrected


def _activation_grids(
    spec: LayerSpec, seen: LayerCalibration | None
) -> tuple[ActivationGrid, ActivationGrid] | tuple[None, None]:
    """Input and output grids of a static layer."""
    if spec.input is None or spec.output is None:
        return None, None
    if seen is None:
        raise RecipeError("a token table cannot be static, only weight-only")
    if spec.weights.granularity is Granularity.PER_GROUP:
        raise RecipeError("a static layer has one scale for each channel, and none for groups within it")
    return activation_grid(seen.input, spec.input.bits), activation_grid(seen.output, spec.output.bits)
