"""Layers of every form: how to make them without calibration, and how a lowered file holds them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.lower.tflite.graph import op_name, read_tflite, text_of
from pocketvl.lower.tflite.quantized import weights_of, write_quantized_tflite
from pocketvl.network.integers import QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import (
    CHANNELS_8,
    INT4_DYNAMIC,
    INT8_DYNAMIC,
    INT8_STATIC,
    Granularity,
    LayerSpec,
    Mode,
)
from pocketvl.quantize.arithmetic import quantize_weights, weight_scale, weight_zero_point

FORMATS = ("onnx", "tflite")
WRITE = {"onnx": write_quantized_onnx, "tflite": write_quantized_tflite}
INT8_WIDENED = LayerSpec(Mode.WEIGHT_ONLY, CHANNELS_8)
MIXED = (INT8_STATIC, INT4_DYNAMIC, INT8_DYNAMIC, None)


def quantized(module: nn.Module, name: str, spec: LayerSpec) -> QuantizedLayer:
    """A layer without static activations, its weights rounded to the nearest."""
    child = module.get_submodule(name)
    weights = child.get_parameter("weight").detach().numpy()
    scale, zero_point = weight_scale(weights, spec.weights), weight_zero_point(weights, spec.weights)
    bias = getattr(child, "bias", None)
    integers = quantize_weights(weights, scale, spec.weights, zero_point)
    floats = None if bias is None else bias.detach().numpy()
    return QuantizedLayer(spec, integers, scale, floats, zero_point=zero_point)


def in_forms(
    module: nn.Module,
    static: QuantizedComponent,
    specs: Iterable[LayerSpec | None],
    *,
    linears_only: bool = True,
) -> QuantizedComponent:
    """A static component with other specifications for its linears, or all its layers, one after the other.

    Args:
        module: what the component was quantized from.
        static: the component.
        specs: begun anew where they end; None leaves a layer in float.
        linears_only: whether the others stay as they are.
    """
    wanted = cycle(specs)
    layers = {}
    for name, layer in static.layers.items():
        changes = isinstance(module.get_submodule(name), nn.Linear) or not linears_only
        spec = next(wanted) if changes else layer.spec
        if spec is not None:
            layers[name] = layer if spec == layer.spec else quantized(module, name, spec)
    return QuantizedComponent(layers)


def unpacked(packed: NDArray[np.uint8], bits: int = 4) -> NDArray[np.int16]:
    """Bytes [..., n] as weights of so many bits [..., n * 8 / bits], without their signs or zero points."""
    parts = [(packed >> low) & ((1 << bits) - 1) for low in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(*packed.shape[:-1], -1).astype(np.int16)


def onnx_integers(path: Path, component: QuantizedComponent) -> dict[str, QuantizedLayer]:
    """Weights, scales and biases of every layer as an ONNX file holds them, in torch's layout."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    axes = {
        node.input[0].removesuffix(".weight_quantized"): node.attribute[0].i
        for node in onnx.load(path).graph.node
        if node.op_type == "DequantizeLinear" and node.input[0].endswith(".weight_quantized")
    }
    found = {}
    for name, layer in component.layers.items():
        scale = stored[f"{name}.weight_scale"]
        bias = stored.get(f"{name}.bias_quantized", stored.get(f"{name}.bias_float"))
        zero_point = None
        if layer.spec.weights.granularity is Granularity.PER_GROUP:
            bits = layer.spec.weights.bits
            zeros = np.full(scale.shape, 1 << (bits - 1), np.int16)
            if f"{name}.weight_zero_point" in stored:
                zeros = unpacked(stored[f"{name}.weight_zero_point"], bits)[:, : scale.shape[1]]
                zero_point = zeros.astype(np.uint8)
            blocks = unpacked(stored[f"{name}.weight_blocks"], bits) - zeros[..., None]
            weights = blocks.reshape(len(scale), -1)
        else:
            weights = stored[f"{name}.weight_quantized"]
            transposed = layer.spec.mode is Mode.DYNAMIC or axes.get(name) == 1 or scale.shape[0] == 1
            weights, scale = weights.T if transposed else weights, scale.ravel()
        found[name] = QuantizedLayer(layer.spec, weights, scale, bias, zero_point=zero_point)
    return found


def tflite_integers(path: Path, component: QuantizedComponent) -> dict[str, QuantizedLayer]:
    """Weights, scales and biases of every layer as a TFLite file holds them, in torch's layout."""
    from ai_edge_litert.tools.flatbuffer_utils import type_to_name

    model = read_tflite(path)
    tensors = model.subgraphs[0].tensors

    def values(tensor: Any) -> NDArray[Any]:
        content = np.asarray(model.buffers[tensor.buffer].data)
        if type_to_name(tensor.type) == "INT4":
            halves = unpacked(content).reshape(tensor.shape)
            return np.where(halves > 7, halves - 16, halves)
        numbers: NDArray[Any] = content.view(type_to_name(tensor.type).lower()).reshape(tensor.shape)
        return numbers

    found = {}
    for op in model.subgraphs[0].operators:
        if op_name(model, op) not in ("FULLY_CONNECTED", "CONV_2D", "EMBEDDING_LOOKUP"):
            continue
        weight = weights_of(model, op)
        name = weight.name.decode().split(";", 1)[0].removesuffix(".weight")
        if name not in component.layers:
            continue
        details = weight.quantization.details
        scale = np.asarray(weight.quantization.scale, np.float32) if details is None else None
        if scale is None:
            assert details.blockSize == component.layers[name].spec.weights.group_size
            scale = values(tensors[details.scales])
            assert scale.dtype == np.float16
        weights = values(weight)
        has_bias = len(op.inputs) > 2 and op.inputs[2] >= 0
        found[name] = QuantizedLayer(
            component.layers[name].spec,
            weights.transpose(0, 3, 1, 2) if weights.ndim == 4 else weights,
            scale,
            values(tensors[op.inputs[2]]) if has_bias else None,
        )
    return found


def unused_in(path: Path) -> tuple[list[str], list[int]]:
    """Names of tensors, and numbers of buffers, to which nothing in a graph refers."""
    model = read_tflite(path)
    tensors, buffers = [], {0, *(int(entry.buffer) for entry in model.metadata or [])}
    for graph in model.subgraphs:
        used = {int(i) for i in (*graph.inputs, *graph.outputs)}
        used.update(int(i) for op in graph.operators for i in (*op.inputs, *op.outputs))
        tensors += [text_of(each.name) for index, each in enumerate(graph.tensors) if index not in used]
        buffers.update(int(each.buffer) for each in graph.tensors)
    return tensors, [index for index in range(len(model.buffers)) if index not in buffers]
