"""The work of TFLite operators, and which of them each of the delegate's operators is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from pocketvl.explain.classes import OpClass, class_of, short_name
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
from pocketvl.lower.tflite.graph import op_name, read_tflite, tensor_dtype, text_of
from pocketvl_runtime.op_result import DELEGATE, GraphOps

_SOME = 100
_SAME = {  # the delegate's names of ops that it may run one by one
    "Softmax": "SOFTMAX",
    "Transpose": "TRANSPOSE",
    "GELU": "GELU",
    "TanH": "TANH",
    "Sigmoid": "LOGISTIC",
    "Concatenate": "CONCATENATION",
    "Add": "ADD",
    "Subtract": "SUB",
    "Multiply": "MUL",
    "Divide": "DIV",
    "Resize Bilinear": "RESIZE_BILINEAR",
    "Max Pooling": "MAX_POOL_2D",
    "Average Pooling": "AVERAGE_POOL_2D",
}


def read_tflite_work(path: Path) -> GraphFile:
    """The operators of a .tflite file's main graph.

    Raises:
        LoweringError: the file cannot be read.
    """
    model = read_tflite(path, weights=False)
    graph = model.subgraphs[0]
    tensors = [_tensor(model, index, each) for index, each in enumerate(graph.tensors)]
    nodes = tuple(_node(model, op, tensors) for op in graph.operators)
    weights: Counter[str] = Counter()
    for each in tensors:
        if each.constant and each.elements > _SOME:
            weights[each.dtype] += int(each.size_bytes)
    return GraphFile(True, nodes, path.stat().st_size, weights)


def works_of_ops(graph: GraphOps, file: GraphFile) -> Iterator[Work]:
    """What each of the operators that LiteRT ran had to do, in their order, as far as it is known.

    One of the interpreter's tells its node. The delegate's do not, and it rewrites what it runs; but it keeps
    the order, so that where it runs as many ops of a kind as are left to it, these are the same.
    """
    own = {op.node for op in graph.ops if op.node is not None and op.unit != DELEGATE and op.name is None}
    left = [node for index, node in enumerate(file.nodes) if index not in own]
    delegated = [op.type for op in graph.ops if op.unit == DELEGATE and op.name is None]
    found = _matched(delegated, left)
    position = 0
    for op in graph.ops:
        if op.unit == DELEGATE and op.name is None:
            work = found.get(position, Work(precision=_precision_told(op.type)))
            if work.macs is not None:
                work = replace(work, precision=_precision_told(op.type) or work.precision)
            yield work
            position += 1
        elif op.node is not None and op.name is None and op.node < len(file.nodes):
            yield file.nodes[op.node].work
        else:
            yield Work()


def _matched(delegated: Sequence[str], left: Sequence[Node]) -> dict[int, Work]:
    """By the position of a delegated op, the work of the node that it is."""
    multiplies = [index for index, op in enumerate(delegated) if class_of(op) is OpClass.MULTIPLY]
    nodes = [node.work for node in left if class_of(node.type) is OpClass.MULTIPLY]
    found = dict(zip(multiplies, nodes, strict=True)) if len(multiplies) == len(nodes) else {}
    for name, kind in _SAME.items():
        same = [index for index, op in enumerate(delegated) if short_name(op) == name]
        nodes = [node.work for node in left if node.type == kind]
        if len(same) == len(nodes):
            found.update(zip(same, nodes, strict=True))
    return found


def _precision_told(op: str) -> str | None:
    """In which precision one of XNNPACK's operators multiplies, as its name tells."""
    if class_of(op) is not OpClass.MULTIPLY:
        return None
    told = op.partition("(")[2].partition(")")[0]
    if "4W" in told:
        return INT4
    if any(kind in told for kind in ("QS8", "QU8", "QC8", "QD", "QP8")):
        return INT8
    return FP16 if "F16" in told and "F32" not in told else FP32


def _node(model: Any, op: Any, tensors: Sequence[Tensor]) -> Node:
    kind = op_name(model, op)
    inputs = [tensors[index] for index in _indices(op.inputs)]
    outputs = [tensors[index] for index in _indices(op.outputs)]
    return Node(kind, "", _work(kind, inputs, outputs))


def _indices(values: Any) -> list[int]:
    return [] if values is None else [int(index) for index in values if index >= 0]


def _work(kind: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    plain = plain_work(inputs, outputs)
    if class_of(kind) is not OpClass.MULTIPLY or len(inputs) < 2 or not outputs:
        return plain
    first, second = (inputs[2], inputs[1]) if kind == "TRANSPOSE_CONV" and len(inputs) > 2 else inputs[:2]
    result = outputs[0]
    columns = max(result.shape[-1], 1) if result.shape else 1
    rows = result.elements // columns
    if kind == "BATCH_MATMUL":
        inner = first.elements // max(rows, 1) or 1
    elif kind == "DEPTHWISE_CONV_2D":
        inner = prod(second.shape[1:3])
    else:
        inner = prod(second.shape[1:])
    return replace(
        plain,
        macs=result.elements * inner,
        precision=precision_of((first, second)),
        is_linear=second.constant or kind != "BATCH_MATMUL",
        channels=(rows, inner, columns),
    )


def _tensor(model: Any, index: int, tensor: Any) -> Tensor:
    buffer = model.buffers[tensor.buffer]
    shape = tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
    stored = (buffer.data is not None and len(buffer.data) > 0) or bool(getattr(buffer, "offset", 0))
    return Tensor(tensor_dtype(tensor), shape, stored, f"{index} {text_of(tensor.name or b'')}")
