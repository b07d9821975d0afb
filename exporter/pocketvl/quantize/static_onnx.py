"""Static int8 for ONNX: QuantizeLinear and DequantizeLinear around what bears weights, and nothing else.

MatMul, Gemm and Conv with constant weights get uint8 activations (one grid a tensor) and int8 weights (one a
output channel); the token table becomes int8 with one scale a row. The residual stream, LayerNorm, Softmax
and products of two activations stay in float: that is where static int8 loses answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from pocketvl.errors import LoweringError
from pocketvl.quantize.arithmetic import Grid, Range, activation_grid, quantize_bias, weight_grid
from pocketvl.quantize.calibrate import Feed, Progress, observe_onnx


def quantize_static_onnx(
    src: Path, dst: Path, feeds: Iterable[Feed], progress: Progress | None = None
) -> tuple[str, ...]:
    """Quantizes a float ONNX graph to static int8.

    Args:
        src: a float graph, as `export_onnx` writes it.
        dst: where the int8 graph is written.
        feeds: calibration samples: per sample, the graph's inputs by name; read once.
        progress: called after each sample.

    Returns:
        Names of the weights that are int8 now.

    Raises:
        DataError: the samples cannot be used.
        LoweringError: the graph bears no weights that could be quantized.
    """
    model = onnx.load(src)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = _weight_layers(model.graph, constants)
    tables = [node for node in model.graph.node if _is_table_lookup(node, constants)]
    if not layers and not tables:
        raise LoweringError(f"{src.name} holds no MatMul, Gemm, Conv or token table with constant weights")
    wanted = dict.fromkeys(layer.node.input[0] for layer in layers)
    wanted.update(dict.fromkeys(layer.node.output[0] for layer in layers if layer.node.op_type == "Conv"))
    ranges = observe_onnx(model, list(wanted), feeds, progress)
    rewriter = _Rewriter(constants, ranges)
    by_output = {layer.node.output[0]: layer for layer in layers}
    looked_up = {node.output[0] for node in tables}
    for node in model.graph.node:
        if node.output[0] in by_output:
            rewriter.quantize_layer(by_output[node.output[0]])
        elif node.output[0] in looked_up:
            rewriter.quantize_table(node)
        else:
            rewriter.nodes.append(node)
    _replace(model.graph, rewriter)
    onnx.checker.check_model(model, full_check=True)
    dst.write_bytes(model.SerializeToString(deterministic=True))
    return tuple(
        dict.fromkeys([*(layer.node.input[1] for layer in layers), *(node.input[0] for node in tables)])
    )


@dataclass(frozen=True)
class _Layer:
    """A node that bears constant weights, and the axis of its output channels in them."""

    node: NodeProto
    axis: int


def _weight_layers(graph: onnx.GraphProto, constants: dict[str, NDArray[np.generic]]) -> list[_Layer]:
    layers = []
    for node in graph.node:
        if len(node.input) < 2 or node.input[0] in constants:
            continue
        weights = constants.get(node.input[1])
        if weights is None or weights.dtype != np.float32:
            continue
        if node.op_type == "Conv":
            layers.append(_Layer(node, 0))
        elif node.op_type == "MatMul" and weights.ndim == 2:
            layers.append(_Layer(node, 1))
        elif node.op_type == "Gemm" and _plain_gemm(node, constants):
            layers.append(_Layer(node, 0 if _attribute(node, "transB", 0) else 1))
    return layers


def _plain_gemm(node: NodeProto, constants: dict[str, NDArray[np.generic]]) -> bool:
    bias = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    factors = (_attribute(node, "alpha", 1.0), _attribute(node, "beta", 1.0), _attribute(node, "transA", 0))
    return factors == (1.0, 1.0, 0) and bias is not None and bias.ndim == 1


def _attribute(node: NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            return float(helper.get_attribute_value(attribute))
    return default


def _is_table_lookup(node: NodeProto, constants: dict[str, NDArray[np.generic]]) -> bool:
    if node.op_type != "Gather" or node.input[1] in constants or _attribute(node, "axis", 0) != 0:
        return False
    table = constants.get(node.input[0])
    return table is not None and table.dtype == np.float32 and table.ndim == 2


class _Rewriter:
    """Collects the nodes and constants of the quantized graph; each tensor is quantized once."""

    def __init__(self, constants: dict[str, NDArray[np.generic]], ranges: dict[str, Range]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}
        self._floats = constants
        self._grids = {name: activation_grid(seen) for name, seen in ranges.items()}
        self._activations: dict[str, str] = {}
        self._weights: dict[tuple[str, int], tuple[str, Grid]] = {}

    def quantize_layer(self, layer: _Layer) -> None:
        """Appends a Conv, MatMul or Gemm between integers."""
        node = NodeProto()
        node.CopyFrom(layer.node)
        source, weights = node.input[0], node.input[1]
        node.input[0] = self._activation(source)
        node.input[1], grid = self._weight(weights, layer.axis)
        if len(node.input) > 2 and node.input[2]:
            node.input[2] = self._bias(node.input[2], node.output[0], self._grids[source], grid)
        self.nodes.append(node)
        if (
            node.op_type == "Conv"
        ):  # onnxruntime multiplies integers in a Conv only where its output is quantized
            output = node.output[0]
            node.output[0] = f"{output}_float"
            self._quantize(node.output[0], output, self._grids[output])

    def quantize_table(self, node: NodeProto) -> None:
        """Appends the lookup of an int8 row and of its scale: only T rows are ever widened, not the table."""
        table, ids, output = node.input[0], node.input[1], node.output[0]
        grid = weight_grid(np.asarray(self._floats[table], dtype=np.float32), axis=0)
        self.constants[f"{table}_quantized"] = grid.quantize(
            np.asarray(self._floats[table], dtype=np.float32)
        )
        self.constants[f"{table}_scale"] = grid.scale.reshape(-1, 1)
        self.nodes += [
            helper.make_node("Gather", [f"{table}_quantized", ids], [f"{output}_row"], f"{output}_row"),
            helper.make_node(
                "Gather", [f"{table}_scale", ids], [f"{output}_row_scale"], f"{output}_row_scale"
            ),
            helper.make_node(
                "Cast",
                [f"{output}_row"],
                [f"{output}_row_float"],
                f"{output}_row_float",
                to=onnx.TensorProto.FLOAT,
            ),
            helper.make_node(
                "Mul", [f"{output}_row_float", f"{output}_row_scale"], [output], f"{output}_dequantize"
            ),
        ]

    def _activation(self, name: str) -> str:
        if name not in self._activations:
            self._activations[name] = f"{name}_dequantized"
            self._quantize(name, self._activations[name], self._grids[name])
        return self._activations[name]

    def _quantize(self, source: str, target: str, grid: Grid) -> None:
        scale, zero = f"{target}_scale", f"{target}_zero_point"
        self.constants[scale] = grid.scale
        self.constants[zero] = np.asarray(grid.zero_point, dtype=grid.dtype)
        self.nodes.append(
            helper.make_node("QuantizeLinear", [source, scale, zero], [f"{target}_q"], f"{target}_q")
        )
        self.nodes.append(
            helper.make_node("DequantizeLinear", [f"{target}_q", scale, zero], [target], f"{target}_dq")
        )

    def _weight(self, name: str, axis: int) -> tuple[str, Grid]:
        if (name, axis) not in self._weights:
            weights = np.asarray(self._floats[name], dtype=np.float32)
            grid = weight_grid(weights, axis)
            stem = name if not any(other == name for other, _ in self._weights) else f"{name}_axis{axis}"
            zeros = np.zeros(grid.scale.shape, dtype=np.int8)
            self._dequantize(stem, grid.quantize(weights), grid.scale, zeros, axis)
            self._weights[name, axis] = (f"{stem}_dequantized", grid)
        return self._weights[name, axis]

    def _bias(self, name: str, output: str, activation: Grid, weights: Grid) -> str:
        bias = np.asarray(self._floats[name], dtype=np.float32)
        steps, scale = quantize_bias(
            np.broadcast_to(bias, weights.scale.shape), activation.scale, weights.scale
        )
        stem = f"{name}_of_{output}"  # equal biases share one initializer, but not one scale
        self._dequantize(stem, steps, scale, None, 0)
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
        self.constants[inputs[0]], self.constants[inputs[1]] = integers, scale
        if zeros is not None:
            inputs.append(f"{stem}_zero_point")
            self.constants[inputs[2]] = zeros
        output = f"{stem}_dequantized"
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], output, axis=axis))


def _replace(graph: onnx.GraphProto, rewriter: _Rewriter) -> None:
    """Puts the new nodes and constants into the graph, and drops constants that nothing reads any more."""
    nodes = list(rewriter.nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in rewriter.constants.items()
    )
