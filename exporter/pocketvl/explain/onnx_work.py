"""The work of ONNX operators: of a graph file's nodes, and of what ONNX Runtime made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import onnx

from pocketvl.explain.classes import OpClass, class_of
from pocketvl.explain.work import (
    FP16,
    FP32,
    INT4,
    INT8,
    GraphFile,
    Node,
    Tensor,
    Work,
    plain_work,
    precision_of,
)
from pocketvl.lower.onnx.files import read_onnx
from pocketvl_runtime.op_result import OpTime

_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger", "ConvTranspose")
_INTEGER = (
    *("QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
    *("QLinearConv", "ConvInteger", "QAttention"),
)
_EINSUM = "Einsum"
_BLOCKS = ("MatMulNBits", "MatMulBnb4")
_SOME = 100


def read_onnx_work(path: Path) -> GraphFile:
    """The operators of a .onnx file.

    Raises:
        LoweringError: the file cannot be read.
    """
    model = read_onnx(path)
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # nodes outside ai.onnx, or shapes that contradict each other
        graph = model.graph
    tensors = _tensors(graph)
    nodes = tuple(
        Node(
            node.op_type,
            node.name,
            _node_work(node, _named(node.input, tensors), _named(node.output, tensors)),
        )
        for node in graph.node
    )
    weights: Counter[str] = Counter()
    for each in tensors.values():
        if each.constant and each.elements > _SOME:
            weights[each.dtype] += int(each.size_bytes)
    return GraphFile(False, nodes, path.stat().st_size, weights)


def work_of_op(op: OpTime, file: GraphFile) -> Work:
    """What an operator of ONNX Runtime had to do, as its profile tells the shapes of its tensors.

    Weights that the engine has packed are not among them: what is missing of a linear follows from its
    shapes, and of a convolution from the file.
    """
    named = {node.name: node.work for node in file.nodes if node.name}
    constants = {
        (each.dtype, each.shape) for node in file.nodes for each in node.work.inputs if each.constant
    }
    inputs = [Tensor.parse(text) for text in op.inputs]
    inputs = [
        replace(each, constant=(each.dtype, each.shape) in constants and bool(each.shape)) for each in inputs
    ]
    outputs = [Tensor.parse(text) for text in op.outputs]
    if class_of(op.type) is not OpClass.MULTIPLY or not inputs or not outputs:
        return plain_work(inputs, outputs)
    known = named.get(op.name or "", Work())
    if op.type == _EINSUM:
        return known
    if op.type in _CONVOLUTIONS:
        weights = _weights_of(inputs) or _weights_of(known.inputs)
        return _convolution(op.type, inputs, outputs, weights)
    return _product(op.type, inputs, outputs)


def _node_work(node: onnx.NodeProto, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    kind = node.op_type
    if class_of(kind) is not OpClass.MULTIPLY or not inputs or not outputs:
        return plain_work(inputs, outputs)
    if kind in _CONVOLUTIONS:
        return _convolution(kind, inputs, outputs, _weights_of(inputs))
    if kind == _EINSUM:
        return _einsum(onnx.helper.get_node_attr_value(node, "equation").decode(), inputs, outputs)
    return _product(kind, inputs, outputs)


def _einsum(equation: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """A sum of products over every index of its equation, "bqhd,bkhd->bhqk"."""
    plain = replace(plain_work(inputs, outputs), precision=precision_of(inputs))
    sizes: dict[str, int] = {}
    for term, tensor in zip(equation.replace(" ", "").partition("->")[0].split(","), inputs, strict=False):
        if "..." in term or len(term) != len(tensor.shape):
            return plain
        sizes.update({index: max(size, 1) for index, size in zip(term, tensor.shape, strict=True)})
    is_linear = any(each.constant for each in inputs)
    return replace(plain, macs=prod(sizes.values()), is_linear=is_linear)


def _product(kind: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """A product of matrices; where its second factor is not told, it is weights that were packed."""
    first, result = inputs[0], outputs[0]
    if not first.shape or not result.shape:
        return plain_work(inputs, outputs)
    columns = result.shape[-1]
    rows = max(result.elements // max(columns, 1), 1)
    inner = first.elements // rows if len(first.shape) <= 2 else first.shape[-1]
    second = next((each for each in inputs[1:] if len(each.shape) >= 2), None)
    precision = _precision(kind, inputs)
    bits = {INT4: 4, INT8: 8, FP16: 16}.get(precision, 32)
    is_linear = second is None or second.constant or len(second.shape) == 2
    weights = inner * columns * bits / 8 if is_linear else 0.0
    plain = plain_work(inputs, outputs)
    moved = plain.moved_bytes + (weights if second is None else 0.0)
    return replace(
        plain,
        macs=result.elements * inner,
        weight_bytes=weights,
        moved_bytes=moved,
        precision=precision,
        is_linear=is_linear,
        channels=(rows, inner, columns),
    )


def _convolution(
    kind: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], weights: Tensor | None
) -> Work:
    plain = replace(plain_work(inputs, outputs), precision=_precision(kind, inputs), is_linear=True)
    if weights is None:
        return plain
    per_output = prod(weights.shape[1:])
    return replace(plain, macs=outputs[0].elements * per_output, weight_bytes=weights.size_bytes)


def _weights_of(inputs: Sequence[Tensor]) -> Tensor | None:
    """The kernel of a convolution: the second tensor of three sizes or more."""
    return next((each for each in inputs[1:] if len(each.shape) >= 3), None)


def _precision(kind: str, inputs: Sequence[Tensor]) -> str:
    if kind in _BLOCKS:
        return INT4
    if kind in _INTEGER:
        return INT8
    return FP16 if precision_of(inputs) == FP16 else FP32


def _tensors(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Every tensor whose dtype is known, by name."""
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.elem_type:
            shape = tuple(dim.dim_value for dim in kind.shape.dim)
            found[value.name] = Tensor(_dtype(kind.elem_type), shape, key=value.name)
    for tensor in graph.initializer:
        found[tensor.name] = Tensor(_dtype(tensor.data_type), tuple(tensor.dims), True, tensor.name)
    for node in graph.node:
        if node.op_type == "Constant":
            for name in node.output:
                if name in found:
                    found[name] = replace(found[name], constant=True)
    return found


def _dtype(code: int) -> str:
    name = str(onnx.TensorProto.DataType.Name(code)).lower()
    return "float32" if name == "float" else name


def _named(names: Sequence[str], tensors: dict[str, Tensor]) -> list[Tensor]:
    return [tensors.get(name, Tensor("float32", (), key=name)) for name in names if name]
