"""Write a quantized component into a float TFLite graph: each layer in its form."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketvl.errors import LoweringError
from pocketvl.lower.forms import Form, check_component, form_of, refuse
from pocketvl.lower.quiet import quiet
from pocketvl.lower.tflite.export import FROM_TORCH, write_tflite
from pocketvl.lower.tflite.graph import check_ops_tflite, op_name, parse_tflite, read_tflite, text_of
from pocketvl.lower.tflite.products import PRODUCT, products_of, tensors_of
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedLayer

_LINEAR, _TABLE = "FULLY_CONNECTED", "EMBEDDING_LOOKUP"
_FORMS: Mapping[str, tuple[Form, ...]] = {
    _LINEAR: (Form.STATIC, Form.DYNAMIC, Form.BLOCKS, Form.WIDENED),
    "CONV_2D": (Form.STATIC, Form.DYNAMIC, Form.WIDENED),
    "DEPTHWISE_CONV_2D": (Form.STATIC, Form.WIDENED),
    _TABLE: (Form.WIDENED,),
}

_MOST_OFF = 0.75
"""How far integers may be from the weights that they stand for, as a share of those; 4 bits: about 0.1."""


@dataclass(frozen=True)
class _Structure:
    """What has to become of a graph's ops.

    Attributes:
        scopes: by kind of op, form and size of a group: what the ops give out is called.
        statistics: by tensor, its range as ai-edge-quantizer keeps it.
    """

    scopes: dict[tuple[str, Form, int | None], list[str]] = field(default_factory=dict)
    statistics: dict[str, dict[str, Any]] = field(default_factory=dict)


def write_quantized_tflite(source: Path, component: QuantizedComponent, target: Path) -> None:
    """Write the component's integers into a float graph whose tensors are named after the parameters.

    Layers that the component does not name stay as they are. ai-edge-quantizer changes the others' types and
    puts quantizing ops where they belong; every number it derives is then replaced by the component's.

    Args:
        source: the float graph of the module that the component was quantized from, as `export_tflite` writes
        it. component: its integers.
        target: where the quantized graph is written.

    Raises:
        LoweringError: the graph does not hold the component's layers, or no engine runs one of them.
    """
    check_component(component)
    structure = _structure_of(source, component)
    model = _restructured(source, structure) if structure.scopes else read_tflite(source)
    writer = _Writer(model, component)
    for kind, op, name in _layers(model, component):
        writer.write_(kind, op, name)
    for product, op in products_of(model, component, source.name):
        for tensor, grid in tensors_of(op, product):
            _set_grid_(model.subgraphs[0].tensors[tensor], grid)
    write_tflite(model, target)
    check_ops_tflite(target)


def _structure_of(source: Path, component: QuantizedComponent) -> _Structure:
    """What has to become of the ops of a float graph; the graph itself is not kept.

    Raises:
        LoweringError: it does not hold the component's layers, or no engine runs one of them.
    """
    model = read_tflite(source, weights=False)
    found = list(_layers(model, component))
    lost = sorted(set(component.layers) - {name for _, _, name in found})
    if lost:
        raise LoweringError(f"{source.name} holds no op for {len(lost)} layers, {lost[0]} for one")
    structure = _Structure()
    tensors = model.subgraphs[0].tensors
    for kind, op, name in found:
        layer = component.layers[name]
        form = form_of(name, layer.spec)
        if form not in _FORMS[kind]:
            raise refuse(name, layer, kind)
        _check_bias(model, op, name, layer)
        _check_weights(model, kind, op, name, layer)
        key = (kind, form, layer.spec.weights.group_size)
        structure.scopes.setdefault(key, []).append(text_of(tensors[op.outputs[0]].name))
        for tensor, grid in ((op.inputs[0], layer.input), (op.outputs[0], layer.output)):
            if grid is not None:
                structure.statistics[text_of(tensors[tensor].name)] = _statistics(grid)
    for product, op in products_of(model, component, source.name):
        key = (PRODUCT, Form.STATIC, None)
        structure.scopes.setdefault(key, []).append(text_of(tensors[op.outputs[0]].name))
        for tensor, grid in tensors_of(op, product):
            structure.statistics[text_of(tensors[tensor].name)] = _statistics(grid)
    return structure


def weights_of(model: Any, op: Any) -> Any:
    """The tensor in which an op's weights are stored: they may be widened on their way to it."""
    graph = model.subgraphs[0]
    for before in graph.operators:
        if op_name(model, before) == "DEQUANTIZE" and before.outputs[0] == op.inputs[1]:
            return graph.tensors[before.inputs[0]]
    return graph.tensors[op.inputs[1]]


