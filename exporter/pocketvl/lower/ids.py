"""Token ids stay integers: they index tables and are compared, and nothing else becomes of them.

An engine that computes fp32 graphs in bf16 or fp16 (OpenVINO on processors with AVX512-BF16, delegates for
GPUs) cannot tell id 49,407 from 49,408 once it is a float, and silently answers by another token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvl.errors import LoweringError
from pocketvl.lower.ops import op_name, read_onnx, read_tflite, text_of

_INDEXED = {"Gather": 1, "EMBEDDING_LOOKUP": 0, "GATHER": 1}
"""Ops that look something up, and which of their inputs is the index."""


@dataclass(frozen=True)
class _Op:
    """One op of a graph; tensors by name in ONNX, by number in TFLite."""

    name: str
    inputs: tuple[object, ...]
    outputs: tuple[object, ...]


def check_ids(path: Path) -> None:
    """Follows every input of whole numbers of 32 or 64 bits through a .onnx or .tflite file.

    Following stops where a table is looked up and where a comparison gives bool.

    Raises:
        LoweringError: one becomes a float; the message names the op.
    """
    ops, types, starts = _onnx(path) if path.suffix == ".onnx" else _tflite(path)
    readers: dict[object, list[_Op]] = defaultdict(list)
    for op in ops:
        for tensor in dict.fromkeys(op.inputs):
            readers[tensor].append(op)
    waiting, seen = [tensor for tensor in starts if types.get(tensor) in ("int32", "int64")], set[object]()
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        for op in readers[tensor]:
            index = _INDEXED.get(op.name)
            if index is not None and op.inputs[index] == tensor:
                continue
            for output in op.outputs:
                if types[output].startswith(("float", "bfloat")):
                    raise LoweringError(
                        f"{path.name}: ids become floats in {op.name}, where engines that compute in 16 bits "
                        "confuse them; compare and look them up as integers"
                    )
                if types[output] != "bool":
                    waiting.append(output)


_Graph = tuple[list[_Op], Mapping[Any, str], list[Any]]


def _onnx(path: Path) -> _Graph:
    import onnx

    model = onnx.shape_inference.infer_shapes(read_onnx(path))
    graph = model.graph
    types = {
        value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    ops = [_Op(node.op_type, tuple(node.input), tuple(node.output)) for node in graph.node]
    for op in ops:
        for output in op.outputs:  # ops outside ai.onnx, whose types nothing infers, all multiply floats
            types.setdefault(str(output), "float32")
    return ops, types, [value.name for value in graph.input]


def _tflite(path: Path) -> _Graph:
    model = read_tflite(path)
    (graph,) = model.subgraphs
    types = dict(enumerate(_tflite_types(graph)))
    ops = [_Op(op_name(model, op), tuple(op.inputs), tuple(op.outputs)) for op in graph.operators]
    return ops, types, list(graph.inputs)


def _tflite_types(graph: Any) -> Iterator[str]:
    from ai_edge_litert.tools import flatbuffer_utils

    for tensor in graph.tensors:
        yield text_of(flatbuffer_utils.type_to_name(tensor.type)).lower()
