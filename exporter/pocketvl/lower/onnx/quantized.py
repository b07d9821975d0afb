"""Write a quantized component into a float ONNX graph: each layer in the ops of its form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from pocketvl.errors import LoweringError
from pocketvl.lower.forms import Form, check_component, form_of, refuse
from pocketvl.lower.onnx.files import read_onnx, write_onnx
from pocketvl.lower.onnx.graph import BLOCKS_DOMAIN, BLOCKS_OP, check_ops_onnx
from pocketvl.lower.onnx.products import products_of
from pocketvl.network.integers import (
    ActivationGrid,
    QuantizedComponent,
    QuantizedLayer,
    QuantizedProduct,
)
from pocketvl.network.specification import Mode

# How MatMulNBits may compute. 0 widens the weights to floats and multiplies those; 4 puts the input on 8-bit
# grids, a block at a time, and multiplies integers: what "dynamic" says, and near to what LiteRT does. On
# [50, 768] x [768, 3072], blocks of 32, one input channel 20 times the others, ONNX Runtime 1.32 with
# AVX512-VNNI, one thread, beside a float product of 2.4 ms: 0 takes 2.7 ms and is off by 4e-7 of the output's
# size, 4 takes 1.9 ms and is off by 7e-3, where 4 bits for the weights alone are off by 1e-1.
_ACCURACY_LEVEL = {Mode.DYNAMIC: 4, Mode.WEIGHT_ONLY: 0}


def write_quantized_onnx(source: Path, component: QuantizedComponent, target: Path) -> None:
    """Write the component's integers into a float graph that keeps its weights under the module's names.

    Layers that the component does not name stay as they are. Static activations are uint8, what ONNX Runtime
    runs fastest: the component's own grids. A token table becomes the lookup of an int8 row and of its scale.
    Weights in blocks are read by com.microsoft's MatMulNBits, which ONNX Runtime has on every platform.

    Args:
        source: the float graph of the module that the component was quantized from, as `export_onnx` writes
        it. component: its integers.
        target: where the quantized graph is written.

    Raises:
        LoweringError: the graph does not hold the component's layers, or no engine runs one of them.
    """
    check_component(component)
    model = read_onnx(source, weights=True)
    rewriter = _Rewriter(model.graph, component, products_of(source, component))
    for node in model.graph.node:
        rewriter.add(node)
    lost = sorted(set(component.layers) - rewriter.written)
    if lost:
        raise LoweringError(f"{source.name} holds no node for {len(lost)} layers, {lost[0]} for one")
    rewriter.finish_(model.graph)
    if any(node.domain == BLOCKS_DOMAIN for node in model.graph.node):
        model.opset_import.append(helper.make_opsetid(BLOCKS_DOMAIN, 1))
    write_onnx(model, target)
    check_ops_onnx(target)


class _Rewriter:
    """Collects the nodes and constants of the quantized graph; each tensor is quantized once."""

    def __init__(
        self, graph: onnx.GraphProto, component: QuantizedComponent, products: Mapping[str, QuantizedProduct]
    ) -> None:
        self.written: set[str] = set()
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, NDArray[np.generic]] = {}
        self._component = component
        self._products = products  # by what their node gives
        self._dequantized: dict[tuple[str, ActivationGrid], str] = {}
        self._dynamic: dict[str, tuple[str, str, str]] = {}  # by tensor: its integers, scale, zero point
        self._bias_adds = _bias_adds(graph)
        self._absorbed: set[str] = set()  # outputs of additions that their layer has taken in

    def add(self, node: NodeProto) -> None:
        """Append a node of the float graph, or what stands for it."""
        if node.output[0] in self._absorbed:
            return
        copy = NodeProto()
        copy.CopyFrom(node)
        name, layer = self._layer(copy)
        if layer is None:
            self._two_activations(copy)
            return
        self.written.add(name)
        form = form_of(name, layer.spec)
        if copy.op_type == "Gather":
            self._table(copy, name, layer, form)
        elif copy.op_type == "Conv" and form is Form.DYNAMIC:
            self._dynamic_convolution(copy, name, layer)
        elif copy.op_type == "Conv" and form not in (Form.STATIC, Form.WIDENED):
            raise refuse(name, layer, "a convolution")
        else:
            self._product(copy, name, layer, form)

    def finish_(self, graph: onnx.GraphProto) -> None:
        """Put the new nodes and constants into the graph, and drops constants that nothing reads now."""
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
        index = 0 if node.op_type == "Gather" else 1
        if node.op_type not in ("Gather", "MatMul", "Gemm", "Conv") or len(node.input) <= index:
            return "", None
        name = node.input[index].removesuffix(".weight")
        return name, self._component.layers.get(name) if name != node.input[index] else None

    def _product(self, node: NodeProto, name: str, layer: QuantizedLayer, form: Form) -> None:
        _check_plain(node, name)
        own = node.input[2] if len(node.input) > 2 else ""
        add = self._bias_adds.get(node.output[0])
        if layer.bias is not None and add is not None:
            self._absorbed.add(add.output[0])
            node.output[0] = add.output[0]
        if form in (Form.STATIC, Form.WIDENED):
            self._float_product(node, name, layer, own)
            return
        bias = own if layer.bias is None else self._float_bias(name, layer)
        if form is Form.DYNAMIC:
            self._dynamic_product(node, name, layer, bias)
        else:
            self._blocks_product(node, name, layer, bias)

    def _float_product(self, node: NodeProto, name: str, layer: QuantizedLayer, own_bias: str) -> None:
        """The node itself, between dequantized weights and, where the layer is static, activations."""
        output, bias = node.output[0], own_bias
        if layer.bias is not None:
            bias = self._float_bias(name, layer) if layer.input is None else self._static_bias(name, layer)
        if layer.input is not None:
            node.input[0] = self._activation(node.input[0], layer.input)
        weights = self._widened_weights if layer.input is None else self._weights
        node.input[1] = weights(name, layer, _is_transposed(node))
        del node.input[2:]
        target = output if layer.output is None else f"{output}_float"
        node.output[0] = target
        self._nodes.append(node)
        if bias and node.op_type == "MatMul":
            node.output[0] = f"{target}_unbiased"
            self._add_bias(node.output[0], bias, target)
        elif bias:
            node.input.append(bias)
        if layer.output is not None:
            self._grid(target, output, layer.output)
            self._dequantized[output, layer.output] = output

    def _two_activations(self, node: NodeProto) -> None:
        """A node without weights; a quantized product is a float one between grids."""
        product = self._products.get(node.output[0])
        if product is None:
            self._nodes.append(node)
            return
        output = node.output[0]
        for index, grid in enumerate((product.left, product.right)):
            node.input[index] = self._activation(node.input[index], grid)
        self._nodes.append(node)
        if product.output is not None:
            node.output[0] = f"{output}_float"
            self._grid(node.output[0], output, product.output)

    def _dynamic_product(self, node: NodeProto, name: str, layer: QuantizedLayer, bias: str) -> None:
        """The pattern that ONNX Runtime fuses into MatMulIntegerToFloat or DynamicQuantizeMatMul."""
        integers, scale, zero_point = self._dynamic_input(node.input[0])
        stem, weight = node.output[0], f"{name}.weight"
        total, wide, step = f"{stem}_integer", f"{stem}_wide", f"{stem}_scale"
        product = f"{stem}_unbiased" if bias else stem
        constants = [f"{weight}_quantized", f"{weight}_scale", f"{weight}_zero_point"]
        self._constants[constants[0]] = np.ascontiguousarray(layer.weights.T)
        self._constants[constants[1]] = layer.scale
        self._constants[constants[2]] = np.zeros(layer.scale.shape, np.int8)
        self._nodes += [
            helper.make_node(
                "MatMulInteger", [integers, constants[0], zero_point, constants[2]], [total], total
            ),
            helper.make_node("Cast", [total], [wide], wide, to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [scale, constants[1]], [step], step),
            helper.make_node("Mul", [wide, step], [product], product),
        ]
        if bias:
            self._add_bias(product, bias, stem)

    def _dynamic_convolution(self, node: NodeProto, name: str, layer: QuantizedLayer) -> None:
        """As `_dynamic_product`, with scales and bias along the channels of [1, channels, height, width]."""
        integers, scale, zero_point = self._dynamic_input(node.input[0])
        stem, weight = node.output[0], f"{name}.weight"
        total, wide, step = f"{stem}_integer", f"{stem}_wide", f"{stem}_scale"
        product = stem if layer.bias is None else f"{stem}_unbiased"
        channels = (-1, *[1] * (layer.weights.ndim - 2))
        self._constants[f"{weight}_quantized"] = layer.weights
        self._constants[f"{weight}_scale"] = layer.scale.reshape(channels)
        multiply = helper.make_node(
            "ConvInteger", [integers, f"{weight}_quantized", zero_point], [total], total
        )
        multiply.attribute.extend(node.attribute)
        self._nodes += [
            multiply,
            helper.make_node("Cast", [total], [wide], wide, to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [scale, f"{weight}_scale"], [step], step),
            helper.make_node("Mul", [wide, step], [product], product),
        ]
        if layer.bias is not None:
            self._constants[f"{name}.bias_float"] = layer.bias.reshape(channels)
            self._add_bias(product, f"{name}.bias_float", stem)

    def _dynamic_input(self, name: str) -> tuple[str, str, str]:
        if name not in self._dynamic:
            outputs = (f"{name}_dynamic_q", f"{name}_dynamic_scale", f"{name}_dynamic_zero_point")
            self._nodes.append(helper.make_node("DynamicQuantizeLinear", [name], list(outputs), outputs[0]))
            self._dynamic[name] = outputs
        return self._dynamic[name]

    def _blocks_product(self, node: NodeProto, name: str, layer: QuantizedLayer, bias: str) -> None:
        size = layer.spec.weights.group_size
        weights = f"{name}.weight_blocks"
        self._constants[weights] = packed_blocks(layer)
        self._constants[f"{name}.weight_scale"] = layer.scale
        inputs = [node.input[0], weights, f"{name}.weight_scale"]
        if layer.zero_point is not None:
            inputs.append(f"{name}.weight_zero_point")
            self._constants[inputs[-1]] = packed(layer.zero_point, layer.spec.weights.bits)
        if bias:
            inputs += [""] * (5 - len(inputs)) + [bias]
        self._nodes.append(
            helper.make_node(
                BLOCKS_OP,
                inputs,
                [node.output[0]],
                node.name,
                domain=BLOCKS_DOMAIN,
                N=layer.weights.shape[0],
                K=layer.weights.shape[1],
                bits=layer.spec.weights.bits,
                block_size=size,
                accuracy_level=_ACCURACY_LEVEL[layer.spec.mode],
            )
        )

    def _table(self, node: NodeProto, name: str, layer: QuantizedLayer, form: Form) -> None:
        if form is not Form.WIDENED:
            raise refuse(name, layer, "a lookup")
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

    def _widened_weights(self, name: str, layer: QuantizedLayer, transposed: bool) -> str:
        """Not by DequantizeLinear: ONNX Runtime makes MatMulNBits of that, and quantizes the input too."""
        stem = f"{name}.weight"
        if f"{stem}_quantized" not in self._constants:
            sides = [-1] + [1] * (layer.weights.ndim - 1)
            scale = layer.scale.reshape(sides)
            self._constants[f"{stem}_quantized"] = (
                np.ascontiguousarray(layer.weights.T) if transposed else layer.weights
            )
            self._constants[f"{stem}_scale"] = scale.T if transposed else scale
            wide, product = f"{stem}_wide", f"{stem}_dequantized"
            self._nodes += [
                helper.make_node("Cast", [f"{stem}_quantized"], [wide], wide, to=onnx.TensorProto.FLOAT),
                helper.make_node("Mul", [wide, f"{stem}_scale"], [product], product),
            ]
        return f"{stem}_dequantized"

    def _static_bias(self, name: str, layer: QuantizedLayer) -> str:
        stem = f"{name}.bias"
        if f"{stem}_quantized" not in self._constants and layer.bias is not None:
            self._dequantize(stem, layer.bias, layer.bias_scale(), None, 0)
        return f"{stem}_dequantized"

    def _float_bias(self, name: str, layer: QuantizedLayer) -> str:
        """The component's bias as its own initializer: the graph's may be shared with other layers."""
        if layer.bias is not None:
            self._constants[f"{name}.bias_float"] = layer.bias
        return f"{name}.bias_float"

    def _add_bias(self, product: str, bias: str, output: str) -> None:
        self._nodes.append(helper.make_node("Add", [product, bias], [output], f"{output}_add_bias"))

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


def packed_blocks(layer: QuantizedLayer) -> NDArray[np.uint8]:
    """Weights of 2, 4 or 8 bits as MatMulNBits reads them: [channels, blocks, bytes of a block].

    Where it is given no zero points, the middle of the integers stands for 0.
    """
    bits, zero_point = layer.spec.weights.bits, layer.zero_point
    zeros = np.int16(1 << (bits - 1)) if zero_point is None else zero_point.astype(np.int16)[..., None]
    steps = layer.weights.astype(np.int16).reshape(*layer.scale.shape, -1)  # [channels, blocks, weights]
    return packed((steps + zeros).astype(np.uint8), bits)


def packed(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The last axis in whole bytes, as many values in one as it holds; the first in its lowest bits."""
    share = 8 // bits
    missing = -values.shape[-1] % share
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)])
    split = padded.reshape(*values.shape[:-1], -1, share) << np.arange(0, 8, bits, dtype=np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(split, axis=-1)
    return packed


def _bias_adds(graph: onnx.GraphProto) -> dict[str, NodeProto]:
    """By the output of a MatMul: the Add of a bias that alone reads it.

    Equal constants become one in a float graph, so that a bias may be called after another layer's.
    """
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
            if len(others) == 1 and others[0] in vectors and others[0].endswith(".bias"):
                found[node.output[0]] = after[0]
    return found


def _is_transposed(node: NodeProto) -> bool:
    """Whether a node reads its weights as [inputs, channels]."""
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not _attribute(node, "transB", 0))


def _check_plain(node: NodeProto, name: str) -> None:
    """Raise LoweringError where a Gemm does more than multiply by weights and add a bias."""
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    if node.op_type == "Gemm" and any(_attribute(node, key, value) != value for key, value in plain.items()):
        raise LoweringError(
            f"{name} is multiplied by a Gemm that scales or transposes; none such is quantized"
        )


def _attribute(node: NodeProto, name: str, default: float) -> float:
    for each in node.attribute:
        if each.name == name:
            value: float = helper.get_attribute_value(each)
            return value
    return default