def _layers(model: Any, component: QuantizedComponent) -> Iterator[tuple[str, Any, str]]:
    """The ops that bear the component's weights: their kind, the op, and the layer's name."""
    for op in model.subgraphs[0].operators:
        kind = op_name(model, op)
        if kind in _FORMS:
            weights = weights_of(model, op)
            name = text_of(weights.name).split(";", 1)[0].removesuffix(".weight")
            # the products of an attention of one head are linears, too, but of two activations
            if name in component.layers and model.buffers[weights.buffer].data is not None:
                yield kind, op, name


def _check_bias(model: Any, op: Any, name: str, layer: QuantizedLayer) -> None:
    """Raise LoweringError where an op adds something that is not its layer's bias, which would be lost."""
    if layer.bias is None and _has_bias(op):
        buffer = model.buffers[model.subgraphs[0].tensors[op.inputs[2]].buffer]
        if buffer.data is None or np.any(buffer.data):
            raise LoweringError(f"the op of {name} adds a bias, and the layer has none; leave it in float")


def _check_weights(model: Any, kind: str, op: Any, name: str, layer: QuantizedLayer) -> None:
    """Raise LoweringError where an op's weights are not those that were quantized.

    A converter may fold what stands before an op into its weights; the integers would then undo that.
    """
    tensor = model.subgraphs[0].tensors[op.inputs[1]]
    stored = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.float32)
    weights = layer.dequantized()
    if kind in FROM_TORCH:
        weights = weights.transpose(FROM_TORCH[kind])
    if weights.size != stored.size:
        return  # another shape is said where they are written
    difference = weights.ravel()
    difference -= stored
    off = float(np.linalg.norm(difference)) / max(float(np.linalg.norm(stored)), 1e-12)
    if off > _MOST_OFF:
        raise LoweringError(
            f"{name}: the converter changed its weights by {100 * off:.0f} % after they were quantized; "
            "fold what stands before it with `fold_`, or leave it in float"
        )


def _has_bias(op: Any) -> bool:
    return len(op.inputs) > 2 and op.inputs[2] >= 0


def _restructured(source: Path, structure: _Structure) -> Any:
    from ai_edge_quantizer import qtyping, quantizer

    # one of its progress bars cannot be switched off, and it warns of the memory of an interpreter of its own
    with quiet(), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tool = quantizer.Quantizer(str(source))
        for (kind, form, group_size), outputs in sorted(structure.scopes.items(), key=str):
            # it looks for the pattern in an op's outputs, each with a semicolon after it
            scope = f"^(?:{'|'.join(re.escape(output) for output in outputs)});$"
            op = qtyping.TFLOperationName(kind)
            if form is Form.STATIC:
                tool.add_static_config(scope, op, activation_num_bits=8, weight_num_bits=8)
            elif form is Form.DYNAMIC:
                tool.add_dynamic_config(scope, op, num_bits=8)
            elif form is Form.BLOCKS:
                blocks = qtyping.QuantGranularity(f"BLOCKWISE_{group_size}")
                tool.add_dynamic_config(scope, op, num_bits=4, granularity=blocks)
            else:
                tool.add_weight_only_config(scope, op, num_bits=8)
        result = tool.quantize(structure.statistics, enable_progress_bar=False, enable_progress_report=False)
    return parse_tflite(bytearray(result.quantized_model))


