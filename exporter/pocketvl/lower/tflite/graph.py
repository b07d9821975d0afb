"""Inspect a TFLite file: inputs and outputs, op counts, tensor types."""

from __future__ import annotations

import mmap
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

from pocketvl.errors import LoweringError
from pocketvl.lower.base import GraphIO, refuse_ops
from pocketvl.lower.ids import Dataflow, GraphOp
from pocketvl_runtime.manifest import TensorSpec

TFLITE_IDENTIFIER = b"TFL3"
"""Bytes 4 to 8 of a file."""

_CUSTOM = "CUSTOM"
_INDEXED = {"EMBEDDING_LOOKUP": 0, "GATHER": 1}
"""Ops that look something up, and which of their inputs is the index."""


def read_tflite(path: Path, weights: bool = True) -> Any:
    """Read a .tflite file into flatbuffers' object tree (ModelT).

    Args:
        path: of the file.
        weights: whether they are read, and may be changed. Without, they are looked up in the file, which
            must stay as it is, and a large graph is read at once.

    Raises:
        LoweringError: the file cannot be read.
    """
    content: bytearray | memoryview
    try:
        with path.open("rb") as file:
            if weights:
                content = bytearray(path.stat().st_size)  # as flatbuffers take it, so that it is there once
                file.readinto(content)
            else:
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if bytes(content[4:8]) != TFLITE_IDENTIFIER:
            raise LoweringError(f"{path} is not a TFLite file")
        return parse_tflite(content)
    except LoweringError:
        raise
    except Exception as error:  # flatbuffers fail wherever the bytes first make no sense
        raise LoweringError(f"{path} is not a readable TFLite file: {error}") from error


def parse_tflite(content: bytearray | memoryview) -> Any:
    """A .tflite file's content as flatbuffers' object tree (ModelT); every buffer is an array.

    One that lay behind the flatbuffer, as in large files, would be bytes, which flatbuffers write one by one:
    minutes for a token table.
    """
    model = flatbuffer_utils.read_model_from_bytearray(content)
    for buffer in model.buffers:
        if isinstance(buffer.data, bytes | bytearray | memoryview):
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    return model


def op_name(model: Any, op: Any) -> str:
    """The type of an op of a TFLite object tree; "CUSTOM:Name" for one that is not built in."""
    code = model.operatorCodes[op.opcodeIndex]
    builtin = str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex))
    custom = code.customCode
    if custom is None:
        return builtin
    return f"{_CUSTOM}:{text_of(custom)}"


def text_of(name: bytes | str) -> str:
    """A name out of a TFLite object tree, which holds some as bytes."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def op_counts_tflite(path: Path) -> dict[str, int]:
    """Op type -> count, by name; a custom op is "CUSTOM:Name".

    Raises:
        LoweringError: the file cannot be read.
    """
    model = read_tflite(path, weights=False)
    names = [op_name(model, op) for graph in model.subgraphs for op in graph.operators]
    return dict(sorted(Counter(names).items()))


def check_ops_tflite(path: Path) -> None:
    """Raise LoweringError, naming them, where a graph holds Flex or custom ops."""
    refuse_ops(path, [name for name in op_counts_tflite(path) if name.startswith(_CUSTOM)])


def graph_io_tflite(path: Path) -> GraphIO:
    """Read the inputs and outputs of the one signature of a .tflite file.

    Raises:
        LoweringError: the file cannot be read, has dynamic shapes, or not exactly one signature.
    """
    model = read_tflite(path, weights=False)
    signatures = model.signatureDefs or []
    if len(signatures) != 1:
        raise LoweringError(f"{path.name} has {len(signatures)} signatures; exactly one is needed")
    (signature,) = signatures
    tensors = model.subgraphs[signature.subgraphIndex].tensors
    return GraphIO(
        tuple(_spec(entry, tensors, path) for entry in signature.inputs),
        tuple(_spec(entry, tensors, path) for entry in signature.outputs),
        text_of(signature.signatureKey),
    )


def dataflow_tflite(path: Path) -> Dataflow:
    """A graph's ops and the types of its tensors, by their number.

    Raises:
        LoweringError: the file cannot be read.
    """
    model = read_tflite(path, weights=False)
    (graph,) = model.subgraphs
    types = {index: tensor_dtype(tensor) for index, tensor in enumerate(graph.tensors)}
    ops = []
    for op in graph.operators:
        name = op_name(model, op)
        ops.append(GraphOp(name, tuple(op.inputs), tuple(op.outputs), _INDEXED.get(name)))
    return Dataflow(tuple(ops), types, tuple(graph.inputs))


def tensor_dtype(tensor: Any) -> str:
    """The dtype of a tensor of a TFLite object tree, as numpy calls it; "int4"."""
    return text_of(flatbuffer_utils.type_to_name(tensor.type)).lower()


def _spec(entry: Any, tensors: list[Any], path: Path) -> TensorSpec:
    tensor = tensors[entry.tensorIndex]
    name = text_of(entry.name)
    signature = tensor.shapeSignature
    if signature is not None and any(side < 0 for side in signature):
        raise LoweringError(f"{path.name}: {name} has a dynamic shape; lower it with static shapes")
    shape = tuple(int(side) for side in (tensor.shape if tensor.shape is not None else ()))
    return TensorSpec(name, tensor_dtype(tensor), shape)
