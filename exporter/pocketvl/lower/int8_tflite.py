"""Writes a quantized tower into a float TFLite graph: linears and convolutions between integers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketvl.errors import LoweringError
from pocketvl.integers import ActivationGrid, QuantizedLayer, QuantizedTower
from pocketvl.lower.ops import op_name, read_tflite, text_of
from pocketvl.lower.quiet import quiet
from pocketvl.lower.to_tflite import write_tflite

_LAYERS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
_TABLE = "EMBEDDING_LOOKUP"
_FROM_TORCH = {"CONV_2D": (0, 2, 3, 1), "DEPTHWISE_CONV_2D": (1, 2, 3, 0)}


def write_int8_tflite(source: Path, tower: QuantizedTower, target: Path) -> None:
    """Writes the tower's integers into a float graph whose tensors are called after the module's parameters.

    ai-edge-quantizer changes the types and puts quantizing ops where they belong; every number it derives is
    then replaced by the tower's.

    Args:
        source: the float graph of the module that the tower was quantized from, as `export_tflite` writes it.
        tower: its integers.
        target: where the int8 graph is written.

    Raises:
        LoweringError: the graph does not hold the tower's layers, or holds others.
    """
    model = read_tflite(source)
    layers = list(_layers(model, tower, source.name))
    lost = sorted(set(tower.layers) - {name for _, _, name in layers})
    if lost:
        raise LoweringError(f"{source.name} holds no op for {len(lost)} layers, {lost[0]} for one")
    statistics: dict[str, dict[str, Any]] = {}
    tensors = model.subgraphs[0].tensors
    for _, op, name in layers:
        layer = tower.layers[name]
        for tensor, grid in ((op.inputs[0], layer.input), (op.outputs[0], layer.output)):
            if grid is not None:
                statistics[text_of(tensors[tensor].name)] = _statistics(grid)
    integer = _restructured(source, {kind for kind, _, _ in layers}, statistics)
    for kind, op, name in _layers(integer, tower, source.name):
        _write_(integer, kind, op, tower.layers[name])
    write_tflite(integer, target)


def _layers(model: Any, tower: QuantizedTower, where: str) -> Iterator[tuple[str, Any, str]]:
    """The ops that bear weights: their kind, the op, and the layer's name."""
    for op in model.subgraphs[0].operators:
        kind = op_name(model, op)
        if kind in (*_LAYERS, _TABLE):
            name = text_of(weights_of(model, op).name).split(";", 1)[0].removesuffix(".weight")
            if name not in tower.layers:
                raise LoweringError(f"{where}: {kind} of {name!r} was not quantized")
            yield kind, op, name


def weights_of(model: Any, op: Any) -> Any:
    """The tensor in which an op's weights are stored: a table is widened on its way to the lookup."""
    graph = model.subgraphs[0]
    for before in graph.operators:
        if op_name(model, before) == "DEQUANTIZE" and before.outputs[0] == op.inputs[1]:
            return graph.tensors[before.inputs[0]]
    return graph.tensors[op.inputs[1]]


def _restructured(source: Path, kinds: set[str], statistics: dict[str, dict[str, Any]]) -> Any:
    from ai_edge_quantizer import qtyping, quantizer

    # one of its progress bars cannot be switched off, and it warns of the memory of an interpreter of its own
    with quiet(), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tool = quantizer.Quantizer(str(source))
        for kind in sorted(kinds & set(_LAYERS)):
            name = qtyping.TFLOperationName(kind)
            tool.add_static_config(".*", name, activation_num_bits=8, weight_num_bits=8)
        if _TABLE in kinds:
            tool.add_weight_only_config(".*", qtyping.TFLOperationName.EMBEDDING_LOOKUP, num_bits=8)
        result = tool.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model_from_bytearray(bytearray(result.quantized_model))


def _write_(model: Any, kind: str, op: Any, layer: QuantizedLayer) -> None:
    """Replaces the numbers of one op by the layer's."""
    tensors = model.subgraphs[0].tensors
    weights = layer.weights
    if kind in _FROM_TORCH:
        weights = np.ascontiguousarray(weights.transpose(_FROM_TORCH[kind]))
    _store_(model, weights_of(model, op), weights, layer.scale)
    if layer.input is None or layer.output is None:
        return
    _set_grid_(tensors[op.inputs[0]], layer.input)
    _set_grid_(tensors[op.outputs[0]], layer.output)
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        steps = layer.bias if layer.bias is not None else np.zeros(layer.scale.shape, np.int32)
        _store_(model, tensors[op.inputs[2]], steps, layer.bias_scale())


def _store_(model: Any, tensor: Any, integers: NDArray[np.generic], scale: NDArray[np.float32]) -> None:
    if tuple(int(side) for side in tensor.shape) != integers.shape:
        raise LoweringError(f"{text_of(tensor.name)} is {list(tensor.shape)}, its integers {integers.shape}")
    model.buffers[tensor.buffer].data = np.frombuffer(integers.tobytes(), np.uint8)
    tensor.quantization.scale = scale.astype(np.float32)
    tensor.quantization.zeroPoint = np.zeros(scale.shape, np.int64)


def _set_grid_(tensor: Any, grid: ActivationGrid) -> None:
    tensor.quantization.scale = np.array([grid.scale], np.float32)
    tensor.quantization.zeroPoint = np.array([grid.zero_point - 128], np.int64)


def _statistics(grid: ActivationGrid) -> dict[str, Any]:
    """The range of a grid in the shape in which ai-edge-quantizer keeps its own."""
    low, high = ((end - grid.zero_point) * grid.scale for end in (0, 255))
    return {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