class _Writer:
    """Replaces the numbers of a restructured graph by a component's."""

    def __init__(self, model: Any, component: QuantizedComponent) -> None:
        self._model = model
        self._graph = model.subgraphs[0]
        self._component = component
        self._readers: dict[int, set[str]] = {}  # names of the layers that read a tensor, "" for other ops
        layers = {id(op): name for _, op, name in _layers(model, component)}
        for op in self._graph.operators:
            for tensor in op.inputs:
                self._readers.setdefault(int(tensor), set()).add(layers.get(id(op), ""))

    def write_(self, kind: str, op: Any, name: str) -> None:
        """Replace the numbers of one op by its layer's."""
        layer = self._component.layers[name]
        weights = layer.weights
        if kind in FROM_TORCH:
            weights = np.ascontiguousarray(weights.transpose(FROM_TORCH[kind]))
        tensor = weights_of(self._model, op)
        if form_of(name, layer.spec) is Form.BLOCKS:
            self._store_blocks_(tensor, weights, layer.scale)
        else:
            self._store_integers_(tensor, weights, layer.scale)
        if kind != _TABLE:
            self._store_bias_(op, name, layer)
        for index, grid in ((op.inputs[0], layer.input), (op.outputs[0], layer.output)):
            if grid is not None:
                _set_grid_(self._graph.tensors[index], grid)

    def _store_integers_(
        self, tensor: Any, integers: NDArray[np.generic], scale: NDArray[np.float32]
    ) -> None:
        self._store_(tensor, integers, integers.dtype.name.upper(), integers.shape)
        tensor.quantization.scale = scale.astype(np.float32)
        tensor.quantization.zeroPoint = np.zeros(scale.shape, np.int64)

    def _store_blocks_(self, tensor: Any, weights: NDArray[np.int8], scale: NDArray[np.float32]) -> None:
        """Two weights a byte, the first in the lower half; scales are a tensor of their own."""
        halves = weights.view(np.uint8) & 0xF
        self._store_(tensor, halves[:, 0::2] | (halves[:, 1::2] << 4), "INT4", weights.shape)
        scales = self._graph.tensors[tensor.quantization.details.scales]
        self._store_(scales, scale.astype(np.float16), "FLOAT16", scale.shape)

    def _store_bias_(self, op: Any, name: str, layer: QuantizedLayer) -> None:
        bias = layer.bias
        if bias is None:
            if not _has_bias(op) or layer.input is None:
                return  # the op adds zeros, if anything
            bias = np.zeros(layer.scale.shape, np.int32)
        tensor = self._own_bias_(op, name, bias)
        if layer.input is not None:
            self._store_integers_(tensor, bias, layer.bias_scale())
        else:
            self._store_(tensor, bias, "FLOAT32", bias.shape)

    def _own_bias_(self, op: Any, name: str, bias: NDArray[np.generic]) -> Any:
        """The op's bias; a tensor of its own where it had none, or shares it with another layer."""
        from ai_edge_litert import schema_py_generated as schema

        if _has_bias(op) and self._readers[int(op.inputs[2])] == {name}:
            return self._graph.tensors[op.inputs[2]]
        if _has_bias(op):
            tensor = copy(self._graph.tensors[op.inputs[2]])
            tensor.quantization = copy(tensor.quantization)
        else:
            tensor = schema.TensorT()
            tensor.type = getattr(schema.TensorType, bias.dtype.name.upper())
            tensor.shape = np.asarray(bias.shape, np.int32)
            tensor.quantization = schema.QuantizationParametersT()
        tensor.name, tensor.buffer = f"{name}.bias;own".encode(), self._new_buffer()
        index = len(self._graph.tensors)
        self._graph.tensors.append(tensor)
        op.inputs = np.asarray([*list(op.inputs)[:2], index], np.int32)
        self._readers[index] = {name}
        return tensor

    def _store_(self, tensor: Any, values: NDArray[np.generic], kind: str, shape: tuple[int, ...]) -> None:
        """Write a tensor's bytes, into a buffer that no other tensor has.

        Raises:
            LoweringError: the tensor is of another type or shape.
        """
        from ai_edge_litert.tools import flatbuffer_utils

        found = flatbuffer_utils.type_to_name(tensor.type), [int(side) for side in tensor.shape]
        if found != (kind, list(shape)):
            raise LoweringError(
                f"{text_of(tensor.name)} is {found[0]} {found[1]} after ai-edge-quantizer; the component "
                f"holds {kind} {list(shape)}"
            )
        if sum(other.buffer == tensor.buffer for other in self._graph.tensors) > 1:
            tensor.buffer = self._new_buffer()
        self._model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)

    def _new_buffer(self) -> int:
        from ai_edge_litert.schema_py_generated import BufferT

        self._model.buffers.append(BufferT())
        return len(self._model.buffers) - 1


def _set_grid_(tensor: Any, grid: ActivationGrid) -> None:
    tensor.quantization.scale = np.array([grid.scale], np.float32)
    tensor.quantization.zeroPoint = np.array([grid.zero_point - 128], np.int64)


def _statistics(grid: ActivationGrid) -> dict[str, Any]:
    """The range of a grid in the shape in which ai-edge-quantizer keeps its own."""
    low, high = ((end - grid.zero_point) * grid.scale for end in (0, 255))
    return {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
