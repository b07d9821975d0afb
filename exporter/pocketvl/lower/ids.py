"""Check that token ids stay integers: they only index tables and are compared.

An engine that computes fp32 graphs in bf16 or fp16 (OpenVINO on processors with AVX512-BF16, delegates for
GPUs) cannot tell id 49,407 from 49,408 once it is a float, and silently answers by another token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocketvl.errors import LoweringError


@dataclass(frozen=True)
class GraphOp:
    """One op of a graph; tensors by name in ONNX, by number in TFLite.

    Attributes:
        name: its type.
        inputs: the tensors that it reads.
        outputs: the tensors that it writes.
        index: of an op that looks something up, which of its inputs says where; None for others.
    """

    name: str
    inputs: tuple[object, ...]
    outputs: tuple[object, ...]
    index: int | None = None


@dataclass(frozen=True)
class Dataflow:
    """A graph's ops, the types of its tensors ("int32", "float32"), and the tensors that it takes."""

    ops: tuple[GraphOp, ...]
    types: Mapping[Any, str]
    inputs: tuple[object, ...]


def check_ids(name: str, graph: Dataflow) -> None:
    """Follows every input of whole numbers of 32 or 64 bits through a graph.

    Following stops where a table is looked up and where a comparison gives bool.

    Args:
        name: of the graph's file.
        graph: what is in it.

    Raises:
        LoweringError: one becomes a float; the message names the op.
    """
    readers: dict[object, list[GraphOp]] = defaultdict(list)
    for op in graph.ops:
        for tensor in dict.fromkeys(op.inputs):
            readers[tensor].append(op)
    waiting = [tensor for tensor in graph.inputs if graph.types.get(tensor) in ("int32", "int64")]
    seen = set[object]()
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        for op in readers[tensor]:
            if op.index is not None and op.inputs[op.index] == tensor:
                continue
            for output in op.outputs:
                if graph.types[output].startswith(("float", "bfloat")):
                    raise LoweringError(
                        f"{name}: ids become floats in {op.name}, where engines that compute in 16 bits "
                        "confuse them; compare and look them up as integers"
                    )
                if graph.types[output] != "bool":
                    waiting.append(output)
