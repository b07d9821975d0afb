"""Writes a quantized tower into a float ONNX graph: QuantizeLinear and DequantizeLinear around its layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from pocketvl.errors import LoweringError
from pocketvl.integers import ActivationGrid, QuantizedLayer, QuantizedTower
from pocketvl.lower.to_onnx import write_onnx


def write_int8_onnx(source: Path, tower: QuantizedTower, target: Path) -> None:
    """Writes the tower's integers into a float graph that keeps its weights under the module's names.

    Activations are uint8, what ONNX Runtime runs fastest: the tower's own grids. A token table becomes the
    lookup of an int8 row and of its scale.

    Args:
        source: the float graph of the module that the tower was quantized from, as `export_onnx` writes it.
        tower: its integers.
        target: where the int8 graph is written.

    Raises:
        LoweringError: the graph does not hold the tower's layers.
    """
    model = onnx.load(source)
    rewriter = _Rewriter(model.graph, tower)
    for node in model.graph.node:
        rewriter.add(node)
    lost = sorted(set(tower.layers) - rewriter.written)
    if lost:
        raise LoweringError(f"{source.name} holds no node for {len(lost)} layers, {lost[0]} for one")
    rewriter.finish_(model.graph)
    write_onnx(model, target)


class _Rewriter:
    """Collects the nodes and constants of the quantized graph; each tensor is quantized once."""

    def __init__(self, graph: onnx.GraphProto, tower: QuantizedTower) -> None:
        self.written: set[str] = set()
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, NDArray[np.generic]] = {}
        self._tower = tower
        self._dequantized: dict[tuple[str, ActivationGrid], str] = {}
        self._biased = _bias_adds(graph)
        self._ends: dict[str, QuantizedLayer] = {}  # outputs of bias additions that end a layer

    def add(self, node: NodeProto) -> None:
        """Appends a node of the float graph, or what stands for it."""
        copy = NodeProto()
        copy.CopyFrom(node)
        name, layer = self._layer(copy)
        if copy.output[0] in self._ends:
            self._end(copy, self._ends[copy.output[0]])
        elif layer is None:
            self._nodes.append(copy)
        elif layer.input is None:
            self._table(copy, name, layer)
        else:
            self._multiply(copy, name, layer)

    def finish_(self, graph: onnx.GraphProto) -> None:
        """Puts the new nodes and constants into the graph, and drops constants that nothing reads now."""
        del graph.node[:]
        graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input} | {value.name for value in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in self._constants.items()
        )

    def _layer(self, node: NodeProto) -> tuple[str, QuantizedLayer | None]:
        place = 0 if node.op_type == "Gather" else 1
        if node.op_type not in ("Gather", "MatMul", "Gemm", "Conv") or len(node.input) <= place:
            return "", None
        name = node.input[place].removesuffix(".weight")
        return name, self._tower.layers.get(name) if name != node.input[place] else None

    def _multiply(self, node: NodeProto, name: str, layer: QuantizedLayer) -> None:
        if layer.input is None or layer.output is None:
            raise LoweringError(f"{name} is multiplied, but was quantized as a table")
        node.input[0] = self._activation(node.input[0], layer.input)
        transposed = node.op_type == "MatMul" or (node.op_type == "Gemm" and not _is_set(node, "transB"))
        node.input[1] = self._weights(name, layer, transposed)
        add = self._biased.get(node.output[0])
        if add is not None:
            self._ends[add.output[0]] = layer
            self._nodes.append(node)
        else:
            if len(node.input) > 2:
                node.input[2] = self._bias(name, layer)
            self._end(node, layer)
        self.written.add(name)

    def _end(self, node: NodeProto, layer: QuantizedLayer) -> None:
        """Appends the node that gives a layer's output, and puts that on its grid."""
        if layer.output is None:
            raise LoweringError(f"{node.name} ends a layer without an output grid")
        output = node.output[0]
        node.output[0] = f"{output}_float"
        self._nodes.append(node)
        self._grid(node.output[0], output, layer.output)
        self._dequantized[output, layer.output] = output

    def _table(self, node: NodeProto, name: str, layer: QuantizedLayer) -> None:
        ids, output = node.input[1], node.output[0]
        self._constants[f"{name}.weight_quantized"] = layer.weights
        self._constants[f"{name}.weight_scale"] = layer.scale.reshape(-1, 1)
        row, scale, wide = f"{output}_row", f"{output}_row_scale", f"{output}_row_float"
        self._nodes += [
            helper.make_node("Gather", [f"{name}.weight_quantized", ids], [row], row),
            helper.make_node("Gather", [f"{name}.weight_scale", ids], [scale], scale),
            helper.make_node("Cast", [row], [wide], wide, to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [wide, scale], [output], f"{output}_dequantize"),
        ]
        self.written.add(name)

    def _activation(self, name: str, grid: ActivationGrid) -> str:
        if (name, grid) not in self._dequantized:
            before = sum(other == name for other, _ in self._dequantized)
            target = f"{name}_dequantized{before or ''}"
            self._grid(name, target, grid)
            self._dequantized[name, grid] = target
        return self._dequantized[name, grid]

    def _grid(self, source: str, target: str, grid: ActivationGrid) -> None:
        constants = [f"{target}_scale", f"{target}_zero_point"]
        self._constants[constants[0]] = np.asarray(grid.scale, np.float32)
        self._constants[constants[1]] = np.asarray(grid.zero_point, np.uint8)
        integers = f"{target}_q"
        self._nodes.append(helper.make_node("QuantizeLinear", [source, *constants], [integers], integers))
        self._nodes.append(
            helper.make_node("DequantizeLinear", [integers, *constants], [target], f"{target}_dq")
        )

    def _weights(self, name: str, layer: QuantizedLayer, transposed: bool) -> str:
        stem = f"{name}.weight"
        integers = np.ascontiguousarray(layer.weights.T) if transposed else layer.weights
        if f"{stem}_quantized" not in self._constants:
            zeros = np.zeros(layer.scale.shape, np.int8)
            self._dequantize(stem, integers, layer.scale, zeros, 1 if transposed else 0)
        return f"{stem}_dequantized"

    def _bias(self, name: str, layer: QuantizedLayer) -> str:
        stem = f"{name}.bias"
        steps = layer.bias if layer.bias is not None else np.zeros(layer.scale.shape, np.int32)
        if f"{stem}_quantized" not in self._constants:
            self._dequantize(stem, steps, layer.bias_scale(), None, 0)
        return f"{stem}_dequantized"

    def _dequantize(
        self,
        stem: str,
        integers: NDArray[np.generic],
        scale: NDArray[np.float32],
        zeros: NDArray[np.int8] | None,
        axis: int,
    ) -> None:
        inputs = [f"{stem}_quantized", f"{stem}_scale"]
        self._constants[inputs[0]], self._constants[inputs[1]] = integers, scale
        if zeros is not None:
            inputs.append(f"{stem}_zero_point")
            self._constants[inputs[2]] = zeros
        output = f"{stem}_dequantized"
        self._nodes.append(helper.make_node("DequantizeLinear", inputs, [output], output, axis=axis))


def _bias_adds(graph: onnx.GraphProto) -> dict[str, NodeProto]:
    """By the output of a MatMul: the Add of a constant vector that alone reads it."""
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = {}
    for node in graph.node:
        after = readers.get(node.output[0], []) if node.op_type == "MatMul" else []
        if len(after) == 1 and after[0].op_type == "Add":
            others = [name for name in after[0].input if name != node.output[0]]
            if len(others) == 1 and others[0] in vectors:
                found[node.output[0]] = after[0]
    return found


def _is_set(node: NodeProto, attribute: str) -> bool:
    return any(each.name == attribute and each.i != 0 for each in node.attribute)
