"""Inspect an ONNX file: inputs and outputs, op counts, tensor types."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx

from pocketvl.errors import LoweringError
from pocketvl.lower.base import GraphIO, refuse_ops, weights_path
from pocketvl.lower.ids import Dataflow, GraphOp
from pocketvl.lower.least_engine import LeastEngine, newest
from pocketvl.lower.onnx.files import read_onnx
from pocketvl_runtime.manifest import TensorSpec

BLOCKS_DOMAIN, BLOCKS_OP = "com.microsoft", "MatMulNBits"
"""ONNX Runtime's product with weights of few bits in blocks, for which ai.onnx has nothing that is fast."""

_DOMAINS = ("", "ai.onnx")
_ALLOWED = (f"{BLOCKS_DOMAIN}::{BLOCKS_OP}",)
_BLOCKS_BITS = {2: "1.24", 8: "1.23"}
"""By the bits of MatMulNBits, the first ONNX Runtime that has them; every one that is supported has 4.

Measured with two blocks of 32: 1.23.2 refuses 2 bits and 1.24.1 is right; 1.21.1 refuses 8 bits, 1.22.0 has
them only where it may quantize the input (accuracy_level 4), 1.23.0 without that too.
"""
_BLOCKS_BITS_INTEGER = {**_BLOCKS_BITS, 8: "1.22"}
_BESIDE = "1.24"
"""The first ONNX Runtime whose Python takes weights beside a graph from memory; 1.23.2 does not."""
_INTEGER_INPUT = 4
"""The accuracy_level at which the input may be quantized to 8 bits."""

_INDEXED = {"Gather": 1}
"""Ops that look something up, and which of their inputs is the index."""


def op_counts_onnx(path: Path) -> dict[str, int]:
    """Op type -> count, by name; an op outside ai.onnx is "domain::Type".

    Raises:
        LoweringError: the file cannot be read.
    """
    return dict(sorted(Counter(map(_name, read_onnx(path).graph.node)).items()))


def check_ops_onnx(path: Path) -> None:
    """Raise LoweringError, naming them, where a graph holds ops outside ai.onnx.

    One is let through: com.microsoft's MatMulNBits, which every official build of ONNX Runtime has.
    """
    refuse_ops(path, [name for name in op_counts_onnx(path) if "::" in name and name not in _ALLOWED])


def graph_io_onnx(path: Path) -> GraphIO:
    """Read the inputs and outputs of a .onnx file.

    Raises:
        LoweringError: the file cannot be read, or has dynamic shapes.
    """
    graph = read_onnx(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    return GraphIO(
        tuple(_spec(value, path) for value in graph.input if value.name not in constants),
        tuple(_spec(value, path) for value in graph.output),
    )


def dataflow_onnx(path: Path) -> Dataflow:
    """A graph's ops and the types of its tensors.

    Raises:
        LoweringError: the file cannot be read.
    """
    graph = onnx.shape_inference.infer_shapes(read_onnx(path)).graph
    types = {
        value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    ops = tuple(
        GraphOp(node.op_type, tuple(node.input), tuple(node.output), _INDEXED.get(node.op_type))
        for node in graph.node
    )
    for op in ops:
        for output in op.outputs:  # ops outside ai.onnx, whose types nothing infers, all multiply floats
            types.setdefault(str(output), "float32")
    return Dataflow(ops, types, tuple(value.name for value in graph.input))


def least_engine_onnx(path: Path) -> LeastEngine | None:
    """The oldest ONNX Runtime that computes a .onnx file rightly; None: any that is supported.

    Raises:
        LoweringError: the file cannot be read.
    """
    asked = [_asked_for(node, path.name) for node in read_onnx(path).graph.node]
    if weights_path(path).exists():
        asked.append(LeastEngine(_BESIDE, f"{path.name}: weights in a file beside it"))
    return newest(asked)


def _asked_for(node: onnx.NodeProto, file: str) -> LeastEngine | None:
    if node.op_type != BLOCKS_OP:
        return None
    attributes = {each.name: each.i for each in node.attribute}
    bits = attributes["bits"]
    is_integer = attributes.get("accuracy_level", 0) == _INTEGER_INPUT
    version = (_BLOCKS_BITS_INTEGER if is_integer else _BLOCKS_BITS).get(bits)
    return LeastEngine(version, f"{file}: {BLOCKS_OP} of {bits} bits") if version else None


def _name(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in _DOMAINS else f"{node.domain}::{node.op_type}"


def _spec(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    if not tensor.HasField("shape") or not all(shape):
        raise LoweringError(f"{path.name}: {value.name} has a dynamic shape; lower it with static shapes")
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)
